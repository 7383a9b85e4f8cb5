"""Cross-entropy of tokens, classes and pairs, normalised by the number of its terms on all ranks."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from modules.collectives import global_mean


class TokenLoss(NamedTuple):
    """loss: scalar; accuracy: detached share of right arg-max tokens on this rank."""

    loss: Tensor
    accuracy: Tensor


def token_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> TokenLoss:
    """Cross-entropy over (K, V) logits, mean over the targets (K,) of all ranks.

    Args:
        label_smoothing: share of each target's weight that is spread evenly over the V classes.
    """
    logits = logits.float()
    total = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    loss = global_mean(total, len(targets))
    accuracy = (logits.detach().argmax(-1) == targets).float().sum() / max(len(targets), 1)
    return TokenLoss(loss, accuracy)
