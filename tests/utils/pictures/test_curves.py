"""Curves of runs: which lines are drawn, in which panel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.pictures.curves import draw_runs, read_run, run_names


def train(step: int, rates: tuple[float, float] = (0.1, 0.1), **losses: float | None) -> dict[str, Any]:
    lr = dict(zip(("clip", "head"), rates, strict=True))
    rest = {"grad_norm": 2.0, "clips_per_second": 5.0, "data_wait": 0.1, "skipped": 0, "vtm_accuracy": 0.5}
    return {"kind": "train", "step": step, "epoch": 0, **losses, "lr": lr, **rest}


def write(folder: Path, *lines: dict[str, Any], end: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder


def panels(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title(): axis for axis in figure.axes}


def drawn(axis: Axes) -> list[tuple[list[float], list[float]]]:
    """Steps and values of each line of a panel."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()]


def test_a_panel_for_each_loss_rates_gradient_norm_and_scores(tmp_path: Path):
    run = write(
        tmp_path / "run",
        train(20, vtm=0.7, plm=9.0, loss=9.7),
        {"kind": "evaluation", "step": 20, "t2v_R1": 10.0, "t2v_MeanR": 7.0},
        train(40, vtm=0.5, plm=4.0, loss=4.5),
        {"kind": "evaluation", "step": 40, "t2v_R1": 30.0, "t2v_MeanR": 3.0},
    )
    found = panels(draw_runs({"run": read_run(run)}))
    assert list(found) == ["loss, total", "plm", "vtm", "learning rate", "gradient norm", "text to video R@1, %"]
    assert drawn(found["vtm"]) == [([20, 40], [0.7, 0.5])]
    assert drawn(found["text to video R@1, %"]) == [([20, 40], [10.0, 30.0])]


def test_of_a_step_written_twice_the_later_line_counts_and_a_cut_line_does_not(tmp_path: Path):
    lines = [train(step, vtm=value) for step, value in ((20, 3.0), (40, 2.0), (60, 9.0), (40, 1.5), (60, 1.0))]
    run = read_run(write(tmp_path / "run", *lines, end='{"kind": "train", "step": 80'))
    assert drawn(panels(draw_runs({"run": run}))["vtm"]) == [([20, 40, 60], [3.0, 1.5, 1.0])]


def test_groups_of_equal_rates_share_a_line(tmp_path: Path):
    same = read_run(write(tmp_path / "same", train(1, vtm=1.0), train(2, vtm=1.0)))
    other = read_run(write(tmp_path / "other", train(1, (0.1, 0.2), vtm=1.0), train(2, (0.2, 0.4), vtm=1.0)))
    assert drawn(panels(draw_runs({"same": same}))["learning rate"]) == [([1, 2], [0.1, 0.1])]
    axis = panels(draw_runs({"other": other}))["learning rate"]
    assert drawn(axis) == [([1, 2], [0.1, 0.2]), ([1, 2], [0.2, 0.4])]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["clip", "head"]


def test_runs_share_panels_and_the_legend_names_them(tmp_path: Path):
    one = read_run(write(tmp_path / "a", train(1, vtm=1.0, mlm=3.0)))
    two = read_run(write(tmp_path / "b", train(1, vtm=2.0), {"kind": "evaluation", "step": 1, "accuracy": 50.0}))
    figure = draw_runs({"a": one, "b": two})
    found = panels(figure)
    assert [line.get_color() for line in found["vtm"].get_lines()] == ["#0072B2", "#D55E00"]
    assert len(drawn(found["mlm"])) == 1 and len(drawn(found["right answers, %"])) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert not draw_runs({"a": one}).legends


def test_a_total_that_repeats_a_single_loss_and_a_value_that_is_not_finite(tmp_path: Path):
    run = read_run(write(tmp_path / "a", train(1, answer=1.0, loss=1.0), train(2, answer=None, loss=None)))
    found = panels(draw_runs({"a": run}))
    assert "loss, total" not in found
    np.testing.assert_array_equal(drawn(found["answer"])[0][1], [1.0, np.nan])


def test_losses_of_an_evaluation_are_points_in_the_panel_of_the_loss(tmp_path: Path):
    run = read_run(write(tmp_path / "a", train(1, vtm=1.0), {"kind": "evaluation", "step": 1, "vtm": 1.5}))
    line, points = panels(draw_runs({"a": run}))["vtm"].get_lines()
    assert list(points.get_ydata()) == [1.5] and points.get_linestyle() == "None" and line.get_linestyle() == "-"


def test_names_are_as_short_as_they_can_be():
    assert run_names(["x/retrieval", "x/captioning"]) == ["retrieval", "captioning"]
    assert run_names(["x/retrieval", "y/retrieval"]) == ["x/retrieval", "y/retrieval"]
    with pytest.raises(ValueError, match="given twice"):
        run_names(["x/retrieval", "x/../x/retrieval"])
