"""Losses that several tasks share, against their formulas, and the draw of hard negatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.losses import contrastive_loss, hard_negatives, interleave, matching_loss, token_loss
from modules.random_streams import sample_key


def keys(count: int) -> torch.Tensor:
    return torch.tensor([sample_key(0, 0, index) for index in range(count)])


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_token_loss_is_the_mean_over_its_targets(smoothing: float):
    scores, targets = logits(5, 7), torch.tensor([0, 6, 3, 3, 2])
    logprobs = scores.log_softmax(-1)
    right = logprobs[torch.arange(5), targets]
    expected = -((1 - smoothing) * right + smoothing * logprobs.mean(-1)).mean()
    found = token_loss(scores, targets, smoothing)
    torch.testing.assert_close(found.loss, expected)


def test_accuracy_is_the_share_of_targets_that_score_highest():
    scores = torch.eye(4).requires_grad_()
    found = token_loss(scores, torch.tensor([0, 1, 3, 3]))
    assert found.accuracy == 0.75 and not found.accuracy.requires_grad


def test_no_target_at_all_has_loss_zero_with_a_gradient():
    scores = torch.zeros(0, 7, requires_grad=True)
    found = token_loss(scores, torch.zeros(0, dtype=torch.int64))
    found.loss.backward()
    assert found.loss == 0 and found.accuracy == 0 and scores.grad is not None


def test_half_precision_logits_have_a_single_precision_loss():
    scores = 20 * logits(3, 50)
    found = token_loss(scores.bfloat16(), torch.tensor([0, 1, 2]))
    assert found.loss.dtype == torch.float32
    torch.testing.assert_close(found.loss, token_loss(scores.bfloat16().float(), torch.tensor([0, 1, 2])).loss)


def test_contrastive_loss_is_half_of_both_directions():
    first, second = logits(3, 3), logits(4, 3)[1:]
    own = torch.arange(3)
    expected = (F.cross_entropy(first, own) + F.cross_entropy(second, own)) / 2
    torch.testing.assert_close(contrastive_loss(first, second), expected)
    assert contrastive_loss(50 * torch.eye(3), 50 * torch.eye(3)) < 1e-6


def test_a_negative_is_never_the_own_pair_however_similar():
    others, own = logits(20, 20), torch.arange(20)
    for seed in range(20):
        near = hard_negatives(others + 50 * torch.eye(20), others.t() + 50 * torch.eye(20), keys(20) + seed)
        far = hard_negatives(others, others.t(), keys(20) + seed)
        for index, expected in zip(near, far, strict=True):
            assert ((index >= 0) & (index < 20)).all() and not (index == own).any()
            assert torch.equal(index, expected), "its own similarity does not matter"
    two = hard_negatives(torch.zeros(2, 2), torch.zeros(2, 2), keys(2))
    assert two.video.tolist() == two.text.tolist() == [1, 0]


def test_negatives_are_drawn_in_proportion_to_the_softmax_of_similarity():
    """Column 0 is three times as likely as column 1, and no other has a chance."""
    scores = torch.full((2000, 2000), -1e4)
    scores[:, 0], scores[:, 1] = torch.tensor(3.0).log(), 0.0
    drawn = hard_negatives(scores, scores.clone(), keys(2000))
    for index in drawn:
        others = index[2:]
        assert set(others.tolist()) == {0, 1}
        assert abs((others == 0).float().mean() - 0.75) < 0.03
    assert not torch.equal(drawn.video, drawn.text), "each kind has a stream of its own"


def test_a_draw_depends_on_the_key_of_its_sample_alone():
    scores = logits(6, 6)
    first, again = (hard_negatives(scores, scores, keys(6)) for _ in range(2))
    assert torch.equal(first.video, again.video) and torch.equal(first.text, again.text)
    drawn = [hard_negatives(scores, scores, keys(6) + (torch.arange(6) >= 3) * step) for step in range(1, 9)]
    assert all(torch.equal(one.video[:3], first.video[:3]) for one in drawn)
    assert any(not torch.equal(one.video[3:], first.video[3:]) for one in drawn)


def test_pairs_of_a_sample_stand_together():
    parts = [torch.tensor([1, 2]) + ten for ten in (0, 10, 20)]
    assert interleave(*parts).tolist() == [1, 11, 21, 2, 12, 22]
    assert interleave(*(part[:, None].expand(-1, 5) for part in parts)).shape == (6, 5)


def test_the_first_pair_of_each_sample_is_the_match():
    scores = logits(6, 2)
    found = matching_loss(scores, 3)
    torch.testing.assert_close(found.loss, F.cross_entropy(scores, torch.tensor([1, 0, 0, 1, 0, 0])))
    sure = torch.tensor([[0.0, 9], [9, 0], [9, 0], [0, 9], [9, 0], [0, 9]])
    assert float(matching_loss(sure, 3).accuracy) == pytest.approx(5 / 6)
