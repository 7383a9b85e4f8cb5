"""The loop of every evaluation: one value for each clip that can be read, of all ranks, in order."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modules.batch import Batch
from tests.processes import run_ranks
from utils.evaluation.bad_videos import BadVideos
from utils.evaluation.loop import Gathered, over_clips, with_missing
from utils.evaluation.retrieval import own_part
from utils.runtime.distributed import Runtime, find_runtime
from utils.settings.groups import ReadSettings

ONE = Runtime(0, 1, 0, torch.device("cpu"))


def batches(clips: int, runtime: Runtime = ONE, bad: Collection[int] = ()) -> Iterator[Batch]:
    """This rank's part of clips whose picture is their number, two at a time."""
    mine = range(clips)[own_part(clips, runtime)]
    for start in range(0, len(mine), 2):
        numbers = mine[start : start + 2]
        reasons = [f"clip{number}.mp4: no frame decodes" if number in bad else "" for number in numbers]
        yield {"x": torch.tensor(numbers, dtype=torch.float32)[:, None], "bad_video": reasons}


def doubled(clips: int, runtime: Runtime = ONE, bad: Collection[int] = (), **choices: Any) -> Gathered:
    """Twice the number of each clip, by a model that has nothing to learn."""
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(2)

    def compute(batch: Batch) -> list[int]:
        return [int(value) for value in model(batch["x"])[:, 0].tolist()]

    return over_clips(model, batches(clips, runtime, bad), compute, runtime, ReadSettings(**choices))


def test_there_is_one_value_for_each_clip_in_order():
    assert doubled(5) == Gathered([0, 2, 4, 6, 8], [])


def test_clips_that_cannot_be_read_are_left_out_where_that_is_asked_for():
    reasons = [f"clip{number}.mp4: no frame decodes" for number in (0, 3)]
    assert doubled(5, bad=(0, 3), on_bad_video="skip") == Gathered([2, 4, 8], reasons)


def test_else_they_stop_the_evaluation_when_all_of_them_are_known():
    with pytest.raises(BadVideos, match=r"2 clips cannot be read:\n  clip0\.mp4: .*\n  clip4\.mp4: "):
        doubled(5, bad=(0, 4))


@pytest.mark.parametrize("clips", [0, 3])
def test_no_readable_clip_is_an_error(clips: int):
    with pytest.raises(BadVideos, match="none of the clips can be read"):
        doubled(clips, bad=range(clips), on_bad_video="skip")


def test_the_model_is_evaluated_without_gradients_and_in_the_precision_asked_for():
    model, seen = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)), []

    def compute(batch: Batch) -> list[float]:
        out = model(batch["x"])
        seen.append((model.training, out.requires_grad, out.dtype))
        return out[:, 0].tolist()

    for precision in ("fp32", "bf16"):
        over_clips(model.train(), batches(2), compute, ONE, ReadSettings(precision=precision))
        assert not model.training
    assert seen == [(False, False, torch.float32), (False, False, torch.bfloat16)]
    assert torch.is_grad_enabled()


def test_a_value_too_few_is_a_mistake_and_not_a_clip_too_few():
    with pytest.raises(ValueError, match="argument 2 is longer than argument 1"):
        over_clips(nn.Identity(), batches(2), lambda batch: [1], ONE, ReadSettings())


def main(argv: list[str]) -> None:
    """What ranks make of several sets of clips, written by each; the reasons of the last set are an error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    output = parser.parse_args(argv).output
    runtime = find_runtime(device="cpu")
    with runtime.process_group():
        found: list[Any] = [
            doubled(clips, runtime, bad, on_bad_video="skip") for clips, bad in ((5, (1, 4)), (1, ()), (4, (2, 3)))
        ]
        with pytest.raises(BadVideos) as caught:
            doubled(5, runtime, (4,))
        found.append(str(caught.value))
    output.with_suffix(f".{runtime.rank}").write_text(json.dumps(found))


def test_two_processes_give_what_one_gives(tmp_path: Path):
    """A rank may have no clip, or none that can be read."""
    run_ranks(main, [str(tmp_path / "one")], tmp_path / "logs1")
    run_ranks(main, [str(tmp_path / "two")], tmp_path / "logs2", processes=2)
    one, two, other = (json.loads((tmp_path / name).read_text()) for name in ("one.0", "two.0", "two.1"))
    assert one == two == other
    assert [values for values, _ in one[:3]] == [[0, 4, 6], [0], [0, 2]] and "clip4.mp4" in one[3]


def test_missing_videos_come_before_those_that_cannot_be_read():
    assert with_missing(["v9", "v7"], ["v1.mp4: empty"]) == ["v9: no such video", "v7: no such video", "v1.mp4: empty"]
    assert with_missing([], []) == []
