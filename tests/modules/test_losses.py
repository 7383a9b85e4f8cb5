"""Cross-entropy against its formula."""

from __future__ import annotations

import pytest
import torch

from modules.losses import token_loss


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


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_targets_that_do_not_count_are_in_no_mean(smoothing: float):
    scores, targets = logits(5, 7), torch.tensor([0, 6, 3, 3, 2])
    counts = torch.tensor([True, False, True, False, True])
    found, alone = (
        token_loss(scores, targets, smoothing, counts),
        token_loss(scores[counts], targets[counts], smoothing),
    )
    torch.testing.assert_close(found, alone)
    every, plain = token_loss(scores, targets, smoothing, counts | True), token_loss(scores, targets, smoothing)
    assert torch.equal(every.loss, plain.loss) and torch.equal(every.accuracy, plain.accuracy)
    none = token_loss(scores.requires_grad_(), targets, smoothing, counts & False)
    none.loss.backward()
    assert none.loss == 0 and none.accuracy == 0 and scores.grad is not None and not scores.grad.any()


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
