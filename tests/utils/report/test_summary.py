"""Runs and results as a summary has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.test_summarise_quickstart import ZERO_SHOT, write_run
from utils.report.summary import summarise_run, table


def test_run_without_evaluation_is_an_error(tmp_path: Path):
    write_run(tmp_path / "pretrain", {"kind": "train", "step": 20, "vtm": 0.7})
    with pytest.raises(ValueError, match="no evaluation line"):
        summarise_run(tmp_path / "pretrain")


def test_of_a_step_that_a_resumed_run_wrote_again_the_later_line_counts(tmp_path: Path):
    write_run(
        tmp_path / "pretrain",
        {"kind": "train", "step": 20, "vtm": 0.7},
        {"kind": "train", "step": 20, "vtm": 0.6},
        {"kind": "evaluation", "step": 20, **ZERO_SHOT},
    )
    assert summarise_run(tmp_path / "pretrain")["losses"] == {"vtm": [0.6, 0.6]}


def test_the_table_has_a_row_for_each_model_under_the_names_of_the_scores():
    run = {"zero_shot": ZERO_SHOT, "losses": {}, "steps": 40}
    lines = table({"pretrain": run, "retrieval": {**ZERO_SHOT, "t2v_R1": 70.0}, "seconds": {}})
    assert lines[2].split() == ["t2v", "R1", "t2v", "R5", "t2v", "R10", "t2v", "MedianR"] + [
        "v2t", "R1", "v2t", "R5", "v2t", "R10", "v2t", "MedianR",
    ]  # fmt: skip
    assert lines[3].startswith("pretrain (zero-shot)") and lines[3].split()[2:] == ["10.0"] * 8
    assert lines[4].startswith("retrieval (fine-tuned)") and lines[4].split()[2] == "70.0"
    assert len({len(line) for line in lines[2:5]}) == 1
