"""The contrastive form of set matching: a token finds its word among those of its caption and of other captions.

The released squared distance asks a token to be where its word is, however close the other words are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.collectives import gather_constant, rank
from modules.objectives.assignment import Pairs

TEMPERATURE = 0.07  # cosines are divided by it
SHARED_WORDS = 16  # of a caption that are wrong words for other captions, at most; all ranks share as many


def cosines(tokens: Tensor, text: Tensor) -> Tensor:
    """(B, R, E), (B, L, E) -> (B, R, L) cosines over the temperature, fp32 whatever the autocast type."""
    with torch.autocast(tokens.device.type, enabled=False):
        return F.normalize(tokens.float(), dim=-1) @ F.normalize(text.float(), dim=-1).transpose(1, 2) / TEMPERATURE


def word_contrast(
    tokens: Tensor, text: Tensor, ids: Tensor, words: Sequence[Sequence[int]], pairs: Pairs, idle_says_nothing: bool
) -> tuple[Tensor, float]:
    """Weighted sum over rows of the cross-entropy of their word, fp32, and the sum of weights.

    A row is compared with the words of its own caption; one that has a word, with those of all other captions of the
    global batch too. Words of the same token are no wrong words. Rows that are left for the end token weigh no more
    together than the words of their caption. Whether they are held against the words of other captions depends on what
    they are: a thing that the caption leaves out is there all the same, and another caption's word may be its noun; an
    action query that found no verb is to say nothing at all. One that is not held so may name a verb in every clip.

    Args:
        tokens: (B, R, E) trajectories or actions.
        text: (B, L, E), every token encoded, without gradient.
        ids: (B, L) int64 tokens.
        words: word positions per sample, the end token last.
        pairs: of `assign_all`.
        idle_says_nothing: whether rows left for the end token are held against the words of other captions too.

    Returns:
        The sum, 0 with a gradient path without pairs, and the sum of weights.
    """
    device, width = tokens.device, max([SHARED_WORDS, *map(len, words)])
    host = *_padded(words, width), *_targets(words, pairs)
    table, is_word, is_end, place, is_idle, weight = (part.to(device, non_blocking=True) for part in host)
    sample, row = torch.tensor(pairs[:2], dtype=torch.int64).view(2, -1).to(device, non_blocking=True)
    with torch.autocast(device.type, enabled=False):
        features = F.normalize(text.float().gather(1, table[..., None].expand(-1, -1, text.shape[-1])), dim=-1)
        tokens_ids = ids.gather(1, table)
        wanted = tokens_ids[sample].gather(1, place[:, None])
        rows = F.normalize(tokens[sample, row].float(), dim=-1)
        own = (features[sample] @ rows[..., None])[..., 0]
        is_target = torch.arange(width, device=device) == place[:, None]
        is_own_wrong = is_word[sample] & (tokens_ids[sample] != wanted)

        others, others_ids, is_shared = (
            gather_constant(part[:, :SHARED_WORDS]).flatten(0, 1) for part in (features, tokens_ids, is_word & ~is_end)
        )
        owner = torch.arange(len(others), device=device) // SHARED_WORDS - rank() * len(tokens)
        is_wrong = is_shared & (others_ids != wanted) & (owner != sample[:, None])
        if not idle_says_nothing:
            is_wrong &= ~is_idle[:, None]
        logits = torch.cat([own, rows @ others.t()], dim=1) / TEMPERATURE
        is_read = torch.cat([is_target | is_own_wrong, is_wrong], dim=1)
        losses = F.cross_entropy(logits.masked_fill(~is_read, -torch.inf), place, reduction="none")
    return (losses * weight).sum(), float(host[-1].sum())


def _padded(words: Sequence[Sequence[int]], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, width) positions of words, 0 where there is none; whether one is there; whether it is the end token's."""
    table = torch.zeros(len(words), width, dtype=torch.int64)
    is_word, is_end = torch.zeros_like(table, dtype=torch.bool), torch.zeros_like(table, dtype=torch.bool)
    for sample, positions in enumerate(words):
        table[sample, : len(positions)] = torch.tensor(positions, dtype=torch.int64)
        is_word[sample, : len(positions)] = True
        is_end[sample, len(positions) - 1 : len(positions)] = True
    return table, is_word, is_end


def _targets(words: Sequence[Sequence[int]], pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pair (P,): place of its word in the sample's list, whether that is the end token, weight."""
    is_idle = [word == words[sample][-1] for sample, word in zip(pairs.sample, pairs.word, strict=True)]
    idle = Counter(sample for sample, one in zip(pairs.sample, is_idle, strict=True) if one)
    of_idle = {sample: min(1.0, max(1, len(words[sample]) - 1) / count) for sample, count in idle.items()}
    places = [words[sample].index(word) for sample, word in zip(pairs.sample, pairs.word, strict=True)]
    weights = [of_idle[sample] if one else 1.0 for sample, one in zip(pairs.sample, is_idle, strict=True)]
    return torch.tensor(places, dtype=torch.int64), torch.tensor(is_idle, dtype=torch.bool), torch.tensor(weights)
