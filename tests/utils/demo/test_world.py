"""Which scenes belong to which split of the demo world."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from tests.utils.demo.small_world import scenes_of
from utils.demo.world import (
    COLORS,
    MOTIONS,
    SHAPES,
    Thing,
    clip_generator,
    make_scene,
    neighbours,
    plan_clips,
    sample_scene,
)


@pytest.mark.parametrize("test, same_shape", [(100, False), (500, False), (500, True)])
def test_held_out_scenes_are_distinct_new_and_have_neighbours(test, same_shape):
    clips = plan_clips(0, 2000, 100, test, same_shape=same_shape)
    held_out = scenes_of(clips, "val") + scenes_of(clips, "test")
    assert len(set(held_out)) == len(held_out) == 100 + test
    assert not set(held_out) & set(scenes_of(clips, "train"))
    for split in ("val", "test"):
        scenes = set(scenes_of(clips, split))
        assert np.mean([any(other in scenes for other in neighbours(scene)) for scene in scenes]) >= 0.5
    for split in ("train", "val", "test"):
        numbers = Counter(len(scene) for scene in scenes_of(clips, split))
        assert set(numbers) == {1, 2, 3} and max(numbers.values()) - min(numbers.values()) <= 1


def test_things_differ_in_shape_or_else_in_colour():
    for same_shape, values in ((False, "color"), (True, "shape")):
        seen = set()
        for clip in plan_clips(2, 200, 20, 20, same_shape=same_shape):
            colors, shapes = ({getattr(thing, name) for thing in clip.scene} for name in ("color", "shape"))
            seen.add((len(clip.scene), len(colors if values == "color" else shapes)))
            assert len(colors if same_shape else shapes) == len(clip.scene)
        assert seen == (
            {(1, 1), (2, 1), (3, 1)} if same_shape else {(n, k) for n in (1, 2, 3) for k in range(1, n + 1)}
        )


def test_training_sees_every_pair_of_attribute_values_in_scenes_of_one_thing():
    single = [scene[0] for scene in scenes_of(plan_clips(0, 4000, 100, 500), "train") if len(scene) == 1]
    seen = {pair for thing in single for pair in combinations(thing, 2)}
    assert len(seen) == len(COLORS) * len(SHAPES) + len(COLORS) * len(MOTIONS) + len(SHAPES) * len(MOTIONS)


def test_reserve_makes_smaller_worlds_safe_for_larger_test_sets():
    small, large = plan_clips(0, 300, 20, 50, reserve=500), plan_clips(0, 300, 20, 500)
    assert scenes_of(small, "test") == scenes_of(large, "test")[:50]
    assert not set(scenes_of(small, "train")) & set(scenes_of(large, "test"))


def test_too_many_held_out_clips_is_an_error():
    with pytest.raises(ValueError, match="fewer validation and test clips"):
        plan_clips(0, 1, 100, 1500)


@pytest.mark.parametrize("same_shape", [False, True])
def test_neighbours_differ_in_one_attribute_of_one_thing_and_are_of_the_same_kind(same_shape: bool):
    scene = sample_scene(np.random.default_rng(1), 3, same_shape=same_shape)
    found = list(neighbours(scene))
    assert len(found) == len(set(found)) and scene not in found
    for other in found:
        (before,), (after,) = set(scene) - set(other), set(other) - set(scene)
        assert sum(one != two for one, two in zip(before, after, strict=True)) == 1
        distinct = "color" if same_shape else "shape"
        assert len({getattr(thing, distinct) for thing in other}) == 3
    changed = {
        name
        for other in found
        for name in Thing._fields
        if getattr((set(scene) - set(other)).pop(), name) != getattr((set(other) - set(scene)).pop(), name)
    }
    assert changed == ({"color", "motion"} if same_shape else {"color", "shape", "motion"})


def test_random_numbers_of_a_clip_are_its_own():
    draws = {
        place: clip_generator(*place).integers(1 << 60)
        for place in ((0, "train", 1, 0), (1, "train", 1, 0), (0, "val", 1, 0), (0, "train", 2, 0), (0, "train", 1, 1))
    }
    assert len(set(draws.values())) == 5
    assert clip_generator(0, "train", 1, 0).integers(1 << 60) == draws[0, "train", 1, 0]


def test_a_scene_is_the_same_in_whatever_order_its_things_are_named():
    things = [Thing("red", "star", "resting"), Thing("blue", "ring", "drifting")]
    assert make_scene(things) == make_scene(reversed(things)) and len(make_scene(things)) == 2
