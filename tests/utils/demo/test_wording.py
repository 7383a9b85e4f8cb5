"""Captions, questions and options say what is true of a scene, and nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dataloaders.tagging import NOUN, VERB, make_tagger
from modules.tokenizer import split_words
from tests.utils.demo.small_world import scenes_of, values_in
from utils.demo.wording import captions, options, questions, single_captions
from utils.demo.world import COLORS, MOTIONS, SHAPES, Scene, Thing, make_scene, plan_clips


def test_captions_name_everything_and_determine_the_scene():
    rng = np.random.default_rng(0)
    owner: dict[str, Scene] = {}
    for clip in plan_clips(1, 300, 30, 30):
        texts = captions(clip.scene, rng, 4)
        assert len(set(texts)) == len(texts) == 4
        for text in texts:
            assert owner.setdefault(text, clip.scene) == clip.scene
            words = text.replace(",", "").split()
            for names, field in ((COLORS, "color"), (SHAPES, "shape"), (MOTIONS, "motion")):
                expected = Counter(getattr(thing, field) for thing in clip.scene)
                assert Counter(word for word in words if word in names) == expected


@pytest.mark.parametrize("same_shape", [False, True])
def test_shapes_are_tagged_as_nouns_and_motions_as_verbs(same_shape: bool):
    tagger, rng = make_tagger("hanta"), np.random.default_rng(0)
    kinds = {word: {kind} for names, kind in ((COLORS, 0), (SHAPES, NOUN), (MOTIONS, VERB)) for word in names}
    found: dict[str, set[int]] = {}
    for clip in plan_clips(2, 100, 0, 0, same_shape=same_shape):
        for caption in captions(clip.scene, rng, 5):
            words = split_words(caption)
            for word, kind in zip(words, tagger.kinds(words), strict=True):
                found.setdefault(word, set()).add(kind)
    assert {word: found.pop(word) for word in kinds} == kinds
    assert all(kind == {0} for kind in found.values()), "articles and the like"


def test_questions_have_one_answer():
    scene = make_scene([Thing("red", "circle", "bouncing"), Thing("red", "star", "bouncing")])
    asked = {item.question: item.answer for item in questions(scene, np.random.default_rng(0), 100)}
    assert asked["how many shapes are there?"] == "two"
    assert asked["what color is the circle?"] == "red"
    assert asked["what is the red star doing?"] == "bouncing"
    assert "what is bouncing?" not in asked


def test_questions_about_things_of_one_shape_have_one_answer():
    scene = make_scene(
        [Thing("red", "star", "bouncing"), Thing("blue", "star", "bouncing"), Thing("pink", "star", "resting")]
    )
    asked = {item.question: item.answer for item in questions(scene, np.random.default_rng(0), 100)}
    assert asked == {
        "how many shapes are there?": "three",
        "what is the red star doing?": "bouncing",
        "what is the blue star doing?": "bouncing",
        "what is the pink star doing?": "resting",
        "what color is the star that is resting?": "pink",
        "what is resting?": "star",
        "what shape is resting?": "star",
    }


@pytest.mark.parametrize("same_shape", [False, True])
def test_options_hold_one_truth_and_one_that_differs_in_one_attribute(same_shape):
    scenes = scenes_of(plan_clips(0, 1, 0, 60, same_shape=same_shape), "test")
    for number, scene in enumerate(scenes):
        texts, answer = options(scene, scenes, np.random.default_rng(number))
        values = [values_in(text) for text in texts]
        assert len(set(texts)) == 5
        assert values[answer] == Counter(value for thing in scene for value in thing)
        assert any((values[answer] - bag).total() == 1 for k, bag in enumerate(values) if k != answer)


def test_single_captions_are_all_captions_of_every_thing_alone():
    found: dict[Thing, set[str]] = {}
    for thing, text in single_captions():
        assert text not in found.setdefault(thing, set())
        found[thing].add(text)
    assert len(found) == len(COLORS) * len(SHAPES) * len(MOTIONS)
    thing = Thing("orange", "star", "growing")
    assert found[thing] == set(captions((thing,), np.random.default_rng(3), 8))
