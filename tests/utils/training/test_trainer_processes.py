"""The training loop in two processes on the CPU."""

import json

import pytest
import torch

from tests.utils.toy_run import ToyModel, run_processes
from utils.runtime.checkpoint import load


def settings(**changes) -> list[str]:
    return ["--settings", json.dumps(changes)]


def test_two_processes_end_like_one_with_the_same_global_batch(tmp_path):
    """Uneven counts per rank, accumulation, and a loss that ends after an epoch, so that DDP is built anew."""
    codes, output = run_processes(str(tmp_path / "one"), *settings(batch_size=8, save_every=3))
    assert codes == [0], output
    codes, output = run_processes(str(tmp_path / "two"), *settings(batch_size=4, save_every=3), processes=2)
    assert codes == [0, 0], output
    one, two = (load(tmp_path / name / "restore.bin") for name in ("one", "two"))
    start = ToyModel().state_dict()
    moved = sum((one["model"][name] - start[name]).norm() for name in start)
    apart = sum((one["model"][name] - two["model"][name]).norm() for name in start)
    assert moved > 1e-2 and apart < 1e-3 * moved
    lines = [[json.loads(line) for line in (tmp_path / n / "metrics.jsonl").open()] for n in ("one", "two")]
    for first, second in zip(*lines, strict=True):
        assert first["step"] == second["step"] and abs(first.get("vtm", 0) - second.get("vtm", 0)) < 1e-4


@pytest.mark.slow
def test_accumulation_and_resume_in_two_processes(tmp_path):
    options = ["--dropout", "0.5", *settings(batch_size=4, gradient_accumulation_steps=2)]
    assert run_processes(str(tmp_path / "whole"), *options, processes=2)[0] == [0, 0]
    codes, output = run_processes(str(tmp_path / "cut"), *options, "--stop_rank", "1", processes=2)
    assert codes == [0, 0], output
    assert load(tmp_path / "cut" / "restore.bin")["global_step"] == 1, "both ranks stop after the update at hand"
    codes, output = run_processes(str(tmp_path / "cut"), *options, processes=2)
    assert codes == [0, 0], output
    whole, cut = (load(tmp_path / name / "restore.bin") for name in ("whole", "cut"))
    assert all(torch.equal(whole["model"][name], cut["model"][name]) for name in whole["model"])


def test_nan_on_one_rank_stops_all_with_its_clips(tmp_path):
    codes, output = run_processes(str(tmp_path), *settings(batch_size=4), "--bad_rank", "1", processes=2)
    assert codes == [1, 1]
    clip = output[1].split("nan in ")[1].split()[0]
    assert all("NonFiniteLoss: loss is not finite at step 2" in text and clip in text for text in output), output
