"""Question answering: accuracy by kind, exact answers, the same however many ranks share the clips."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dataloaders.question_samples import AnswerCode, QuestionDataset, collate_questions
from dataloaders.questions import Question
from modules.tasks.answering import AnswerModel
from modules.tokenizer import ClipTokenizer
from tests import tiny
from tests.processes import run_ranks
from tests.utils.evaluation.test_retrieval import ONE, WORDS, Clips
from utils.evaluation.answers import evaluate_answers, summarise
from utils.evaluation.bad_videos import BadVideos
from utils.evaluation.result import Evaluation
from utils.runtime.distributed import Runtime, find_runtime
from utils.runtime.sampler import EvaluationSampler
from utils.settings.groups import ReadSettings

ANSWERS = ("dog", "bridge", "two men", "soup")
CODE = AnswerCode(ANSWERS)


def make_model(behaviour: str = "intended") -> AnswerModel:
    vocabulary = ClipTokenizer().vocab_size
    return tiny.model(AnswerModel, behaviour=behaviour, answers=ANSWERS, vocab_size=vocabulary).eval()


def questions(clips: int) -> list[Question]:
    """One to three questions on each clip, those of a clip apart."""
    draw = np.random.default_rng(0)
    made = []
    for turn in range(3):
        for clip in range(clips):
            if turn <= clip % 3:
                words = " ".join(draw.choice(WORDS, draw.integers(2, 9)))
                made.append(Question(f"{clip}.{turn}", f"clip{clip}", f"what {words}", ANSWERS[draw.integers(4)]))
    return made


def evaluate(
    model: AnswerModel,
    asked: list[Question],
    runtime: Runtime = ONE,
    bad: Collection[int] = (),
    on_bad_video: str = "error",
    **choices: Any,
) -> Evaluation:
    code = AnswerCode(ANSWERS if model.is_classifier else None)
    data = QuestionDataset(asked, Clips(model.config, bad), code)
    sampler = EvaluationSampler(len(data), runtime.rank, runtime.world_size)
    loader = DataLoader(data, sampler=sampler, batch_size=2, collate_fn=collate_questions)
    return evaluate_answers(model, asked, code, loader, runtime, ReadSettings(on_bad_video=on_bad_video), **choices)


def asked_of(text: str, answer: str) -> Question:
    return Question(text, "clip0", text, answer)


def test_accuracy_overall_by_first_word_and_of_the_majority():
    asked = [
        asked_of("what is it?", "dog"),
        asked_of("What runs?", "soup"),
        asked_of("who sings?", "Two  Men"),
        asked_of("how many?", "seven"),
        asked_of("is it?", "dog"),
    ]
    result = summarise(asked, [0, 0, 2, 2, 3], CODE, ["clip9: no such video"])
    assert result.metrics == {
        "accuracy": 40.0,
        "accuracy_what": 50.0,
        "accuracy_who": 100.0,
        "accuracy_how": 0.0,
        "accuracy_other": 0.0,
        "unanswerable": 20.0,
        "majority": 40.0,
        "questions": 5,
        "skipped": 1,
    }
    assert result.details["correct"] == [True, False, True, False, False]
    assert result.details["items"] == [question.question_id for question in asked]
    written = json.loads(result.files["predictions.json"])
    assert written[2] == {**asked[2]._asdict(), "prediction": "two men", "correct": True}


def test_an_answer_of_several_tokens_is_no_match_for_its_first():
    code = AnswerCode(None)
    asked = [asked_of("what?", "stir"), asked_of("what?", "stir-frying"), asked_of("what?", "two men")]
    predicted = [code.target(question.answer) for question in asked]
    metrics = summarise(asked, predicted, code, []).metrics
    assert metrics["first_token_accuracy"] == 100.0
    assert metrics["accuracy"] == pytest.approx(100 / 3)
    assert metrics["unanswerable"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@torch.no_grad()
def test_predictions_are_those_of_one_question_at_a_time(behaviour: str):
    model, asked = make_model(behaviour), questions(5)
    result = evaluate(model, asked)
    written = json.loads(result.files["predictions.json"])
    assert [entry["question_id"] for entry in written] == [question.question_id for question in asked]
    for entry, question in zip(written, asked, strict=True):
        alone = json.loads(evaluate(model, [question]).files["predictions.json"])
        assert alone[0]["prediction"] == entry["prediction"]
    assert result.metrics["questions"] == len(asked)


def test_unreadable_clips_stop_or_are_left_out_with_their_questions():
    model, asked = make_model(), questions(5)
    with pytest.raises(BadVideos, match=r"2 clips cannot be read:\n  clip1\.mp4"):
        evaluate(model, asked, bad=(1, 3))
    found = evaluate(model, asked, bad=(1, 3), on_bad_video="skip", missing=["clip9"])
    kept = [question for question in asked if question.video_id not in ("clip1", "clip3")]
    expected = evaluate(model, kept)
    assert found.details["items"] == expected.details["items"]
    assert found.details["correct"] == expected.details["correct"]
    assert found.metrics == {**expected.metrics, "skipped": 3}
    assert found.details["skipped_videos"][0] == "clip9: no such video"
    with pytest.raises(BadVideos, match="none of the clips"):
        evaluate(model, asked, bad=range(5), on_bad_video="skip")


def main(argv: list[str]) -> None:
    """Answer questions on several numbers of clips in this rank and write what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    output = parser.parse_args(argv).output
    runtime, results = find_runtime(device="cpu"), []
    with runtime.process_group():
        model = make_model()
        for clips, bad in ((5, ()), (1, ()), (4, (2, 3)), (3, (0,))):
            result = evaluate(model, questions(clips), runtime, bad, on_bad_video="skip")
            results.append([result.metrics, result.details, result.files])
    output.with_suffix(f".{runtime.rank}").write_text(json.dumps(results))


def test_two_processes_give_what_one_gives(tmp_path: Path):
    run_ranks(main, [str(tmp_path / "one")], tmp_path / "logs1")
    run_ranks(main, [str(tmp_path / "two")], tmp_path / "logs2", processes=2)
    one, two, other = (json.loads((tmp_path / name).read_text()) for name in ("one.0", "two.0", "two.1"))
    assert one == two == other and len(one) == 4
