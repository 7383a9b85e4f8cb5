"""The command that draws the curves of runs."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from tests.utils.pictures.test_curves import train, write
from utils import plot_run


def test_the_command_writes_a_picture_of_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    runs = [str(write(tmp_path / name, train(1, vtm=1.0), train(2, vtm=0.5))) for name in ("a", "b")]
    assert plot_run.main([*runs, "--output", str(tmp_path / "both.png")]) == 0
    picture = cv2.imread(str(tmp_path / "both.png"))
    assert picture.shape[1] == 3 * 540 and picture.std() > 5
    assert "2 runs, last step 2, 2" in capsys.readouterr().out
    assert plot_run.main(runs[:1]) == 0 and (tmp_path / "a" / "curves.png").is_file()


def test_what_cannot_be_drawn_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "none").mkdir()
    bad = write(tmp_path / "bad", end="{no json\n")
    empty = write(tmp_path / "empty")
    fine = write(tmp_path / "fine", train(1, vtm=1.0))
    for folder, more, message in (
        (tmp_path / "none", [], "none/metrics.jsonl does not exist: give the --output_dir of a run"),
        (bad, [], "bad/metrics.jsonl is damaged"),
        (empty, [], "empty/metrics.jsonl has no line of training or evaluation yet"),
        (fine, ["--output", str(tmp_path / "x.pdf")], "must end in .png"),
    ):
        assert plot_run.main([str(folder), *more]) == 1
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("**/*.p[dn][fg]"))
