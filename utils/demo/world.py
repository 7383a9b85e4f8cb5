"""The demo world: which things there are, which scenes belong to which split, what is true of a scene.

A scene is one to three things; a thing has a colour, a shape and a motion. Shapes differ within a scene, so a noun
names one thing; in a world of --same_shape they are the same and colours differ. A scene, that is its set of (colour,
shape, motion), never occurs in two splits, and a caption names the whole set, so captions never do either. The parts of
a held-out scene are all seen in training.

Made so that a small model trained from scratch can learn it in minutes: saturated colours, muted backgrounds, one word
per attribute value, things that fill the patches of the demo's CLIP (utils/demo/motion.py), and motions that can be
told from a few frames in any order: by where a thing is, how it is stretched, turned, lit or sized, and what it hangs
from, rolls on or stands on.

The words were chosen among those that the default part-of-speech tagger reads rightly in every template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np

# Raised whenever the same arguments no longer give the same files.
WORLD_VERSION = 2

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 28, 36),
    "orange": (250, 140, 10),
    "yellow": (248, 232, 48),
    "green": (28, 168, 60),
    "blue": (36, 78, 232),
    "purple": (158, 48, 200),
    "pink": (255, 140, 200),
    "cyan": (60, 215, 225),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
MOTIONS = ("drifting", "bouncing", "circling", "spinning", "blinking", "swinging", "growing", "resting")
MAX_THINGS = 3
SPLITS = ("train", "val", "test")
# Streams of random numbers: everything about a clip is a function of (seed, split, index, stream).
SCENE_STREAM, LOOK_STREAM, DETECTION_STREAM, WORDING_STREAM, POOL_STREAM = range(5)


class Thing(NamedTuple):
    """One object of a scene."""

    color: str
    shape: str
    motion: str


Scene = tuple[Thing, ...]  # sorted, so that equal sets are equal tuples


class SceneClip(NamedTuple):
    """One clip to be rendered: the `number`-th of its split."""

    split: str
    number: int
    scene: Scene


def clip_generator(seed: int, split: str, index: int, stream: int) -> np.random.Generator:
    """Random numbers of one clip; independent of every other clip and of the number of workers."""
    return np.random.default_rng([seed, SPLITS.index(split), index, stream])


def make_scene(things: Iterable[Thing]) -> Scene:
    """A scene from its things, in the canonical order."""
    return tuple(sorted(things))


def sample_scene(rng: np.random.Generator, count: int, *, same_shape: bool = False) -> Scene:
    """A random scene of `count` things with different shapes, or else with one shape and different colours."""
    colors = list(COLORS)
    if same_shape:
        shape = SHAPES[rng.integers(len(SHAPES))]
        return make_scene(
            Thing(colors[color], shape, MOTIONS[rng.integers(len(MOTIONS))])
            for color in rng.permutation(len(colors))[:count]
        )
    shapes = rng.permutation(len(SHAPES))[:count]
    return make_scene(
        Thing(colors[rng.integers(len(colors))], SHAPES[shape], MOTIONS[rng.integers(len(MOTIONS))]) for shape in shapes
    )


def neighbours(scene: Scene) -> Iterator[Scene]:
    """All scenes of the same kind (see `sample_scene`) that differ in exactly one attribute of one thing."""
    values: dict[str, Sequence[str]] = {"color": tuple(COLORS), "shape": SHAPES, "motion": MOTIONS}
    distinct = "shape"
    if len(scene) > 1 and len({thing.shape for thing in scene}) == 1:
        del values["shape"]
        distinct = "color"
    taken = {getattr(thing, distinct) for thing in scene}
    for position, thing in enumerate(scene):
        for attribute, choices in values.items():
            for value in choices:
                if value == getattr(thing, attribute) or (attribute == distinct and value in taken):
                    continue
                changed = thing._replace(**{attribute: value})
                yield make_scene((*scene[:position], changed, *scene[position + 1 :]))


def sample_neighbour(rng: np.random.Generator, scene: Scene) -> Scene:
    """A random neighbour; thing, then attribute, then value, so that each attribute is as likely."""
    by_attribute: dict[tuple[str, ...], list[Scene]] = {}
    for other in neighbours(scene):
        by_attribute.setdefault(_changed_attribute(scene, other), []).append(other)
    groups = list(by_attribute.values())
    group = groups[rng.integers(len(groups))]
    return group[rng.integers(len(group))]


def _changed_attribute(scene: Scene, other: Scene) -> tuple[str, ...]:
    """The thing and the name of its attribute in which a neighbour differs, as a key to group by."""
    before, after = (set(scene) - set(other)).pop(), (set(other) - set(scene)).pop()
    changed = [name for name in Thing._fields if getattr(before, name) != getattr(after, name)]
    return (*before, *changed)


class HeldOut:
    """Draws the scenes of the validation and test splits, each once.

    Scenes come in rounds of nine: for each number of things a scene, a neighbour of it, and one more. So every prefix
    of six or more has a third of each number of things and neighbours for at least half, and the first n scenes of
    a larger set are the set of n.

    Args:
        same_shape: as in `sample_scene`.
    """

    def __init__(self, *, same_shape: bool = False) -> None:
        self.sample = partial(sample_scene, same_shape=same_shape)
        self.scenes: set[Scene] = set()
        # In how many single-thing training scenes each pair of attribute values can still occur.
        self.left: Counter[tuple[str, ...]] = Counter()
        for color in COLORS:
            for shape in SHAPES:
                self.left.update(pair for motion in MOTIONS for pair in _pairs(Thing(color, shape, motion)))

    def draw(self, seed: int, split: str, count: int) -> list[Scene]:
        """`count` new scenes, not drawn before.

        Raises:
            ValueError: there are not enough scenes of one thing.
        """
        rng = np.random.default_rng([seed, SPLITS.index(split), POOL_STREAM])
        drawn: list[Scene] = []
        while len(drawn) < count:
            bases = [self._take(rng, partial(self.sample, rng, things)) for things in (1, 2, 3)]
            partners = [self._take(rng, partial(sample_neighbour, rng, base)) for base in bases]
            others = [self._take(rng, partial(self.sample, rng, things)) for things in (1, 2, 3)]
            drawn += bases + partners + others
        self.scenes.difference_update(drawn[count:])
        return drawn[:count]

    def _take(self, rng: np.random.Generator, propose: Callable[[], Scene]) -> Scene:
        for _ in range(2000):
            scene = propose()
            if scene in self.scenes or (len(scene) == 1 and min(self.left[pair] for pair in _pairs(scene[0])) < 2):
                continue
            self.scenes.add(scene)
            if len(scene) == 1:
                self.left.subtract(_pairs(scene[0]))
            return scene
        raise ValueError(
            f"the demo world has no more held-out scenes after {len(self.scenes)}: a third of them have one thing, and "
            f"there are {len(COLORS) * len(SHAPES) * len(MOTIONS)} things; ask for fewer validation and test clips"
        )


def _pairs(thing: Thing) -> list[tuple[str, ...]]:
    return list(combinations(thing, 2))


def plan_clips(
    seed: int, train: int, val: int, test: int, reserve: int = 0, *, same_shape: bool = False
) -> list[SceneClip]:
    """The clips of all splits: scenes and numbering, nothing rendered.

    Args:
        seed: the first n test clips of a larger world with the same seed are those of a world with n.
        train, val, test: clips per split.
        reserve: test scenes kept out of training, at least `test`. A model trained with `reserve` 500 may be scored
            on any world of the same seed with up to 500 test clips.
        same_shape: as in `sample_scene`.
    """
    held_out = HeldOut(same_shape=same_shape)
    test_scenes = held_out.draw(seed, "test", max(test, reserve))[:test]
    val_scenes = held_out.draw(seed, "val", val)
    clips = [SceneClip("train", index, _train_scene(seed, index, held_out)) for index in range(train)]
    for split, scenes in (("val", val_scenes), ("test", test_scenes)):
        clips += [SceneClip(split, index, scene) for index, scene in enumerate(scenes)]
    return clips


def _train_scene(seed: int, index: int, held_out: HeldOut) -> Scene:
    rng = clip_generator(seed, "train", index, SCENE_STREAM)
    while True:
        scene = held_out.sample(rng, 1 + index % MAX_THINGS)
        if scene not in held_out.scenes:
            return scene
