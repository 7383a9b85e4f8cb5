"""Class names of detectors by those of a label map."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.preparation.class_names import class_mapper, read_class_map


def test_class_names_are_found_but_for_case_signs_and_plural():
    find = class_mapper(["dog", "street sign", "glasses"], {"Hund": "dog"})
    assert [find(name) for name in ("dog", "Dogs", "street_sign", "glass", "Hund", "cat", "Glasses")] == [
        "dog", "dog", "street sign", None, "dog", None, "glasses",
    ]  # fmt: skip


def test_a_name_as_it_is_comes_before_those_that_only_look_alike():
    find = class_mapper(["T-shirt", "t shirt", "dogs"], {"cat": "t shirt", "shirt": "trousers"})
    assert [find(name) for name in ("t shirt", "T-shirt", "t_shirt", "cat", "shirt", "dog")] == [
        "t shirt", "T-shirt", "T-shirt", "t shirt", None, "dogs",
    ]  # fmt: skip


NO_NAMES = ['{"dog": 3}', '{"dog": null}', '{"dog": ""}', '{"dog": "None"}', '{"dog": " nan"}', '{"dog": ["cat"]}']


@pytest.mark.parametrize("content", [*NO_NAMES, "[]", '"dog"'])
def test_a_class_map_is_of_names_by_names(tmp_path: Path, content: str):
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"map\.json is not a JSON dictionary of names by names"):
        read_class_map(path)
    path.write_text('\ufeff{"dog": "hound"}', encoding="utf-8")
    assert read_class_map(path) == {"dog": "hound"}
