"""Label maps from object files and from VinVL's dictionary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataloaders.label_map import check_label_map
from utils.preparation.label_maps import label_map_from_names, label_map_from_objects, label_map_from_vinvl, names_of


def write(path: Path, *frames: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(frames)))


def test_all_classes_and_attributes_of_a_folder_in_alphabetical_order(tmp_path: Path):
    dog = {"class": "dog", "attributes": ["brown", "small"]}
    write(tmp_path / "b.json", {"objects": [dog, {"class": "cat", "attributes": None}]}, {"objects": [dog]})
    write(tmp_path / "tsv_files" / "a.json", {"objects": [{"class": "ape", "attributes": ["brown"]}]})
    write(tmp_path / "deeper" / "c.json", {"objects": [{"class": "elk"}]})
    (tmp_path / "notes.txt").write_text("no objects")
    label_map, unreadable = label_map_from_objects(tmp_path)
    check_label_map(label_map, "made")
    assert unreadable == []
    assert label_map == {
        "label_to_idx": {"ape": 1, "cat": 2, "dog": 3},
        "idx_to_label": {"1": "ape", "2": "cat", "3": "dog"},
        "attribute_to_idx": {"brown": 1, "small": 2},
        "idx_to_attribute": {"1": "brown", "2": "small"},
        "object_count": {"ape": 1, "cat": 1, "dog": 2},
        "attribute_count": {"brown": 3, "small": 2},
    }


def test_what_is_no_object_is_passed_over_and_unreadable_files_are_named(tmp_path: Path):
    odd = [None, 7, {"objects": None}, {"boxes": []}, {"objects": ["dog", {"class": 3}, {"rect": []}]}]
    odd += [
        {"objects": 5},
        {"objects": [{"class": " ", "attributes": 7}, {"attributes": [None, 3, ""]}, {"class": "None"}]},
    ]
    write(tmp_path / "odd.json", *odd, {"objects": [{"class": "cat"}]})
    (tmp_path / "map.json").write_text("{}")
    (tmp_path / "cut.json").write_text('[{"objects": [')
    label_map, unreadable = label_map_from_objects(tmp_path)
    assert label_map["label_to_idx"] == {"cat": 1} and label_map["attribute_to_idx"] == {}
    assert len(unreadable) == 1 and unreadable[0].startswith(f"{tmp_path / 'cut.json'} is not JSON: ")


def test_a_folder_without_a_class_is_an_error(tmp_path: Path):
    write(tmp_path / "a.json", {"objects": []})
    with pytest.raises(ValueError, match="no object with a class in "):
        label_map_from_objects(tmp_path)


def test_vinvls_dictionary_is_reduced_to_what_it_defines(tmp_path: Path):
    source = {"label_to_idx": {"man": 1}, "predicate_count": {"on": 2}}
    (tmp_path / "vinvl.json").write_text(json.dumps({**source, "something": 3}))
    assert label_map_from_vinvl(tmp_path / "vinvl.json") == source


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("{}", "has no 'label_to_idx'"), ('{"label_to_idx": {"man": 0}}', "indices start at 1")],
)
def test_a_file_that_is_no_dictionary_of_vinvl_is_an_error(tmp_path: Path, content: str, message: str):
    (tmp_path / "vinvl.json").write_text(content)
    with pytest.raises(ValueError, match=rf"vinvl\.json.*{message}"):
        label_map_from_vinvl(tmp_path / "vinvl.json")


def test_names_and_their_counts_make_a_label_map_in_alphabetical_order():
    made = label_map_from_names({"man": 5, "ape": 1})
    check_label_map(made, "made")
    expected = {"label_to_idx": {"ape": 1, "man": 2}, "idx_to_label": {"1": "ape", "2": "man"}}
    assert made == {**expected, "object_count": {"ape": 1, "man": 5}}


def test_names_are_of_a_map_a_text_file_or_torchvisions_model(tmp_path: Path):
    (tmp_path / "names.txt").write_text("dog\n\n street sign\n")
    (tmp_path / "map.json").write_text(json.dumps({"label_to_idx": {"man": 2, "dog": 1}}))
    assert names_of(str(tmp_path / "names.txt")) == ["dog", "street sign"]
    assert names_of(str(tmp_path / "map.json")) == ["man", "dog"]
    coco = names_of("fasterrcnn_resnet50_fpn_v2")
    assert len(coco) == 80 and coco[0] == "person" and "N/A" not in coco
    (tmp_path / "names.txt").write_text("dog\nNone\n")
    with pytest.raises(ValueError, match=r"names\.txt, line 2: 'None' is no class name"):
        names_of(str(tmp_path / "names.txt"))
    with pytest.raises(FileNotFoundError, match="no_such_model"):
        names_of("no_such_model")
