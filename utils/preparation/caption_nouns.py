"""Nouns of captions: what a detector is to look for, and how many of them a label map can name."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from dataloaders.caption_files import caption_texts
from dataloaders.plurals import singulars
from dataloaders.tagging import NOUN, Tagger
from modules.foreign_text import is_class_name
from modules.tokenizer import split_words
from utils.preparation.class_names import class_mapper

CACHED_CAPTIONS = 1 << 16  # data sets have many captions several times


def count_nouns(captions: Iterable[str], tagger: Tagger) -> Counter[str]:
    """How often each word of captions is a noun, as training counts nouns; with a progress bar."""

    @lru_cache(CACHED_CAPTIONS)
    def nouns(caption: str) -> list[str]:
        words = split_words(caption)
        return [word for word, kind in zip(words, tagger.kinds(words), strict=True) if kind == NOUN]

    counts: Counter[str] = Counter()
    for caption in tqdm(captions, unit="caption", disable=not sys.stderr.isatty()):
        counts.update(nouns(caption))
    return counts


def noun_names(counts: Counter[str]) -> Counter[str]:
    """How often each thing is named: a plural counts for its singular where that is a noun too, signs are left out."""
    names: Counter[str] = Counter()
    for word, count in counts.items():
        if len(word) > 1 and word.isalpha() and is_class_name(word):
            names[_singular(word, counts)] += count
    return names


def _singular(word: str, counts: Counter[str]) -> str:
    """The singular that is a noun of the captions, the most frequent of what it may be; the word itself without one."""
    while found := [one for one in singulars(word) if one in counts]:  # "peoples" is "people" and then "person"
        word = max(found, key=counts.__getitem__)
    return word


def most_frequent(names: Counter[str], most: int) -> list[str]:
    """The names by falling frequency, and by the alphabet where that is the same.

    Raises:
        ValueError: `most` is below 1, or there is no name.
    """
    if most < 1:
        raise ValueError(f"--most {most}: must be at least 1")
    if not names:
        raise ValueError("the captions have no nouns")
    return sorted(names, key=lambda name: (-names[name], name))[:most]


def prompts_from_captions(
    path: str | Path, most: int, tagger: Tagger, videos: Iterable[str] | None = None
) -> list[str]:
    """The most frequent nouns of captions by falling frequency, to be looked for and as the names of a label map.

    Args:
        path, videos: as for `caption_texts`, as are the errors.
        most: how many at most.
    """
    return most_frequent(noun_names(count_nouns(caption_texts(path, videos), tagger)), most)


class Coverage(NamedTuple):
    """How many noun tokens of captions the names of a label map can name.

    named: by the rule by which extraction finds classes: but for case, signs and a plural s. with_plurals: or as any
    other plural, "men" by "man". missing: how often each thing occurs that is named in neither way.
    """

    tokens: int
    named: int
    with_plurals: int
    missing: Counter[str]


def measure_coverage(counts: Counter[str], names: Collection[str]) -> Coverage:
    """Which of the nouns that `count_nouns` counted are named by the class names of a label map."""
    find = class_mapper(list(names), {})
    named = sum(count for word, count in counts.items() if find(word))
    missing = Counter({word: n for word, n in counts.items() if not any(map(find, (word, *singulars(word))))})
    return Coverage(counts.total(), named, counts.total() - missing.total(), noun_names(missing))
