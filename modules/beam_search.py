"""Greedy and beam search over token sequences, for a batch of clips at once, independent of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = float("-inf")


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the search for a caption.

    beam_size: hypotheses K kept per clip; 1 is greedy. max_tokens: tokens at most, the end token included.
    length_penalty: a hypothesis of n tokens (end included) has score log P / n ** length_penalty. no_repeat_ngram: no
    sequence of so many tokens comes twice in a caption; 0: no such rule.
    """

    beam_size: int = 1
    max_tokens: int = 31
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0


class Scorer(Protocol):
    """Gives the next token's probabilities of K beams for each of B clips."""

    def advance(self, tokens: Tensor) -> Tensor:
        """Append tokens (B, K); next-token log-probabilities (B, K, V), fp32, which the next call may overwrite."""

    def reorder(self, source: Tensor) -> None:
        """Let beam k of clip b continue its former beam source[b, k]; `source` is (B, K)."""


class Hypotheses(NamedTuple):
    """The best sequence of each clip: tokens (B, L) without start, padded with the end token; score (B,)."""

    tokens: Tensor
    score: Tensor


def search(
    scorer: Scorer, clips: int, start: int, end: int, settings: SearchSettings, device: torch.device
) -> Hypotheses:
    """Find a likely sequence for each of `clips` clips.

    In each step the 2·K best continuations of a clip's K beams are looked at: those that end and are among the first K
    are finished, the K best others go on. A clip is done when K hypotheses have finished; what has not ended after
    `max_tokens` competes as it is. With one beam only the best is looked at: where it ends, the clip is done.

    Args:
        start, end: ids of the tokens around a text.
    """
    beams, penalty = settings.beam_size, settings.length_penalty
    looked_at = 2 * beams if beams > 1 else 1
    finished = _Finished(clips, settings, end, device)
    tokens = torch.empty(clips, beams, 0, dtype=torch.int64, device=device)
    last = torch.full((clips, beams), start, device=device)
    scores = torch.full((clips, beams), NEVER, device=device)
    scores[:, 0] = 0.0  # all beams start alike, so one is enough
    for length in range(1, settings.max_tokens + 1):
        following = _without_repeats(scorer.advance(last), tokens, settings.no_repeat_ngram)
        # The n best continuations of a clip are among the n best of each of its beams.
        likely, words = _best(following, looked_at)
        total = (scores[..., None] + likely).flatten(1)
        best, index = total.topk(min(looked_at, total.shape[1]))
        source, token = index // likely.shape[-1], words.flatten(1).gather(1, index)
        candidates = torch.cat([_pick(tokens, source), token[..., None]], dim=-1)
        ends = token == end
        finishes = ends & (torch.arange(best.shape[1], device=device) < beams)
        finished.add(candidates, best.masked_fill(~finishes, NEVER) / length**penalty)
        scores, order = best.masked_fill(ends, NEVER).topk(beams)
        tokens, last = _pick(candidates, order), token.gather(1, order)
        if finished.is_done.all():
            break
        scorer.reorder(source.gather(1, order))
    finished.add(tokens, scores / tokens.shape[-1] ** penalty)
    return finished.best()


class _Finished:
    """The K best finished hypotheses of each clip.

    A clip that has K takes no more, so that its result does not depend on which others are searched with it.
    """

    def __init__(self, clips: int, settings: SearchSettings, end: int, device: torch.device) -> None:
        self.end = end
        self.tokens = torch.full((clips, settings.beam_size, settings.max_tokens), end, device=device)
        self.scores = torch.full((clips, settings.beam_size), NEVER, device=device)

    @property
    def is_done(self) -> Tensor:
        """Whether each clip has K finished hypotheses, (B,)."""
        return (self.scores > NEVER).all(1)

    def add(self, tokens: Tensor, scores: Tensor) -> None:
        """Add candidates (B, C, n) with scores (B, C); -inf marks none."""
        beams, length = self.tokens.shape[1:]
        padded = F.pad(tokens, (0, length - tokens.shape[-1]), value=self.end)
        scores = scores.masked_fill(self.is_done[:, None], NEVER)
        self.scores, kept = torch.cat([self.scores, scores], dim=1).topk(beams)
        self.tokens = _pick(torch.cat([self.tokens, padded], dim=1), kept)

    def best(self) -> Hypotheses:
        """The best hypothesis of each clip."""
        return Hypotheses(self.tokens[:, 0], self.scores[:, 0])


def _best(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest values of the last axis (all, if it has fewer) and their indices."""
    if count == 1:
        best, index = x.max(-1, keepdim=True)  # several times faster than topk of one, over a vocabulary
    else:
        best, index = x.topk(min(count, x.shape[-1]))
    return best, index


def _pick(sequences: Tensor, index: Tensor) -> Tensor:
    """Gather sequences of each clip: (B, K, n), (B, C) -> (B, C, n)."""
    return sequences.gather(1, index[..., None].expand(-1, -1, sequences.shape[-1]))


def _without_repeats(logprobs: Tensor, tokens: Tensor, size: int) -> Tensor:
    """Set tokens to -inf that would repeat `size` tokens of their beam: (B, K, V), (B, K, n) -> (B, K, V)."""
    length = tokens.shape[-1]
    if not size or length < size:
        return logprobs
    windows = tokens.unfold(-1, size, 1)
    repeats = (windows[..., :-1] == tokens[..., None, length - size + 1 :]).all(-1)
    follows = windows[..., -1]
    return logprobs.scatter_reduce(-1, follows, logprobs.gather(-1, follows).masked_fill(repeats, NEVER), "amin")
