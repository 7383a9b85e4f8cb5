"""Nouns of captions: how they are counted and named, which are looked for, and which a label map can name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from dataloaders.tagging import NOUN, VERB, make_tagger
from utils.preparation.caption_nouns import (
    count_nouns,
    measure_coverage,
    most_frequent,
    noun_names,
    prompts_from_captions,
)

CAPTIONS = ["two dogs run", "a dog runs", "men cook", "a man and a woman cook", "a man runs", "a dog in a box"]


class Listed:
    """A tagger by a list of nouns; all else is a verb."""

    name = "hanta"

    def __init__(self, *nouns: str) -> None:
        self.nouns = nouns

    def kinds(self, words: Sequence[str]) -> list[int]:
        return [NOUN if word in self.nouns else VERB for word in words]


NOUNS = Listed("dog", "dogs", "man", "men", "woman", "box")


def test_nouns_are_counted_in_every_caption():
    counts = count_nouns([*CAPTIONS, CAPTIONS[1]], NOUNS)
    assert counts == {"dog": 3, "dogs": 1, "men": 1, "man": 2, "woman": 1, "box": 1}


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"), ("men", "man"), ("policemen", "policeman"), ("children", "child"), ("people", "person"),
        ("peoples", "person"), ("babies", "baby"), ("cookies", "cookie"), ("knives", "knife"), ("leaves", "leaf"),
        ("boxes", "box"), ("dresses", "dress"), ("horses", "horse"), ("buses", "bus"), ("potatoes", "potato"),
        ("brushes", "brush"), ("shoes", "shoe"), ("waves", "wave"), ("axes", "axe"),
    ],
)  # fmt: skip
def test_a_plural_is_named_as_its_singular_where_that_is_a_noun_too(plural: str, singular: str):
    counts = Counter({plural: 3, singular: 2, "people" if plural == "peoples" else "tree": 1})
    assert noun_names(counts)[singular] >= 5 and plural not in noun_names(counts)
    assert noun_names(Counter({plural: 3})) == {plural: 3}, "no singular is made up"


def test_what_is_no_plural_stays():
    counts = Counter(["bus", "bu", "glass", "glasses", "gla", "pants", "pant", "tennis", "tenni", "as", "a"])
    assert set(noun_names(counts)) == set(counts) - {"a"}


def test_of_two_singulars_the_more_frequent_one_is_meant():
    assert noun_names(Counter(knives=1, knif=1, knife=5)) == {"knife": 6, "knif": 1}


def test_signs_single_letters_and_what_stands_for_nothing_are_no_names():
    assert noun_names(Counter({"'s": 9, "s": 9, "!!": 9, "3": 9, "nan": 9, "none": 2, "tv": 1})) == {"tv": 1}


def test_the_most_frequent_come_first_and_ties_by_the_alphabet():
    names = Counter({"woman": 1, "dog": 4, "box": 1, "man": 3, "ant": 1})
    assert most_frequent(names, 4) == ["dog", "man", "ant", "box"] and len(most_frequent(names, 99)) == 5
    with pytest.raises(ValueError, match="--most 0: must be at least 1"):
        most_frequent(names, 0)
    with pytest.raises(ValueError, match="the captions have no nouns"):
        most_frequent(Counter(), 5)


def test_prompts_are_the_most_frequent_nouns_of_a_file(tmp_path: Path):
    (tmp_path / "c.txt").write_text("\n".join(CAPTIONS))
    assert prompts_from_captions(tmp_path / "c.txt", 3, NOUNS) == ["dog", "man", "box"]
    (tmp_path / "c.csv").write_text("video,caption\nv,a dog\nw,a man\nw,a man\n")
    assert prompts_from_captions(tmp_path / "c.csv", 9, NOUNS, ["v"]) == ["dog"]


def test_the_projects_tagger_finds_them(tmp_path: Path):
    (tmp_path / "c.txt").write_text("two dogs are running in the park\na dog is eating\nthe woman holds a guitar\n")
    assert prompts_from_captions(tmp_path / "c.txt", 9, make_tagger("hanta")) == ["dog", "guitar", "park", "woman"]


def test_coverage_is_by_the_names_that_extraction_finds():
    counts = Counter({"dog": 5, "dogs": 2, "men": 3, "box": 1, "women": 1, "woman": 1})
    found = measure_coverage(counts, ["Dog", "man"])
    assert (found.tokens, found.named, found.with_plurals) == (13, 7, 10)
    assert found.missing == {"woman": 2, "box": 1}
    assert measure_coverage(counts, ["tree"]).named == 0
    assert measure_coverage(counts, ["man"]).named == 0, "men is no man but for a plural s"
