"""The command that scores both rules of --trajectory on demo clips."""

from __future__ import annotations

import pytest

from utils.score_tracking import main


def test_command_prints_a_line_per_kind_and_number_of_frames(capsys: pytest.CaptureFixture[str]):
    assert main(["--clips", "2", "--frames", "3", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and lines[2].startswith("ordinary") and lines[-1].startswith("crossing, one colour")
    with pytest.raises(SystemExit):
        main(["--clips", "0"])
