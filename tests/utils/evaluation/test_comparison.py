"""Metrics of two runs on the same queries, and files that cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.utils.test_compare_runs import compare, error_of, items, retrieval, write
from utils.compare_runs import main


def test_retrieval_runs_have_a_known_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a = write(tmp_path / "a.json", retrieval([0, 0, 4, 9] * 25, [0] * 20))
    b = write(tmp_path / "b.json", retrieval([0, 1, 5, 10] * 25, [0] * 20))
    metrics = compare(a, b, capsys, "--samples", "2000")
    assert list(metrics) == [f"{way}_{name}" for way in ("t2v", "v2t") for name in ("R1", "R5", "R10", "MeanR")]
    r1 = metrics["t2v_R1"]
    assert (r1["queries"], r1["a"], r1["b"], r1["difference"], r1["above_zero"]) == (100, 50, 25, 25, 1)
    assert r1["low"] == pytest.approx(17, abs=1) and r1["high"] == pytest.approx(34, abs=1)  # 25 hits of 100
    assert (metrics["t2v_MeanR"]["a"], metrics["t2v_MeanR"]["difference"]) == (4.25, -0.75)
    assert metrics["t2v_MeanR"]["high"] < 0 and metrics["t2v_MeanR"]["above_zero"] == 0
    assert [metrics["v2t_R1"][key] for key in ("difference", "low", "high")] == [0, 0, 0]


def test_answers_have_an_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a = write(tmp_path / "a.json", items([True] * 60 + [False] * 40))
    b = write(tmp_path / "b.json", items([True] * 50 + [False] * 50))
    metrics = compare(a, b, capsys)
    assert list(metrics) == ["accuracy"]
    assert (metrics["accuracy"]["a"], metrics["accuracy"]["b"], metrics["accuracy"]["difference"]) == (60, 50, 10)
    assert 4 <= metrics["accuracy"]["low"] <= 6 and 15 <= metrics["accuracy"]["high"] <= 17


def test_captions_have_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ids = [f"video{i}" for i in range(100)]
    a = write(tmp_path / "a.json", {"scores": {"CIDEr": [1.5] * 50 + [0.5] * 50}, "items": ids})
    b = write(tmp_path / "b.json", {"scores": {"CIDEr": [1.0] * 50 + [0.5] * 50}, "items": ids})
    metrics = compare(a, b, capsys)
    assert list(metrics) == ["CIDEr"]
    assert (metrics["CIDEr"]["a"], metrics["CIDEr"]["b"], metrics["CIDEr"]["difference"]) == (1.0, 0.75, 0.25)
    assert metrics["CIDEr"]["low"] == pytest.approx(0.2, abs=0.02)
    assert main([str(a), str(b)]) == 0 and "percentage" not in capsys.readouterr().out


def test_different_queries_are_counted_and_the_first_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    results = retrieval([0] * 5, [0] * 4)
    a = write(tmp_path / "a.json", results)
    results["queries"]["v2t"][1:3] = ["video2", "video1"]
    error = error_of(a, write(tmp_path / "b.json", results), capsys)
    assert "v2t" in error and "different at 2 places" in error
    assert "first is at place 1: 'video1' in A, 'video2' in B" in error
    error = error_of(a, write(tmp_path / "b.json", retrieval([0] * 5, [0] * 2)), capsys)
    assert "4 in A, 2 in B, different at 2 places" in error and "'video2' in A, nothing in B" in error


def test_retrieval_and_answers_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a, b = write(tmp_path / "a.json", retrieval([0], [0])), write(tmp_path / "b.json", items([True]))
    assert "a.json has results of t2v, v2t, but" in error_of(a, b, capsys)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([1, 2], 'neither "ranks" (retrieval) nor "correct"'),
        ({"t2v_R1": 4.0, "ranks": {}}, 'neither "ranks" (retrieval) nor "correct"'),
        ({"ranks": {"t2v": [0, -1]}}, '"ranks" of "t2v" has -1 at place 1, not a rank from 0'),
        ({"ranks": {"t2v": [0, 1.5]}}, '"ranks" of "t2v" has 1.5 at place 1, not a rank from 0'),
        ({"ranks": {"t2v": []}}, '"ranks" of "t2v" must be a list that is not empty'),
        ({"ranks": {"t2v": [0, 1]}}, '"queries" of "t2v" has no list for 2 results'),
        ({"correct": [True, 1], "items": ["a", "b"]}, '"correct" has 1 at place 1, not true or false'),
        ({"correct": [True, False], "items": ["a"]}, '"items" has 1 entries for 2 results'),
        ({"scores": {"CIDEr": [1.0, "x"]}, "items": ["a", "b"]}, "\"CIDEr\" has 'x' at place 1, not a score from 0"),
        ({"scores": {"CIDEr": [1.0]}, "items": ["a", "b"]}, '"items" has 2 entries for 1 results'),
    ],
)
def test_bad_files_are_error_lines(
    results: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path / "good.json", retrieval([0, 1], [0]))
    error = error_of(good, write(tmp_path / "bad.json", results), capsys)
    assert "bad.json" in error and message in error


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"CIDEr": [1.0, 2.0], "METEOR": [0.5]}, 'the lists of "scores" have different lengths'),
        ({"CIDEr": [1.0, 1e300]}, "has 1e+300 at place 1, not a score from 0"),
        ({"METEOR": [1.0, 2.0]}, "has CIDEr, but"),
    ],
)
def test_scores_that_do_not_fit_each_other_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: dict[str, list[float]], message: str
):
    a = write(tmp_path / "a.json", {"scores": {"CIDEr": [1.0, 2.0]}, "items": ["a", "b"]})
    b = write(tmp_path / "b.json", {"scores": scores, "items": ["a", "b"]})
    assert message in error_of(a, b, capsys)
