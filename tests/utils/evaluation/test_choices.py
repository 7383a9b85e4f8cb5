"""Multiple choice: accuracy and predictions, the same however many ranks share the questions."""

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

from dataloaders.choices import ChoiceDataset, collate_choices
from dataloaders.multiple_choice import ChoiceItem
from modules.tasks.multiple_choice import MultipleChoiceModel
from modules.tokenizer import ClipTokenizer
from tests import tiny
from tests.processes import run_ranks
from tests.utils.evaluation.test_retrieval import NO_OBJECTS, ONE, WORDS, Clips
from utils.evaluation.bad_videos import BadVideos
from utils.evaluation.choices import evaluate_choices
from utils.evaluation.result import Evaluation
from utils.runtime.distributed import Runtime, find_runtime
from utils.runtime.sampler import EvaluationSampler
from utils.settings.groups import ReadSettings


def questions(answers: Collection[int]) -> list[ChoiceItem]:
    """One question with four options about each clip."""
    draw = np.random.default_rng(0)
    options = [[" ".join(draw.choice(WORDS, draw.integers(2, 9))) for _ in range(4)] for _ in answers]
    return [ChoiceItem(f"clip{i}", options[i], answer, f"q{i}") for i, answer in enumerate(answers)]


def make_model(**choices: Any) -> MultipleChoiceModel:
    return tiny.model(MultipleChoiceModel, vocab_size=ClipTokenizer().vocab_size, **choices).eval()


def evaluate(
    model: MultipleChoiceModel,
    items: list[ChoiceItem],
    runtime: Runtime = ONE,
    bad: Collection[int] = (),
    batch_size: int = 3,
    on_bad_video: str = "error",
    **choices: Any,
) -> Evaluation:
    data = ChoiceDataset(items, Clips(model.config, bad))
    sampler = EvaluationSampler(len(data), runtime.rank, runtime.world_size)
    loader = DataLoader(data, sampler=sampler, batch_size=batch_size, collate_fn=collate_choices)
    return evaluate_choices(model, items, loader, runtime, ReadSettings(on_bad_video=on_bad_video), **choices)


def predictions(result: Evaluation) -> list[dict[str, Any]]:
    assert list(result.files) == ["predictions.json"]
    return json.loads(result.files["predictions.json"])


def main(argv: list[str]) -> None:
    """Evaluate sets of several lengths in this rank and write what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    args = parser.parse_args(argv)
    runtime, results = find_runtime(device="cpu"), []
    with runtime.process_group():
        for choices in ({}, NO_OBJECTS):
            model = make_model(**choices)
            done = [evaluate(model, questions(range(4))[:length], runtime) for length in (4, 3, 1)]
            skip = {"on_bad_video": "skip", "missing": ["gone"]}
            done += [evaluate(model, questions([0] * 7), runtime, bad, **skip) for bad in ((0, 5), (3, 4, 5, 6))]
            results += [[result.metrics, result.details, predictions(result)] for result in done]
    args.output.with_suffix(f".{runtime.rank}").write_text(json.dumps(results))


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path):
    run_ranks(main, [str(tmp_path / "one")], tmp_path / "logs1")
    run_ranks(main, [str(tmp_path / "two")], tmp_path / "logs2", processes=2)
    one, two, other = (json.loads((tmp_path / name).read_text()) for name in ("one.0", "two.0", "two.1"))
    assert two == other
    assert [result[0]["questions"] for result in one] == [4, 3, 1, 5, 3] * 2
    for found, expected in zip(two, one, strict=True):
        # Matrix products of other sizes round otherwise in the last place; all else is the same.
        scores = [[entry.pop("scores") for entry in result[2]] for result in (found, expected)]
        np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-6)
        assert found == expected


@pytest.mark.parametrize("choices", [{}, NO_OBJECTS], ids=["objects", "plain"])
@torch.no_grad()
def test_the_option_of_the_largest_score_is_the_answer(choices: dict[str, Any]):
    model = make_model(**choices)
    items = questions([0] * 6)
    first = predictions(evaluate(model, items))
    for entry, item, (_, index) in zip(first, items, EvaluationSampler(6), strict=True):
        alone = collate_choices([ChoiceDataset(items, Clips(model.config))[0, index]])
        scores = model.score_options(alone)[0].float()
        np.testing.assert_allclose(entry.pop("scores"), scores, rtol=1e-5, atol=1e-6)
        given = {"item": item.item_id, "video_id": item.video_id, "options": item.options, "answer": 0}
        assert entry == {**given, "prediction": int(scores.argmax())}
    best = [entry["prediction"] for entry in first]
    assert len(set(best)) > 1
    answers = [*best[:4], *((b + 1) % 4 for b in best[4:])]
    result = evaluate(model.train(), questions(answers), batch_size=4)
    assert not model.training
    assert result.metrics == {"accuracy": pytest.approx(100 * 4 / 6), "questions": 6, "skipped": 0}
    assert result.details["correct"] == [True] * 4 + [False] * 2
    assert result.details["items"] == [f"q{i}" for i in range(6)] and result.details["skipped_videos"] == []


def test_the_matching_head_can_be_left_out():
    model = make_model()
    weighted, plain = (predictions(evaluate(model, questions([0] * 3), use_matching=on)) for on in (True, False))
    assert all(0 < sum(entry["scores"]) <= 1 and min(entry["scores"]) >= 0 for entry in weighted)
    assert [entry["scores"] for entry in weighted] != [entry["scores"] for entry in plain]


def test_unreadable_clips_stop_the_evaluation_and_are_all_listed():
    with pytest.raises(BadVideos) as caught:
        evaluate(make_model(**NO_OBJECTS), questions([0] * 7), bad=(1, 6))
    text = str(caught.value)
    assert text.startswith("2 clips cannot be read") and "--on_bad_video skip" in text
    assert "clip1.mp4: no frame decodes" in text and "clip6.mp4: no frame decodes" in text


def test_skipped_and_missing_clips_are_left_out_named_and_counted():
    model, items = make_model(**NO_OBJECTS), questions([0] * 7)
    result = evaluate(model, items, bad=(1, 4), on_bad_video="skip", missing=["gone", "lost"])
    without = evaluate(model, [items[i] for i in (0, 2, 3, 5, 6)])
    reasons = ["gone: no such video", "lost: no such video"] + [f"clip{i}.mp4: no frame decodes" for i in (1, 4)]
    assert result.metrics == {**without.metrics, "skipped": 4}
    assert result.details == {**without.details, "skipped_videos": reasons}
    assert [entry["item"] for entry in predictions(result)] == [f"q{i}" for i in (0, 2, 3, 5, 6)]


def test_no_readable_clip_is_an_error():
    with pytest.raises(BadVideos, match="none of the clips can be read"):
        evaluate(make_model(**NO_OBJECTS), questions([0, 0]), bad=(0, 1), on_bad_video="skip")
