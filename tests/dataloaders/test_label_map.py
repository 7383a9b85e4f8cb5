"""Reading and checking label maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataloaders.label_map import class_names, label_map_hash, load_label_map


def _write(folder: Path, content: Any) -> Path:
    path = folder / "label_map.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ([], "no 'label_to_idx'"),
        ({"label_to_idx": {}}, "no 'label_to_idx'"),
        ({"label_to_idx": {"man": 0}}, "start at 1"),
        ({"label_to_idx": {"man": "1"}}, "start at 1"),
        ({"label_to_idx": {"man": 1, "dog": 1}}, "share an index"),
    ],
)
def test_bad_label_maps_are_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_label_map(_write(tmp_path, content))
    assert "label_map.json" in str(error.value)


def test_missing_label_map_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="build_label_map"):
        load_label_map(tmp_path / "none.json")


def test_names_and_hash_follow_the_indices(tmp_path: Path) -> None:
    first = load_label_map(_write(tmp_path, {"label_to_idx": {"man": 1, "dog": 3}}))
    assert class_names(first) == ["", "man", "", "dog"]
    assert label_map_hash(first) == label_map_hash({"label_to_idx": {"dog": 3, "man": 1}, "more": 1})
    assert label_map_hash(first) != label_map_hash({"label_to_idx": {"dog": 1, "man": 3}})


def test_vinvls_label_map(shared: Path) -> None:
    label_map = load_label_map(shared / "realdata" / "vinvl" / "label_map.json")
    names = class_names(label_map)
    assert len(names) == 1595
    assert names[0] == ""
    assert all(names[1:])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"dog": 1, "cat": 2**32 + 3}, "index of 'cat' is 4294967299"),
        ({"dog": 1, "cat": -3}, "index of 'cat' is -3"),
        ({"dog": 1, "cat": True}, "index of 'cat' is True"),
        ({"dog": 1, "cat": 2.0}, "index of 'cat' is 2.0"),
        ({"dog": 1, "cat": "2"}, "index of 'cat' is '2'"),
        ({"dog": 1, "cat": None}, "index of 'cat' is None"),
        ({"dog": 1, "cat": [2]}, r"index of 'cat' is \[2\]"),
        ({"dog": 1, "cat": 1}, "two classes share an index: 'dog' and 'cat' have 1"),
        ({"dog": 1, " ": 2}, "index 2 has an empty class name"),
        ({"dog": 1, "None": 2}, "index 2 has the class 'None', which stands for a missing name; delete it there"),
        ({"dog": 1, "nan": 2}, "index 2 has the class 'nan'"),
    ],
)
def test_indices_that_mean_something_else_are_refused_by_name(tmp_path: Path, labels: dict[str, Any], message: str):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"label_to_idx": labels}))
    with pytest.raises(ValueError, match=rf"map\.json: {message}"):
        load_label_map(path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path):
    (tmp_path / "map.json").write_text('{"label_to_idx": {"dog": 1, "cat": 2, "dog": 3}}')
    with pytest.raises(ValueError, match=r"map\.json is not JSON: a dictionary has 'dog' twice"):
        load_label_map(tmp_path / "map.json")
