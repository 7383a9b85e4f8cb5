"""The command that builds an object store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dataloaders.object_store import ObjectStore
from tests.utils.test_build_label_map import write_objects
from utils import build_object_store

ROOT = Path(__file__).resolve().parents[2]


def test_store_command_prints_what_was_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = tmp_path / "objects"
    write_objects(objects)
    (tmp_path / "label_map.json").write_text('{"label_to_idx": {"man": 1}}')
    (tmp_path / "ids.txt").write_text("a\nb\nbad\nabsent\n")
    (tmp_path / "sizes.json").write_text('{"a": [100, 100]}')
    command = ["--object_path", str(objects), "--labelmap_path", str(tmp_path / "label_map.json"), "--max_frames", "1"]
    command += [
        "--object_count",
        "3",
        "--ids",
        str(tmp_path / "ids.txt"),
        "--frame_sizes",
        str(tmp_path / "sizes.json"),
    ]
    assert build_object_store.main([*command, "--store_path", str(tmp_path / "store")]) == 0
    output = capsys.readouterr().out
    for text in (
        "3 clips",
        "1 clips without an object file: absent",
        "bad.json",
        "'dog'",
        "1 boxes cut",
        "problems.tsv",
    ):
        assert text in output
    record = ObjectStore(tmp_path / "store").get("b")
    assert record is not None
    assert record.classes.tolist() == [[1, 0, 0]]
    assert build_object_store.main([*command, "--trajectory", "track"]) == 0
    assert "_track_ids" in capsys.readouterr().out


def test_store_command_fails_without_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "label_map.json").write_text('{"label_to_idx": {"man": 1}}')
    command = ["--object_path", str(tmp_path / "none"), "--labelmap_path", str(tmp_path / "label_map.json")]
    assert build_object_store.main(command) == 1
    assert "--object_path" in capsys.readouterr().err


def test_commands_run_as_files_from_anywhere(tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    write_objects(objects)
    (objects / "bad.json").unlink()
    (tmp_path / "label_map.json").write_text('{"label_to_idx": {"man": 1, "dog": 2}}')
    command = [sys.executable, str(ROOT / "utils" / "build_object_store.py"), "--object_path", str(objects)]
    command += ["--labelmap_path", str(tmp_path / "label_map.json"), "--max_frames", "1", "--workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 clips" in done.stdout
