"""An objective and an encoder from outside, trained by the command, on one process and on two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.modules.toy_parts import main
from tests.processes import run_ranks
from tests.world import World
from utils.runtime.run_log import read_metrics

LOSSES = ("vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive", "box_count")


@pytest.mark.slow
def test_they_train_with_the_others_in_two_processes_as_in_one(world: World, tmp_path: Path):
    flags = ["--max_steps", "6", "--schedule", "warmup_constant", "--warmup_proportion", "0", "--lr", "3e-3"]
    flags += [
        "--coef_lr",
        "1",
        "--fusion_lr",
        "3e-3",
        "--freeze_layer_num",
        "-1",
        "--loss_weights",
        "box_count=2,mlm=0",
    ]
    one, two = world.flags(tmp_path / "one", *flags), world.flags(tmp_path / "two", *flags)
    run_ranks(main, [*one, "--batch_size", "8"], tmp_path / "logs1")
    run_ranks(main, [*two, "--batch_size", "4"], tmp_path / "logs2", processes=2)
    first, second = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for mine, other in zip(first, second, strict=True):
        assert "mlm" not in mine
        shown = [name for name in LOSSES if name != "mlm"]
        assert mine["loss"] == pytest.approx(sum(mine[n] * (2 if n == "box_count" else 1) for n in shown), rel=1e-4)
        assert [other[name] for name in shown] == pytest.approx([mine[name] for name in shown], rel=1e-3)
    states = [torch.load(tmp_path / name / "restore.bin", weights_only=True)["model"] for name in ("one", "two")]
    for name in ("encoders.shades.proj.weight", "count_head.weight"):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_a_weight_of_a_loss_that_is_not_there_names_those_that_are(world: World, tmp_path: Path, caplog):
    assert main(world.flags(tmp_path / "out", "--loss_weights", "box_counts=2")) != 0
    assert "no loss box_counts here; there are vtm, " in caplog.text and ", box_count" in caplog.text
