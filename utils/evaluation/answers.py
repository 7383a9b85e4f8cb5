"""Accuracy of question answering, sharded over ranks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from dataloaders.question_samples import UNKNOWN, AnswerCode
from dataloaders.questions import Question, normalised
from modules.answering import AnswerModel
from modules.batch import Batch, to_device
from utils.evaluation.bad_videos import BadVideos, check_bad_videos
from utils.evaluation.result import Evaluation
from utils.runtime.distributed import Runtime
from utils.runtime.precision import autocast

WORDS = ("what", "who", "how", "when", "where")  # MSRVTT-QA's kinds of questions


@torch.no_grad()
def evaluate_answers(
    model: AnswerModel,
    questions: Sequence[Question],
    code: AnswerCode,
    batches: Iterable[Batch],
    runtime: Runtime,
    *,
    precision: str = "fp32",
    on_bad_video: str = "error",
    missing: Sequence[str] = (),
) -> Evaluation:
    """Answer every question and compare.

    Args:
        model: left in evaluation mode.
        questions: all questions.
        code: what the model's targets stand for.
        batches: this rank's part of their clips, in order (dataloaders/question_samples.py, QuestionDataset).
        missing: ids of videos that were not there; their questions are not among `questions`.

    Returns:
        As `summarise`.

    Raises:
        BadVideos: a clip cannot be read and `on_bad_video` is "error", or none can be read.
    """
    model.eval()
    mine: list[tuple[int, int]] = []  # place of a question, predicted target
    bad: list[str] = []
    for batch in batches:
        with autocast(precision, runtime.device):
            predicted = model.predict(to_device(batch, runtime.device)).tolist()
        places = iter(predicted)
        for own, reason in zip(batch["places"], batch["bad_video"], strict=True):
            answered = [(place, next(places)) for place in own]
            if reason:
                bad.append(reason)
            else:
                mine += answered
    skipped = [reason for part in runtime.gather_json(bad) for reason in part]
    check_bad_videos(skipped, on_bad_video)
    answered = sorted(tuple(entry) for part in runtime.gather_json(mine) for entry in part)
    if not answered:
        raise BadVideos("none of the clips can be read")
    skipped = [f"{video_id}: no such video" for video_id in missing] + skipped
    chosen = [questions[place] for place, _ in answered]
    return summarise(chosen, [target for _, target in answered], code, skipped)


def summarise(
    questions: Sequence[Question], predicted: Sequence[int], code: AnswerCode, skipped: Sequence[str]
) -> Evaluation:
    """Compare predicted targets with the answers, all words of an answer compared.

    Returns:
        Percent: `accuracy` over all questions, `accuracy_{word}` by their first word, `unanswerable` (answers that the
        model cannot give, all counted as wrong), `majority` (accuracy of always giving the most frequent answer); when
        answers are known by their first token, `first_token_accuracy`, the released figure. `questions`, `skipped`
        (clips). `correct` and `items` by question; predictions.json.
    """
    answers = [normalised(question.answer) for question in questions]
    given = [code.answer(target) for target in predicted]
    correct = [a == b for a, b in zip(given, answers, strict=True)]
    targets = [code.target(answer) for answer in answers]
    can_answer = [
        target != UNKNOWN and code.answer(target) == answer for target, answer in zip(targets, answers, strict=True)
    ]
    metrics: dict[str, Any] = {"accuracy": _percent(correct)}
    words = [_kind(question.question) for question in questions]
    for word in (*WORDS, "other"):
        own = [right for right, kind in zip(correct, words, strict=True) if kind == word]
        if own:
            metrics[f"accuracy_{word}"] = _percent(own)
    metrics["unanswerable"] = 100.0 - _percent(can_answer)
    metrics["majority"] = 100.0 * Counter(answers).most_common(1)[0][1] / len(answers)
    if code.answers is None:
        metrics["first_token_accuracy"] = _percent([a == b for a, b in zip(predicted, targets, strict=True)])
    metrics |= {"questions": len(questions), "skipped": len(skipped)}
    predictions = [
        {**question._asdict(), "prediction": answer, "correct": right}
        for question, answer, right in zip(questions, given, correct, strict=True)
    ]
    details = {
        "correct": correct,
        "items": [question.question_id for question in questions],
        "skipped_videos": list(skipped),
    }
    return Evaluation(
        metrics, details, {"predictions.json": json.dumps(predictions, indent=1, ensure_ascii=False) + "\n"}
    )


def _kind(question: str) -> str:
    word = (question.split() or [""])[0].lower()
    return word if word in WORDS else "other"


def _percent(flags: Sequence[bool]) -> float:
    return 100.0 * sum(flags) / len(flags)
