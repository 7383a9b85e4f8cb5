"""The table of an ablation, from rows with known means, spread and differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.ablation import keep
from utils.evaluation.ablation import Ablation, TaskTable, as_latex, as_markdown, tabulate
from utils.evaluation.ablation_rows import KINDS, read_rows

HALF = [True] * 50 + [False] * 50
MORE = [True] * 60 + [False] * 40
MOST = [True] * 80 + [False] * 20


def cells(ablation: Ablation) -> dict[str, list[str]]:
    [table] = ablation.tables
    return {line[0]: line[1:] for line in table.frame.values.tolist()}


def bounds(cell: str) -> tuple[float, float]:
    low, high = cell.split("[")[1].split("]")[0].split(", ")
    return float(low), float(high)


def test_means_spread_and_changes_are_known(tmp_path: Path):
    for seed, base, with_objects in ((0, HALF, MORE), (1, HALF, MOST)):
        keep(tmp_path, "base", seed, base)
        keep(tmp_path, "trajectories", seed, with_objects)
    ablation = tabulate(read_rows(tmp_path / "rows"), 4000)
    assert ablation.tables[0].title == "Question answering, 100 items" and "seeds 0, 1" in ablation.note
    found = cells(ablation)
    assert found["base"] == ["50.0 \u00b1 0.0", "\u2013"]
    mean, change = found["+ trajectories"]
    assert mean == "70.0 \u00b1 14.1"  # of 60 and 80
    assert change.startswith("+20.0 [")
    low, high = bounds(change)
    # 10 items are won with both seeds, 20 with one of them: the difference has deviation 33.2, its mean 3.32.
    assert low == pytest.approx(13.5, abs=1) and high == pytest.approx(26.5, abs=1)


def test_what_is_missing_is_said_and_no_number(tmp_path: Path):
    for row, seed in (("base", 0), ("base", 1), ("trajectories", 0), ("actions", 0), ("all", 1)):
        keep(tmp_path, row, seed, HALF)
    found = cells(tabulate(read_rows(tmp_path / "rows"), 100))
    assert list(found) == [
        *(kind.title for kind in list(KINDS.values())[:-1]),
        "all, with --trajectory of the other rule",
    ]
    assert found["+ trajectories"] == ["50.0 (1 of 2 seeds)", "+0.0 [+0.0, +0.0] (1 of 2 seeds)"]
    assert found["+ object-noun loss"] == ["missing", "missing"]
    assert found["+ actions"] == ["50.0 (1 of 2 seeds)", "missing"]  # there is no row before
    assert found["+ action-verb loss (all)"] == ["50.0 (1 of 2 seeds)", "missing"]  # no seed in common


def test_the_last_two_rows_are_compared_with_all(tmp_path: Path):
    for row, correct in (("all", MORE), ("no_frame_dropout", HALF), ("other_trajectory", MOST)):
        keep(tmp_path, row, 0, correct)
    found = cells(tabulate(read_rows(tmp_path / "rows"), 100))
    assert found["all, without frame dropout"][1].startswith("-10.0 [")
    assert found["all, with --trajectory track"][0] == "80.0"
    assert found["all, with --trajectory track"][1].startswith("+20.0 [")


def test_markdown_has_a_line_for_each_row(tmp_path: Path):
    keep(tmp_path, "base", 0, HALF)
    lines = as_markdown(tabulate(read_rows(tmp_path / "rows"), 100)).splitlines()
    assert lines[2:5] == [
        "| row | right answers, % | change of right answers |",
        "| --- | ---: | ---: |",
        "| base | 50.0 | \u2013 |",
    ]
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(KINDS) and "One run of each" in lines[-1]


def test_latex_is_escaped(tmp_path: Path):
    keep(tmp_path, "base", 0, MORE)
    keep(tmp_path, "trajectories", 0, HALF)
    ablation = tabulate(read_rows(tmp_path / "rows"), 100)
    text = as_latex(ablation)
    assert r"row & right answers, \% & change of right answers \\" in text and r"base & 60.0 & -- \\" in text
    assert (
        r"+ trajectories & 50.0 & $-$10.0 [$-$" in text and r"with -{}-trajectory" in text and r"95 \% interval" in text
    )
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 1
    frame = ablation.tables[0].frame.rename(columns={"row": "a_b & c#d {e} $f ~ ^ \\ 1 \u00b1 2"})
    text = as_latex(ablation._replace(tables=[TaskTable("t_t", frame)]))
    named = r"a\_b \& c\#d \{e\} \$f \textasciitilde{} \textasciicircum{} \textbackslash{} 1 $\pm$ 2 &"
    assert named in text and r"\caption{t\_t. " in text
