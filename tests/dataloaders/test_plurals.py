"""Singulars of plurals, and which words of captions name a class."""

from __future__ import annotations

import pytest

from dataloaders.plurals import is_named, singulars


def test_what_is_no_plural_has_no_singular():
    assert not any(list(singulars(word)) for word in ("bus", "glass", "tennis", "glasses", "dog", "s"))
    assert list(singulars("cookies")) == ["cooky", "cookie"] and list(singulars("men")) == ["man"]


@pytest.mark.parametrize(
    ("word", "class_name", "expected"),
    [
        ("dog", "dog", True), ("dogs", "dog", True), ("dog", "dogs", True), ("men", "man", True), ("man", "men", True),
        ("people", "person", True), ("dog", "Dog", True), ("cat", "dog", False), ("doge", "dog", False),
        ("light", "traffic light", True), ("lights", "traffic light", True), ("traffic", "traffic light", False),
        ("light", "traffic_light", True), ("shirt", "t-shirt", True), ("sailboat", "sail boat", True),
        ("caves", "cafes", False), ("glasses", "glass", False), ("glass", "glasses", False), ("word", "", False),
    ],
)  # fmt: skip
def test_a_class_is_named_by_its_name_its_head_and_their_plurals(word: str, class_name: str, expected: bool):
    assert is_named(word, class_name) is expected
