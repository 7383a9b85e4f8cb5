"""Sums, flags and skipped files of training steps."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch

from tests.processes import run_ranks
from tests.utils.toy_run import ToyData, make_settings, make_trainer
from tests.utils.training.test_trainer import numbers
from utils.runtime.distributed import Runtime, find_runtime
from utils.training.step_meters import Meter, SkippedFiles, StepFlags

ONE = Runtime(0, 1, 0, torch.device("cpu"))


def test_skipped_files_are_counted_and_named_once(tmp_path):
    result = make_trainer(make_settings(tmp_path), data=ToyData(unreadable=5)).fit()
    assert result.skipped == 2 and numbers(tmp_path)[-1]["skipped"] == 2
    assert (tmp_path / "log.txt").read_text().count("broken.mp4") == 1


def add(meter: Meter, **values: float) -> None:
    meter.add({name: torch.tensor(value) for name, value in values.items()})


def test_means_are_of_the_steps_since_the_last_reading():
    meter = Meter(ONE)
    add(meter, loss=1.0, vtm=4.0)
    add(meter, loss=3.0)
    assert meter.read() == {"loss": 2.0, "vtm": 4.0}
    add(meter, loss=7.0)
    assert meter.read() == {"loss": 7.0} and meter.read() == {}


def test_values_that_are_not_finite_are_left_out_of_their_mean():
    meter = Meter(ONE)
    for accuracy in (0.5, math.nan, 1.0, math.inf):
        add(meter, accuracy=accuracy, empty=math.nan)
    means = meter.read()
    assert means["accuracy"] == 0.75 and math.isnan(means["empty"])


def test_saved_sums_go_on_as_if_they_had_not_been_saved():
    meter, resumed = Meter(ONE), Meter(ONE)
    add(meter, loss=1.0)
    add(meter, loss=2.0)
    saved = meter.merge()
    assert saved == {"loss": [3.0, 2.0]} == meter.merge()
    resumed.restore(json.loads(json.dumps(saved)))
    for one in (meter, resumed):
        add(one, loss=6.0)
        assert one.read() == {"loss": 3.0}


def post(flags: StepFlags, bad: float, stop: bool, context: str) -> None:
    flags.post(torch.tensor(bad), stop, context)


def test_the_context_of_a_bad_step_is_given_once():
    flags = StepFlags(ONE)
    assert flags.read() is None
    post(flags, 0.0, False, "one")
    assert flags.read() is None and not flags.stop
    post(flags, 1.0, False, "two")
    assert flags.read() == "two" and flags.read() is None


def test_of_several_posts_the_first_bad_one_is_given_first():
    flags = StepFlags(ONE)
    for bad, context in ((0.0, "one"), (1.0, "two"), (1.0, "three")):
        post(flags, bad, False, context)
    assert [flags.read(all_posts=True) for _ in range(3)] == ["two", "three", None]


def test_a_signal_that_asks_to_stop_is_not_forgotten():
    flags = StepFlags(ONE)
    post(flags, 0.0, True, "one")
    assert not flags.stop, "agreed on when it is read"
    assert flags.read() is None and flags.stop
    post(flags, 0.0, False, "two")
    assert flags.read() is None and flags.stop


def test_each_skipped_file_is_returned_once_and_counted_each_time():
    skips = SkippedFiles(ONE)
    assert skips.exchange() == [] and skips.total == 0
    skips.add([["b.mp4", "a.mp4"], [], ["b.mp4"]])
    assert skips.exchange() == ["a.mp4", "b.mp4"] and skips.total == 3
    skips.add([["b.mp4"], ["c.mp4"]])
    assert skips.exchange() == ["c.mp4"] and skips.total == 5
    resumed = SkippedFiles(ONE)
    resumed.restore(skips.total, sorted(skips.named))
    resumed.add([["a.mp4"]])
    assert resumed.exchange() == [] and resumed.total == 6


def main(argv: list[str]) -> None:
    """What two ranks with different steps agree on, written by each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    output = parser.parse_args(argv).output
    runtime = find_runtime(device="cpu")
    with runtime.process_group():
        rank = runtime.rank
        meter, flags, skips = Meter(runtime), StepFlags(runtime), SkippedFiles(runtime)
        add(meter, loss=float(rank), accuracy=math.nan if rank else 0.5)
        add(meter, loss=3.0, accuracy=math.nan)
        merged = meter.merge()
        means = meter.read()
        contexts = []
        for bad, stop in ((0.0, False), (float(rank == 1), False), (0.0, rank == 0)):
            post(flags, bad, stop, f"rank {rank}")
            contexts.append([flags.read(), flags.stop])
        skips.add([["both.mp4"], [f"{rank}.mp4"]] if rank else [["both.mp4"]])
        found = [merged, means, contexts, skips.exchange(), skips.total]
    output.with_suffix(f".{rank}").write_text(json.dumps(found))


def test_two_ranks_agree(tmp_path: Path):
    run_ranks(main, [str(tmp_path / "found")], tmp_path / "logs", processes=2)
    one, other = (json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1))
    assert one[2] == [[None, False], ["rank 0", False], [None, True]], "a loss is bad on rank 1, a signal comes to 0"
    assert other[2] == [[None, False], ["rank 1", False], [None, True]]
    assert one[:2] == other[:2] == [{"accuracy": [0.25, 0.5], "loss": [3.5, 2.0]}, {"accuracy": 0.5, "loss": 1.75}]
    assert one[3:] == other[3:] == [["1.mp4", "both.mp4"], 3]
