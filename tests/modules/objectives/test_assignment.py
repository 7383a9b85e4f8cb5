"""Rows of video tokens assigned to words: with the end token as a word among others, and as what is left."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from modules.objectives.assignment import Pairs, assign, assign_all


@pytest.mark.parametrize("words", [[1, 2, 4, 5], [0, 3], [2]], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_assignment_is_the_best_of_all(rows: int, words: list[int]):
    scores = np.random.default_rng(rows + 10 * len(words)).random((1, 5, 6))
    pairs = assign(scores, [rows], [words])
    size = min(rows, len(words))
    assert len(set(pairs.row)) == len(set(pairs.word)) == len(pairs.row) == size
    assert set(pairs.row) <= set(range(rows)) and set(pairs.word) <= set(words) and set(pairs.sample) == {0}
    every = (
        zip(some, chosen, strict=True)
        for some in permutations(range(rows), size)
        for chosen in permutations(words, size)
    )
    best = max(sum(scores[0, row, word] for row, word in pairing) for pairing in every)
    assert scores[0, pairs.row, pairs.word].sum() == pytest.approx(best)


def test_samples_are_apart_and_those_without_rows_or_words_are_left_out():
    scores = np.zeros((4, 2, 3))
    scores[1, 0, 2] = scores[1, 1, 0] = scores[3, 0, 1] = 1
    pairs = assign(scores, [0, 2, 2, 1], [[0, 1], [0, 2], [], [0, 1]])
    assert sorted(zip(*pairs, strict=True)) == [(1, 0, 2), (1, 1, 0), (3, 0, 1)]
    assert assign(scores, [0] * 4, [[0]] * 4) == Pairs([], [], [])


@pytest.mark.parametrize("words", [[1, 2, 4, 5], [0, 3], [2]], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_all_rows_are_assigned_and_words_go_before_the_end(rows: int, words: list[int]):
    scores = np.random.default_rng(rows + 10 * len(words)).random((1, 5, 6))
    scores[0, :, words[-1]] = 9  # the end token scores best everywhere
    pairs = assign_all(scores, [rows], [words])
    named = assign(scores, [rows], [words[:-1]])
    expected = dict(zip(named.row, named.word, strict=True))
    assert pairs.row == list(range(rows)) and set(pairs.sample) == {0}
    assert pairs.word == [expected.get(row, words[-1]) for row in range(rows)]


def test_clips_without_rows_or_words_are_left_out_of_either():
    scores = np.zeros((3, 2, 3))
    assert assign_all(scores, [0, 2, 1], [[0, 1], [], [2]]) == Pairs([2], [0], [2])
