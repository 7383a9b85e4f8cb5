"""The command that makes a label map."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataloaders.label_map import load_label_map
from utils import build_label_map


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
