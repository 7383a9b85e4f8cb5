"""Accuracy of question answering, sharded over ranks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from dataloaders.question_samples import UNKNOWN, AnswerCode
from dataloaders.questions import Question, normalised
from modules.batch import Batch
from modules.tasks.answering import AnswerModel
from utils.evaluation.loop import over_clips, with_missing
from utils.evaluation.result import Evaluation
from utils.runtime.distributed import Runtime
from utils.settings.groups import ReadSettings

WORDS = ("what", "who", "how", "when", "where")  # MSRVTT-QA's kinds of questions


def evaluate_answers(
    model: AnswerModel,
    questions: Sequence[Question],
    code: AnswerCode,
    batches: Iterable[Batch],
    runtime: Runtime,
    settings: ReadSettings,
    *,
    missing: Sequence[str] = (),
) -> Evaluation:
    """Answer every question and compare.

    Args:
        questions: all questions.
        code: what the model's targets stand for.
        batches: this rank's part of their clips, in order (dataloaders/question_samples.py, QuestionDataset).
        missing: ids of videos that were not there; their questions are not among `questions`.

    Returns:
        As `summarise`.

    Raises:
        BadVideos: as `over_clips`.
    """

    def answers(batch: Batch) -> Sequence[Any]:
        """(place of a question, predicted target) of each clip's questions."""
        predicted = iter(model.predict(batch).tolist())
        return [[(place, next(predicted)) for place in places] for places in batch["places"]]

    found, skipped = over_clips(model, batches, answers, runtime, settings)
    answered = sorted(tuple(entry) for clip in found for entry in clip)
    chosen = [questions[place] for place, _ in answered]
    return summarise(chosen, [target for _, target in answered], code, with_missing(missing, skipped))


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
