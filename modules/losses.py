"""Cross-entropy of tokens, classes and pairs, normalised by the number of its terms on all ranks."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from modules.collectives import global_mean, local_mean

LEFT_OUT = -100  # target of a term that does not count


class TokenLoss(NamedTuple):
    """loss: scalar; accuracy: detached share of right arg-max tokens on this rank."""

    loss: Tensor
    accuracy: Tensor


def token_loss(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, is_counted: Tensor | None = None
) -> TokenLoss:
    """Cross-entropy over (K, V) logits, mean over the targets (K,) of all ranks.

    Args:
        label_smoothing: share of each target's weight that is spread evenly over the V classes.
        is_counted: (K,) bool, False = left out of loss, accuracy and their divisors.
    """
    logits, kept = logits.float(), None
    if is_counted is not None:
        targets, kept = targets.masked_fill(~is_counted, LEFT_OUT), is_counted.sum()
    total = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing, ignore_index=LEFT_OUT)
    loss = global_mean(total, len(targets), kept)
    right = (logits.detach().argmax(-1) == targets).float().sum()
    return TokenLoss(loss, local_mean(right, len(targets), kept))
