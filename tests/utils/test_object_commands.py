"""The commands that make a label map and an object store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataloaders.label_map import load_label_map
from dataloaders.object_store import ObjectStore
from utils import build_label_map, build_object_store

ROOT = Path(__file__).resolve().parents[2]


def write_objects(folder: Path) -> None:
    (folder / "tsv_files").mkdir(parents=True)
    dog = {"class": "dog", "rect": [0, 0, 40, 40], "conf": 0.9, "attributes": ["brown"], "attr_scores": [0.5]}
    man = {"class": "man", "rect": [50, 0, 90, 140], "conf": 0.8}
    (folder / "a.json").write_text(json.dumps([{"objects": [man]}]))
    (folder / "tsv_files" / "b.json").write_text(json.dumps([{"objects": [dog, man]}]))
    (folder / "bad.json").write_text("[")


def test_label_map_from_object_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_objects(tmp_path / "objects")
    output = tmp_path / "label_map.json"
    assert build_label_map.main(["--objects", str(tmp_path / "objects"), "--output", str(output)]) == 0
    label_map = load_label_map(output)
    assert label_map["label_to_idx"] == {"dog": 1, "man": 2}
    assert label_map["idx_to_label"] == {"1": "dog", "2": "man"}
    assert label_map["attribute_to_idx"] == {"brown": 1}
    assert label_map["object_count"] == {"dog": 1, "man": 2}
    assert "bad.json" in capsys.readouterr().out


def test_label_map_from_vinvls_dictionary(tmp_path: Path) -> None:
    source = {"label_to_idx": {"man": 1}, "idx_to_label": {"1": "man"}, "predicate_to_idx": {"on": 1}, "something": 3}
    (tmp_path / "vinvl.json").write_text(json.dumps(source))
    output = tmp_path / "label_map.json"
    assert build_label_map.main(["--vinvl", str(tmp_path / "vinvl.json"), "--output", str(output)]) == 0
    del source["something"]
    assert load_label_map(output) == source


def test_errors_of_the_label_map_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "out.json")]
    assert build_label_map.main(["--objects", str(tmp_path), *output]) == 1
    assert "no object with a class" in capsys.readouterr().err
    (tmp_path / "vinvl.json").write_text("{}")
    assert build_label_map.main(["--vinvl", str(tmp_path / "vinvl.json"), *output]) == 1
    assert "label_to_idx" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


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
