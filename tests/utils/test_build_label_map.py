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


CAPTIONS = "video,caption\nv1,a dog and a cat\nv1,two dogs\nv2,the man has a dog\nv2,a man\n"


def test_label_map_from_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "captions.csv").write_text(CAPTIONS)
    (tmp_path / "train.txt").write_text("v1\n")
    argv = ["--captions", str(tmp_path / "captions.csv"), "--output", str(tmp_path / "map.json")]
    assert build_label_map.main([*argv, "--most", "2"]) == 0
    label_map = load_label_map(tmp_path / "map.json")
    assert label_map["label_to_idx"] == {"dog": 1, "man": 2} and label_map["object_count"] == {"dog": 3, "man": 2}
    assert build_label_map.main([*argv, "--videos", str(tmp_path / "train.txt")]) == 0
    assert list(load_label_map(tmp_path / "map.json")["label_to_idx"]) == ["cat", "dog"]
    assert "2 classes, 0 attributes" in capsys.readouterr().out


def test_coverage_says_what_maps_can_name_and_what_they_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions.csv").write_text(CAPTIONS)
    (tmp_path / "names.txt").write_text("man\n")
    (tmp_path / "test.txt").write_text("v2\n")
    argv = ["--coverage", str(tmp_path / "captions.csv"), "--map", str(tmp_path / "names.txt")]
    assert build_label_map.main([*argv, "ssdlite320_mobilenet_v3_large"]) == 0
    first, second, third, fourth, fifth = capsys.readouterr().out.splitlines()
    assert first.endswith("captions.csv: 6 noun tokens, 4 different ones")
    assert second.endswith("names.txt: 1 names for 33.3 % (33.3 % with plurals such as men)")
    assert third == "  without a name: dog 3, cat 1"
    assert fourth.startswith("ssdlite320_mobilenet_v3_large: 80 names for 66.7 %") and fifth.endswith(": man 2")
    own = ["--captions", str(tmp_path / "captions.csv"), "--output", str(tmp_path / "map.json"), "--most", "1"]
    assert build_label_map.main([*argv, *own, "--show", "1", "--coverage_videos", str(tmp_path / "test.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("captions.csv: 3 noun tokens, 2 different ones")
    assert "names.txt: 1 names for 66.7 %" in lines[2] and "map.json: 1 names for 33.3 %" in lines[4]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "one of --objects, --vinvl and --captions is required, or --coverage with --map"),
        (["--coverage", "c.txt"], "or --coverage with --map"),
        (["--captions", "c.txt"], "--output goes with one of"),
        (["--output", "map.json", "--coverage", "c.txt", "--map", "m"], "--output goes with one of"),
    ],
)
def test_flags_that_say_too_little(capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    with pytest.raises(SystemExit):
        build_label_map.main(flags)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["none.txt", "none.json", "no_such_model"])
def test_a_map_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "c.txt").write_text("a dog")
    assert build_label_map.main(["--coverage", str(tmp_path / "c.txt"), "--map", str(tmp_path / name)]) == 1
    assert name in capsys.readouterr().err
