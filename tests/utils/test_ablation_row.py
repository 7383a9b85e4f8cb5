"""The command that keeps a finished row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.utils.ablation import write_captions, write_json, write_run, write_stage
from tests.utils.demo.test_scoring import TRUTH
from utils.ablation_row import main
from utils.evaluation.ablation_rows import read_rows


def test_true_captions_are_counted_where_there_is_a_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    write_run(run, "all", 3, [True, False])
    write_stage(run / "captioning", "all", 3)
    write_captions(run / "captioning", {"b": 2.0}, {"b": "a blue ring is resting"})
    write_json(tmp_path / "truth.json", {"videos": TRUTH})
    command = [str(run), "--row", "all", "--seed", "3", "--output", str(tmp_path / "rows/all-seed3.json")]
    assert main([*command, "--truth", str(tmp_path / "truth.json")]) == 0
    assert "question_answering accuracy 50, captioning CIDEr 2" in capsys.readouterr().out
    [row] = read_rows(tmp_path / "rows")
    assert row.tasks["captioning"].values["exact"].tolist() == [100]
    assert main(command) == 0
    assert "exact" not in json.loads((tmp_path / "rows/all-seed3.json").read_text())["tasks"]["captioning"]["values"]


def test_what_does_not_fit_is_an_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    write_stage(run / "captioning", "all", 3)
    write_captions(run / "captioning", {"b": 2.0}, {"b": "a blue ring is resting"})
    write_json(tmp_path / "truth.json", {"videos": {}})
    command = [str(run), "--row", "all", "--seed", "3", "--output", str(tmp_path / "row.json")]
    assert main([*command, "--truth", str(tmp_path / "truth.json")]) == 1
    assert "do not belong together (KeyError('b'))" in capsys.readouterr().err
    assert main(command) == 1
    assert "pretraining/config.json" in capsys.readouterr().err and not (tmp_path / "row.json").exists()
