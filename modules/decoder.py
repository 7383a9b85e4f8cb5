"""Next-token probabilities one token at a time, with everything that was computed for earlier tokens kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modules.fusion_encoder import VideoTokens
from modules.layers import ResidualBlock
from modules.module_clip import CLIP
from modules.prefix_lm import PrefixLMModel

KeysValues = tuple[Tensor, Tensor]  # two of (N, heads, S, width of a head)


class _TextCache:
    """The causal text tower over N growing texts."""

    def __init__(self, clip: CLIP) -> None:
        self.clip, self.length = clip, 0
        self.blocks: list[Any] = list(clip.transformer.resblocks)
        self.cache: list[KeysValues | None] = [None] * len(self.blocks)

    def advance(self, tokens: Tensor) -> Tensor:
        """Append a token to each text: (N,) -> its projected hidden state (N, 1, E)."""
        x = (self.clip.token_embedding(tokens) + self.clip.positional_embedding[self.length])[:, None]
        for index, block in enumerate(self.blocks):
            self.cache[index] = kept = _append(self.cache[index], block.keys_values(x))
            x = block.attend(x, *kept)
        self.length += 1
        return self.clip.ln_final(x) @ self.clip.text_projection

    def reorder(self, source: Tensor) -> None:
        """Text n goes on from what was text source[n]."""
        self.cache = [(kept[0][source], kept[1][source]) for kept in self.cache if kept is not None]


class CachedDecoder:
    """Next-token probabilities of K beams for each of B clips (modules/beam_search.py, Scorer).

    A step costs the text tower one token and the fusion encoder two per beam: the token that was added, and the blank
    that predicts the next one. Keys and values of a clip's context are computed once and shared by its beams: the beams
    of a clip are one attention problem, in which each sees the context and its own text alone.

    Args:
        model: in evaluation mode.
        video: clips of the batch.
        beams: K.
    """

    def __init__(self, model: PrefixLMModel, video: VideoTokens, beams: int) -> None:
        self.model, self.beams, self.clips = model, beams, len(video.frames)
        self.text = _TextCache(model.clip)
        context = model.fusion.context(video, frame_positions=model.frame_positions)
        self.context_mask = context.mask
        self.blocks: list[ResidualBlock] = list(model.fusion.blocks)
        self.context_cache = _context_cache(self.blocks, context.tokens, context.mask)
        self.cache: list[KeysValues | None] = [None] * len(self.blocks)

    @torch.no_grad()
    def advance(self, tokens: Tensor) -> Tensor:
        """Append the token of each beam (B, K) and return log-probabilities of the next one (B, K, V), fp32."""
        step = self.text.length
        positions = self.model.fusion.text_positions(step + 2)
        text = self.text.advance(tokens.flatten()).unflatten(0, (self.clips, self.beams))[:, :, 0]
        rows = torch.stack([text + positions[step], positions[step + 1].expand_as(text)], dim=2).flatten(1, 2)
        mask = self._mask(step + 1)
        last = len(self.cache) - 1
        for index in range(len(self.blocks)):
            rows = self._attend(index, rows, mask, only_blanks=index == last)
        return self.model.token_logits(rows).float().log_softmax(-1)

    def _attend(self, index: int, rows: Tensor, mask: Tensor, *, only_blanks: bool) -> Tensor:
        """One fusion block for rows (B, K·2, E): of each beam its new token and its blank, or the blank alone."""
        block = self.blocks[index]
        keys, values = (part.unflatten(2, (self.beams, 2)) for part in block.keys_values(rows))
        new = (keys[..., 0, :], values[..., 0, :])  # (B, heads, K, width)
        self.cache[index] = kept = _append(self.cache[index], (new[0][..., None, :], new[1][..., None, :]), dim=3)
        parts = zip(self.context_cache[index], kept, (keys[..., 1, :], values[..., 1, :]), strict=True)
        all_keys, all_values = (
            torch.cat([context, text.flatten(2, 3), blank], dim=2) for context, text, blank in parts
        )
        if only_blanks:
            rows, mask = rows[:, 1::2], mask[:, :, 1::2]
        return block.attend(rows, all_keys, all_values, mask)

    def _mask(self, length: int) -> Tensor:
        """(B, 1, K·2, C + K·length + K): rows see the context and their own beam; only blanks see themselves."""
        beam = torch.arange(self.beams, device=self.context_mask.device)
        own = beam[:, None] == beam
        text = own[:, None, :, None].expand(-1, 2, -1, length).reshape(2 * self.beams, -1)
        is_blank = torch.tensor([False, True], device=own.device)
        blank = (own[:, None] & is_blank[:, None]).flatten(0, 1)
        inside = torch.cat([text, blank], dim=1)[None].expand(self.clips, -1, -1)
        context = self.context_mask[:, None].expand(-1, 2 * self.beams, -1)
        return torch.cat([context, inside], dim=2)[:, None]

    def reorder(self, source: Tensor) -> None:
        """Beam k of clip b goes on from what was its beam source[b, k]: (B, K)."""
        first = torch.arange(self.clips, device=source.device)[:, None] * self.beams
        self.text.reorder((first + source).flatten())
        for index, kept in enumerate(self.cache):
            assert kept is not None
            where = source[:, None, :, None, None].expand(-1, kept[0].shape[1], -1, *kept[0].shape[3:])
            self.cache[index] = (kept[0].gather(2, where), kept[1].gather(2, where))


def _context_cache(blocks: list[ResidualBlock], tokens: Tensor, mask: Tensor) -> list[KeysValues]:
    """Keys and values of the context in every block; it never sees text."""
    cache = []
    for index, block in enumerate(blocks):
        cache.append(block.keys_values(tokens))
        if index < len(blocks) - 1:
            tokens = block.attend(tokens, *cache[-1], mask[:, None, None])
    return cache


def _append(kept: KeysValues | None, new: KeysValues, dim: int = 2) -> KeysValues:
    if kept is None:
        return new
    return torch.cat([kept[0], new[0]], dim=dim), torch.cat([kept[1], new[1]], dim=dim)
