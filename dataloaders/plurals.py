"""Plurals of nouns, and whether a noun of a caption is the name of a class."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from modules.tokenizer import split_words

CACHED_PAIRS = 1 << 16
PLURALS = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "oxen": "ox",
}  # fmt: skip
# Their singular is another thing, or none.
PLURAL_ONLY = frozenset(
    ("glasses", "sunglasses", "pants", "jeans", "shorts", "trousers", "clothes", "scissors", "goggles", "news")
)
ENDINGS = (
    ("men", ("man",)),
    ("ies", ("y", "ie")),
    ("ves", ("f", "fe", "ve")),
    ("sses", ("ss",)), ("shes", ("sh", "she")), ("ches", ("ch", "che")), ("xes", ("x", "xe")), ("zes", ("z", "ze")),
    ("oes", ("o", "oe")),
    ("ses", ("se", "s")),
    ("s", ("",)),
)  # fmt: skip


def singulars(word: str) -> Iterator[str]:
    """What the singular of a plural may be; nothing for what does not look like one."""
    if word in PLURALS:
        yield PLURALS[word]
    elif word not in PLURAL_ONLY and not word.endswith(("ss", "us", "is")):
        for ending, replacements in ENDINGS:
            if word.endswith(ending) and len(word) > len(ending) + 1:
                yield from (word.removesuffix(ending) + replacement for replacement in replacements)
                return


@lru_cache(CACHED_PAIRS)
def is_named(word: str, class_name: str) -> bool:
    """Whether a word of a caption names a class: its name, or the head of a name of several words, or a plural of it.

    The head of an English noun is its last word: "light" names a "traffic light", and "traffic" does not.
    """
    words = split_words(class_name)
    return any(_is_same(word, name) for name in {"".join(words), *words[-1:]})


def _is_same(one: str, other: str) -> bool:
    return one == other or one in singulars(other) or other in singulars(one)
