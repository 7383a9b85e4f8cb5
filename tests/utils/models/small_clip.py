"""The state of a small CLIP, with the sizes of tests/tiny.py."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.models.random_clip import ClipSizes, random_state_dict

SIZES = ClipSizes(32, 8, 64, 4, 64, 64, 3, context_length=20, vocab_size=100)
STATE = random_state_dict(SIZES)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether both have the same values, on whatever device."""
    return first.keys() == second.keys() and all(torch.equal(first[name].cpu(), second[name].cpu()) for name in first)
