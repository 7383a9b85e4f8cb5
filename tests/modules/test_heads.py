"""Vocabulary and matching head, and dropout by the samples' keys."""

from __future__ import annotations

import pytest
import torch

from modules.heads import SampleDropout
from modules.random_streams import sample_key
from tests import plain_forms as plain
from tests import tiny
from tests.modules.agreement import assert_same

KEYS = torch.tensor([sample_key(0, 0, index) for index in range(4)])


def test_vocabulary_head_from_the_left_equals_right():
    model = tiny.model()
    hidden, embedding = torch.randn(5, 64), model.clip.token_embedding.weight
    head = model.vocabulary_head
    assert_same(head(hidden, embedding), plain.vocabulary_logits(head, hidden, embedding), model)


@pytest.mark.parametrize("is_autocast", [False, True])
@torch.no_grad()
def test_logits_are_written_into_given_memory_in_its_own_type(is_autocast: bool):
    model = tiny.model()
    hidden, embedding = torch.randn(5, 64), model.clip.token_embedding.weight
    out = torch.full((5, len(embedding)), float("nan"))
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        expected = model.vocabulary_head(hidden, embedding)
        found = model.vocabulary_head(hidden, embedding, out)
    assert found is out and out.dtype == torch.float32
    torch.testing.assert_close(out, expected.float(), rtol=1e-4, atol=1e-5)


def test_matching_scores_row_by_row_equal_diagonal_of_matrix():
    for behaviour in ("intended", "released"):
        model = tiny.model(behaviour=behaviour)
        rows, keep = torch.randn(6, 2, 64), (torch.rand(6, 2, 2, 64) > 0.5).float()
        head = model.matching_head
        assert_same(head(rows, keep), plain.matching_scores(head, rows, keep), model)


@pytest.mark.parametrize(("axis", "same"), [("feature", True), ("batch", False)])
def test_matching_score_depends_on_other_pairs_in_released_behaviour_only(axis, same):
    model = tiny.model(behaviour="intended" if axis == "feature" else "released")
    rows = torch.randn(5, 2, 64)
    assert torch.allclose(model.matching_head(rows)[:3], model.matching_head(rows[:3]), atol=1e-5) == same


@pytest.mark.parametrize(("behaviour", "is_pairwise"), [("intended", True), ("released", False)])
def test_the_head_knows_whether_pairs_stand_alone(behaviour: str, is_pairwise: bool):
    assert tiny.model(behaviour=behaviour).matching_head.is_pairwise == is_pairwise


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("score", [0, 1])
def test_factors_are_those_of_one_score_and_one_row(score: int, row: int):
    """[no match, match] x [frame mean, end token]."""
    head, rows, keep = tiny.model().matching_head, torch.randn(3, 2, 64), torch.ones(3, 2, 2, 64)
    keep[:, score, row] = 0
    before, after = head(rows), head(rows, keep)
    assert (after[:, score] == 0).all() and (before != 0).all()
    torch.testing.assert_close(after[:, 1 - score], before[:, 1 - score])


def test_dropout_is_off_without_a_rate_and_in_evaluation():
    rows = torch.ones(4, 2, 8)
    for drop in (SampleDropout(KEYS, 0.0, training=True), SampleDropout(None, 0.5, training=False)):
        assert drop.factors("mlm", 8) is None and drop.rows(rows, "mlm") is rows


def test_dropout_needs_the_keys_of_the_samples():
    with pytest.raises(ValueError, match="needs the batch's random_keys"):
        SampleDropout(None, 0.5, training=True)


def test_dropout_of_a_sample_is_the_same_in_any_batch_and_another_in_each_stream():
    rows = torch.ones(4, 2, 50)
    together = SampleDropout(KEYS, 0.5, training=True)
    alone = SampleDropout(KEYS[2:3], 0.5, training=True)
    dropped = together.rows(rows, "mlm")
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped[2:3], alone.rows(rows[:1], "mlm"))
    assert not torch.equal(dropped, together.rows(rows, "plm"))
    assert torch.equal(dropped, together.factors("mlm", 2, 50))
