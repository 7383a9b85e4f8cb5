"""Losses that several tasks share. Each is normalised by the number of its terms on all ranks."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.collectives import global_mean, rank
from modules.fusion_encoder import VideoTokens
from modules.random_streams import uniform


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


def contrastive_loss(text_to_video: Tensor, video_to_text: Tensor) -> Tensor:
    """Mean of the two InfoNCE losses of this rank's rows (B, G) against the global batch."""
    batch = text_to_video.shape[0]
    target = torch.arange(batch, device=text_to_video.device) + rank() * batch
    total = F.cross_entropy(text_to_video.float(), target, reduction="sum")
    total = total + F.cross_entropy(video_to_text.float(), target, reduction="sum")
    return global_mean(total / 2, batch)


class Negatives(NamedTuple):
    """Indices into the global batch: `video[i]` is the wrong video for text i, `text[i]` the wrong text for video i."""

    video: Tensor
    text: Tensor


@torch.no_grad()
def hard_negatives(text_to_video: Tensor, video_to_text: Tensor, keys: Tensor) -> Negatives:
    """Draw, for each of this rank's pairs, a wrong video and a wrong text in proportion to softmax(similarity).

    Args:
        text_to_video, video_to_text: (B, G) logits of this rank's texts and videos against the global batch, G > 1.
        keys: (B,) keys of the samples; the draw depends on nothing else.
    """
    batch = len(keys)
    own = torch.arange(batch, device=keys.device) + rank() * batch

    def draw(logits: Tensor, stream: str) -> Tensor:
        weights = logits.float().scatter(1, own[:, None], float("-inf")).softmax(-1).cumsum(-1)
        point = uniform(keys, stream, 1) * weights[:, -1:]
        index = torch.searchsorted(weights, point, right=True)[:, 0].clamp(max=weights.shape[1] - 1)
        # Rounding at the very end of the table may fall on the own pair; its neighbour is a negative.
        beside = torch.where(own == weights.shape[1] - 1, own - 1, own + 1)
        return torch.where(index == own, beside, index)

    return Negatives(draw(text_to_video, "negative video"), draw(video_to_text, "negative text"))


class Pool(NamedTuple):
    """Clips beside texts: text (K, L, E), text_mask (K, L) and text_lengths (K,)."""

    video: VideoTokens
    text: Tensor
    text_mask: Tensor
    text_lengths: Tensor


def interleave(positive: Tensor, wrong_video: Tensor, wrong_text: Tensor) -> Tensor:
    """(B, ...) three times -> (3·B, ...) in the released order: positive, wrong video, wrong text of each sample."""
    return torch.stack([positive, wrong_video, wrong_text], dim=1).flatten(0, 1)


def matching_loss(scores: Tensor, pairs_per_sample: int) -> TokenLoss:
    """Two-way cross-entropy of (B·p, 2) scores; the first of each sample's p pairs is the match."""
    target = torch.zeros(scores.shape[0], dtype=torch.int64, device=scores.device)
    target[::pairs_per_sample] = 1
    return token_loss(scores, target)
