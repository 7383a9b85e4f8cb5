"""Assignment of video tokens to words: scores, the best pairs, and their distance."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from modules.objectives.set_matching import Pairs, SetMatching, assign, squared_distance, word_scores
from tests import tiny


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def test_scores_are_a_softmax_over_the_words_of_a_sample():
    tokens, text = normal(2, 3, 8), normal(2, 5, 8)
    is_word = torch.tensor([[False, True, False, True, True], [False, True, False, False, False]])
    scores = word_scores(tokens, text, is_word)
    assert scores.shape == (2, 3, 5) and not scores[~is_word[:, None].expand_as(scores)].any()
    torch.testing.assert_close(scores[0][:, [1, 3, 4]], (tokens[0] @ text[0, [1, 3, 4]].t()).softmax(-1))
    assert (scores[1, :, 1] == 1).all()


def test_scores_are_single_precision_under_autocast_and_without_gradient():
    tokens, text = 5 * normal(1, 3, 64).requires_grad_(), normal(1, 4, 64)
    is_word = torch.ones(1, 4, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        scores = word_scores(tokens, text, is_word)
    assert torch.equal(scores, word_scores(tokens, text, is_word)) and not scores.requires_grad


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


def test_the_distance_is_the_mean_square_summed_over_pairs():
    tokens, text = normal(2, 3, 8).requires_grad_(), normal(2, 5, 8)
    pairs = Pairs([0, 1, 1], [2, 0, 1], [4, 1, 1])
    expected = sum((tokens[s, r] - text[s, w]).square().mean() for s, r, w in zip(*pairs, strict=True))
    found = squared_distance(tokens, text, pairs)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert tokens.grad is not None
    assert tokens.grad.any(-1).nonzero().tolist() == [[0, 2], [1, 0], [1, 1]]


def test_no_pair_has_distance_zero_with_a_gradient_path():
    tokens = normal(2, 3, 8).requires_grad_()
    found = squared_distance(tokens, normal(2, 5, 8), Pairs([], [], []))
    found.backward()
    assert found == 0 and tokens.grad is not None and not tokens.grad.any()


def test_only_the_wanted_kinds_are_scored_and_a_clip_without_boxes_takes_part_with_its_actions():
    model = tiny.model()
    items = [tiny.sample(i, model.config, boxes=2 * i) for i in range(2)]
    batch, matching = tiny.collate(items), model.objective(SetMatching)
    encoded = model.encoded(batch)
    found = matching.scores(batch, encoded.video, encoded.text, {"action_verb"})
    assert found.keys() == {"action_verb"} and found["action_verb"].shape[:2] == (2, model.config.num_actions)
    assert set(matching.solve(batch, found)["action_verb"].sample) == {0, 1}
    both = matching.scores(batch, encoded.video, encoded.text, set(matching.available))
    assert set(matching.solve(batch, both)["object_noun"].sample) == {1}
    assert matching.solve(batch, {}) == {}


def test_a_model_without_the_tokens_does_not_have_the_loss():
    assert tiny.model(use_action=False).objective(SetMatching).available == ("object_noun",)
    assert tiny.model(action_only=True).objective(SetMatching).available == ("action_verb",)
    assert tiny.model(object_fuse="attention").objective(SetMatching).available == ()
