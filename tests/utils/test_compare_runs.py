"""Differences between two runs and their bootstrap intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from utils.compare_runs import main
from utils.evaluation import bootstrap
from utils.evaluation.bootstrap import paired_bootstrap


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


def test_equal_runs_differ_by_exactly_nothing():
    values = np.random.default_rng(0).random(50)
    assert paired_bootstrap(values, values, samples=500) == (0, 0, 0, 0)


@pytest.mark.parametrize("distinct", [True, False])
def test_interval_is_the_normal_one_for_many_queries(distinct: bool):
    """Both ways of drawing: query by query, and the number of draws of each of few distinct values."""
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=2000), rng.normal(size=2000)) if distinct else rng.integers(0, 2, (2, 2000))
    found = paired_bootstrap(a, b, samples=4000, seed=3)
    error = (a - b).std() / np.sqrt(2000)
    assert found.difference == pytest.approx((a - b).mean())
    assert found.low == pytest.approx((a - b).mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx((a - b).mean() + 1.96 * error, abs=0.1 * error)


def test_interval_covers_the_true_difference_in_about_95_of_100_experiments():
    rng = np.random.default_rng(2)
    covered = 0
    for experiment in range(300):
        hard = rng.random(120) < 0.5  # for both runs
        a, b = (~hard & (rng.random(120) < chance) for chance in (0.9, 0.7))  # true difference 0.1
        found = paired_bootstrap(a, b, samples=400, seed=experiment)
        covered += found.low <= 0.1 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_pairing_takes_out_what_is_hard_for_both():
    level = 100 * np.random.default_rng(4).random(500)
    found = paired_bootstrap(level + 1, level, samples=200)
    assert found[:3] == pytest.approx((1, 1, 1)) and found.above_zero == 1


def test_result_depends_on_the_seed_and_not_on_the_chunks(monkeypatch: pytest.MonkeyPatch):
    a, b = np.random.default_rng(5).normal(size=(2, 300))
    whole = paired_bootstrap(a, b, 400, seed=1), paired_bootstrap(a > 0, b > 0, 400, seed=1)
    assert paired_bootstrap(a, b, 400, seed=2) != whole[0]
    monkeypatch.setattr(bootstrap, "DRAWS_PER_CHUNK", 1000)
    assert (paired_bootstrap(a, b, 400, seed=1), paired_bootstrap(a > 0, b > 0, 400, seed=1)) == whole


def test_values_that_cannot_be_compared_are_errors():
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        paired_bootstrap(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="1 of 3 differences are not finite"):
        paired_bootstrap(np.array([0, np.nan, 1]), np.zeros(3))
    with pytest.raises(ValueError, match="0 bootstrap samples"):
        paired_bootstrap(np.zeros(3), np.zeros(3), samples=0)


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


def test_table_says_what_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    a = write(tmp_path / "a.json", retrieval([0, 2, 3], [1, 1]))
    assert main([a, a, "--samples", "50", "--seed", "9"]) == 0
    out = capsys.readouterr().out
    assert "50 bootstrap samples, seed 9" in out and "lower is better" in out
    row = next(line for line in out.splitlines() if line.startswith("t2v_R1"))
    assert row.split() == ["t2v_R1", "3", "33.33", "33.33", "+0.00", "[", "+0.00,", "+0.00]", "0.0", "%"]


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


def test_missing_and_broken_files_are_error_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = write(tmp_path / "good.json", items([True]))
    assert "none.json" in error_of(good, str(tmp_path / "none.json"), capsys)
    (tmp_path / "bad.json").write_text('{"correct": [tr')
    assert "bad.json is not JSON" in error_of(good, str(tmp_path / "bad.json"), capsys)
