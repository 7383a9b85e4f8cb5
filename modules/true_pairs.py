"""Which texts of the global batch are true of which of its clips, so that none of them is taken for a wrong one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modules.collectives import gather_constant, rank
from modules.random_streams import splitmix64


class TruePairs(NamedTuple):
    """This rank's texts and videos against the global batch: (B, G) bool each, the own pairs included."""

    text_to_video: Tensor
    video_to_text: Tensor


@torch.no_grad()
def text_keys(text_ids: Tensor, lengths: Tensor) -> Tensor:
    """A number for each text, equal for equal token sequences up to their lengths: (Q, L), (Q,) -> (Q,) int64.

    As in Zobrist hashing, each token at each place has a number of 64 bits that looks random, and a text has the sum of
    its own. Two texts that differ collide with a chance of 2^-64. A run of a million steps with 1,024 texts in a batch
    compares 5e11 pairs of texts: one chance in 35 million that a single one is taken for the same, which would cost one
    possible negative in one step.
    """
    places = torch.arange(text_ids.shape[1], device=text_ids.device)
    numbers = splitmix64((text_ids << 32) + places)
    return numbers.masked_fill(places >= lengths[:, None], 0).sum(1)


@torch.no_grad()
def true_pairs(texts: Tensor, clips: Tensor | None) -> TruePairs:
    """What is true in the global batch, from its samples: clip by clip, all texts that any sample of the clip has.

    So a text is true of its own clip, of every clip that has the same text too, and of all samples of these clips. On
    several ranks one collective gathers two numbers of each sample; nothing waits for the device.

    Args:
        texts: (B,) int64 `text_keys` of this rank's samples.
        clips: (B,) int64 keys of their clips; None: each sample has a clip of its own.
    """
    size = len(texts)
    if clips is None:
        clips = torch.arange(size, device=texts.device) + rank() * size
    keys = gather_constant(torch.stack([texts, clips], dim=1)).t().contiguous()
    # Places in the sorted table: from 0 to G - 1, and the same for the same key alone.
    text, clip = torch.searchsorted(keys.sort(dim=1).values, keys)
    first = rank() * size
    return TruePairs(
        _joined(text[first : first + size], text, clip),
        _joined(clip[first : first + size], clip, text),
    )


def _joined(own: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Whether some sample has `own[i]` as its first and `second[j]` as its second: (B,), (G,), (G,) -> (B, G)."""
    has_first = own[:, None] == first
    samples = torch.zeros(has_first.shape, device=own.device).index_add_(1, second, has_first.float())
    return samples[:, second] > 0
