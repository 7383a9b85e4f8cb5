"""Rows of video tokens assigned to the words of their caption, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment


class Pairs(NamedTuple):
    """Matched pairs as flat index lists: sample, row of the video tokens, position of the word."""

    sample: list[int]
    row: list[int]
    word: list[int]


def assign(scores: np.ndarray, row_counts: Sequence[int], words: Sequence[Sequence[int]]) -> Pairs:
    """Maximum-weight assignment of each sample's first `row_counts[b]` rows to its words.

    Args:
        scores: (B, R, L).
        row_counts: usable rows per sample; 0 leaves the sample out.
        words: word positions per sample.

    Returns:
        min(rows, words) pairs per sample; rows without a word and words without a row are left out.
    """
    pairs = Pairs([], [], [])
    for sample, (count, positions) in enumerate(zip(row_counts, words, strict=True)):
        if not count or not positions:
            continue
        rows, columns = linear_sum_assignment(scores[sample, :count][:, list(positions)], maximize=True)
        pairs.sample.extend([sample] * len(rows))
        pairs.row.extend(rows.tolist())
        pairs.word.extend(positions[c] for c in columns)
    return pairs


def assign_all(scores: np.ndarray, row_counts: Sequence[int], words: Sequence[Sequence[int]]) -> Pairs:
    """Every usable row to a word: one to one, and to the end token the rows for which no word is left.

    In `assign` the end token is a word among others: it takes a row from a word where there are no more rows than
    words, and has one row at most, so that the others learn nothing.

    Args:
        scores, row_counts: as for `assign`.
        words: word positions per sample, the end token last; none leaves the sample out.
    """
    pairs = Pairs([], [], [])
    for sample, (count, positions) in enumerate(zip(row_counts, words, strict=True)):
        if not count or not positions:
            continue
        *named, end = positions
        rows, columns = linear_sum_assignment(scores[sample, :count][:, named], maximize=True)
        found = dict(zip(rows.tolist(), columns.tolist(), strict=True))
        pairs.sample.extend([sample] * count)
        pairs.row.extend(range(count))
        pairs.word.extend(named[found[row]] if row in found else end for row in range(count))
    return pairs
