"""Flags of the conversion: which go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.preparation.conversion_flags import arguments
from utils.preparation.shard_parts import WHOLE, Part


@pytest.fixture
def from_csv(tmp_path: Path) -> list[str]:
    """Flags that are right."""
    (tmp_path / "a.csv").write_text("video,caption\n")
    return ["--csv", str(tmp_path / "a.csv"), "--video_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--colour", "unrecognized"),
        ("--workers 0", "above 0"),
        ("--csv /nowhere", "no such file"),
        ("--video_dir /nowhere", "no such folder"),
        ("--feature_framerate 0", "above 0"),
        ("--feature_framerate inf", "above 0"),
        ("--tar a.tar", "one of --csv and --tar"),
        ("--part 3/3", "of three parts they are 0/3, 1/3 and 2/3"),
        ("--part -1/3", "expected one argument"),
        ("--part 1", "is no part"),
        ("--merge --size 128", "--merge takes --output_dir alone, not --csv, --video_dir, --size"),
    ],
)
def test_wrong_flags_are_errors(from_csv: list[str], flags: str, message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        arguments([*from_csv, *flags.split()])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "one of --csv and --tar"),
        ("--csv a.csv", "--csv needs --video_dir"),
        ("--tar a.tar --video_dir b", "--tar has none"),
        ("--merge --part 0/2", "--merge takes --output_dir alone, not --part"),
    ],
)
def test_a_source_is_whole(flags: str, message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        arguments([*flags.split(), "--output_dir", "out"])
    assert message in capsys.readouterr().err


def test_flags_of_each_use(from_csv: list[str]):
    assert arguments(from_csv).part == WHOLE
    assert arguments([*from_csv, "--part", "2/3"]).part == Part(2, 3)
    assert arguments(["--merge", "--output_dir", "out"]).merge
    assert arguments(["--tar", "a", "b", "--tar", "c", "--output_dir", "out"]).tar == ["a", "b", "c"]
