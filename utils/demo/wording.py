"""Captions, questions and answer options of the demo world's scenes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from utils.demo.world import COLORS, MOTIONS, SHAPES, Scene, Thing, sample_neighbour

NUMBER_WORDS = ("zero", "one", "two", "three")
OPTIONS = 5


class Question(NamedTuple):
    """A question about a clip; `kind` is its first word, as in MSRVTT-QA's answer_type."""

    question: str
    answer: str
    kind: str


def captions(scene: Scene, rng: np.random.Generator, count: int) -> list[str]:
    """Up to `count` different captions of a scene, in templates and orders drawn at random.

    Every caption names colour, shape and motion of every thing, so it determines the scene.
    """
    found: list[str] = []
    for template in _cycle(rng, count):
        caption = _word(scene, template, rng)
        if caption not in found:
            found.append(caption)
        if len(found) == count:
            break
    return found


def descriptions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """A caption of each thing alone, in an order drawn at random; together they determine the scene."""
    return [captions((scene[position],), rng, 1)[0] for position in rng.permutation(len(scene))]


def _cycle(rng: np.random.Generator, count: int) -> list[str]:
    """Templates to try: each in turn, so that the first few captions differ in template, and enough of them."""
    order = [TEMPLATES[position] for position in rng.permutation(len(TEMPLATES))]
    return order * (count + 1)


TEMPLATES = ("a", "the", "while", "there", "this")


def _word(scene: Scene, template: str, rng: np.random.Generator) -> str:
    things = [scene[position] for position in rng.permutation(len(scene))]
    if template in ("there", "this"):
        return f"{template} is " + _join([f"{_noun_phrase(thing)} that is {thing.motion}" for thing in things])
    if template == "the":
        return _join([f"the {thing.color} {thing.shape} is {thing.motion}" for thing in things])
    clauses = [f"{_noun_phrase(thing)} is {thing.motion}" for thing in things]
    if template == "while" and len(clauses) > 1:
        return f"{clauses[0]} while {_join(clauses[1:])}"
    return _join(clauses)


def _noun_phrase(thing: Thing) -> str:
    return f"{'an' if thing.color[0] in 'aeiou' else 'a'} {thing.color} {thing.shape}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def questions(scene: Scene, rng: np.random.Generator, count: int) -> list[Question]:
    """Up to `count` different questions, each with one true answer.

    Colour is asked by shape, motion by colour and shape, shape by motion, and only where those single out a thing.
    """
    shapes, motions = Counter(thing.shape for thing in scene), Counter(thing.motion for thing in scene)
    asked = [Question("how many shapes are there?", NUMBER_WORDS[len(scene)], "how")]
    for thing in scene:
        alone, moves_alone = shapes[thing.shape] == 1, motions[thing.motion] == 1
        if alone:
            asked.append(Question(f"what color is the {thing.shape}?", thing.color, "what"))
        if alone or moves_alone:
            asked.append(Question(f"what color is the {thing.shape} that is {thing.motion}?", thing.color, "what"))
        asked.append(Question(f"what is the {thing.color} {thing.shape} doing?", thing.motion, "what"))
        if alone:
            asked.append(Question(f"what is the {thing.shape} doing?", thing.motion, "what"))
        if moves_alone:
            asked.append(Question(f"what is {thing.motion}?", thing.shape, "what"))
            asked.append(Question(f"what shape is {thing.motion}?", thing.shape, "what"))
    return [asked[position] for position in rng.permutation(len(asked))[:count]]


def options(scene: Scene, others: list[Scene], rng: np.random.Generator) -> tuple[list[str], int]:
    """Five captions of which one is true, and its position.

    One of the false ones differs in a single attribute; the rest describe other clips, with the same number of things
    where there are enough, so that the length of a caption says nothing. A split too small for that has more of the
    first kind.
    """
    candidates = [scene, sample_neighbour(rng, scene)]
    shuffled = [others[position] for position in rng.permutation(len(others))]
    shuffled.sort(key=lambda other: len(other) != len(scene))
    candidates += [other for other in shuffled if other not in candidates][: OPTIONS - 2]
    while len(candidates) < OPTIONS:
        more = sample_neighbour(rng, scene)
        candidates += [more] if more not in candidates else []
    order = rng.permutation(OPTIONS)
    texts = [captions(candidates[position], rng, 1)[0] for position in order]
    return texts, int(np.flatnonzero(order == 0)[0])


def single_captions() -> Iterator[tuple[Thing, str]]:
    """Every thing of the world with every caption of it alone."""
    for color, shape, motion in product(COLORS, SHAPES, MOTIONS):
        thing = Thing(color, shape, motion)
        rng = np.random.default_rng(0)  # one thing has one order
        yield from ((thing, text) for text in dict.fromkeys(_word((thing,), template, rng) for template in TEMPLATES))
