"""Bipartite matching of video tokens to words, for the paper's object-text alignment and action set prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


class Pairs(NamedTuple):
    """Matched pairs as flat index lists: sample, row of the video tokens, position of the word."""

    sample: list[int]
    row: list[int]
    word: list[int]


class PendingScores:
    """An asynchronous copy of scores to the host.

    The copy is started without waiting; `result` waits for it. Work queued in between keeps the device busy, so the
    assignment, which has to be solved on the host, costs no idle time.
    """

    def __init__(self, scores: Tensor) -> None:
        self._event = None
        if scores.is_cuda:
            self._host = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
            self._host.copy_(scores, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = scores

    def result(self) -> np.ndarray:
        """The scores, once they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy()


@torch.no_grad()
def word_scores(tokens: Tensor, text: Tensor, is_word: Tensor) -> Tensor:
    """Softmax over a sample's words of token · word (raw dot products), in fp32 whatever the autocast type.

    Args:
        tokens: (B, R, E) trajectories or actions.
        text: (B, L, E).
        is_word: (B, L), True at candidate words.

    Returns:
        (B, R, L) fp32, 0 where there is no word.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        scores = tokens.float() @ text.float().transpose(1, 2)
    return scores.masked_fill(~is_word[:, None], float("-inf")).softmax(-1)


def assign(scores: np.ndarray, row_counts: Sequence[int], words: Sequence[Sequence[int]]) -> Pairs:
    """Maximum-weight assignment of each sample's first `row_counts[b]` rows to its words.

    Args:
        scores: (B, R, L).
        row_counts: usable rows per sample; 0 leaves the sample out.
        words: word positions per sample.

    Returns:
        min(rows, words) pairs per sample; rows without a word and words without a row are left out.
    """
    pairs = Pairs([], [], [])
    for sample, (count, positions) in enumerate(zip(row_counts, words, strict=True)):
        if not count or not positions:
            continue
        rows, columns = linear_sum_assignment(scores[sample, :count][:, list(positions)], maximize=True)
        pairs.sample.extend([sample] * len(rows))
        pairs.row.extend(rows.tolist())
        pairs.word.extend(positions[c] for c in columns)
    return pairs


def squared_distance(tokens: Tensor, text: Tensor, pairs: Pairs) -> Tensor:
    """Sum over pairs of the mean squared difference of token and word, fp32; 0 (with a gradient path) without pairs."""
    index = torch.tensor(pairs, dtype=torch.int64).view(3, -1).to(tokens.device, non_blocking=True)
    difference = tokens[index[0], index[1]].float() - text[index[0], index[2]].float()
    return difference.square().sum() / tokens.shape[-1]
