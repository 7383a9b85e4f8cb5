"""Differences between two runs and their bootstrap intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from utils.compare_runs import main


def write(path: Path, results: Any) -> str:
    path.write_text(json.dumps(results))
    return str(path)


def retrieval(t2v: list[int], v2t: list[int]) -> dict[str, Any]:
    queries = {"t2v": [f"caption{i}" for i in range(len(t2v))], "v2t": [f"video{i}" for i in range(len(v2t))]}
    return {"t2v_R1": 1.0, "ranks": {"t2v": t2v, "v2t": v2t}, "queries": queries}


def items(correct: list[bool]) -> dict[str, Any]:
    return {"correct": correct, "items": [f"question{i}" for i in range(len(correct))]}


def compare(a: str, b: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main([a, b, "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)["metrics"]


def error_of(a: str, b: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([a, b]) == 1
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_table_says_what_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a = write(tmp_path / "a.json", retrieval([0, 2, 3], [1, 1]))
    assert main([a, a, "--samples", "50", "--seed", "9"]) == 0
    out = capsys.readouterr().out
    assert "50 bootstrap samples, seed 9" in out and "lower is better" in out
    row = next(line for line in out.splitlines() if line.startswith("t2v_R1"))
    assert row.split() == ["t2v_R1", "3", "33.33", "33.33", "+0.00", "[", "+0.00,", "+0.00]", "0.0", "%"]


def test_missing_and_broken_files_are_error_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = write(tmp_path / "good.json", items([True]))
    assert "none.json" in error_of(good, str(tmp_path / "none.json"), capsys)
    (tmp_path / "bad.json").write_text('{"correct": [tr')
    assert "bad.json is not JSON" in error_of(good, str(tmp_path / "bad.json"), capsys)
