"""Next-token probabilities, one token at a time, with cached keys and values of the earlier tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.backbone import Backbone
from modules.fusion_encoder import VideoTokens
from modules.heads import VocabularyHead
from modules.layers import ResidualBlock


class _Cache:
    """Keys and values of one block, in buffers that have room for every token to come.

    The beams of a clip are one attention problem: their tokens stand side by side, and masks tell them apart.

    Args:
        slots: tokens that there is room for.
    """

    def __init__(self, block: ResidualBlock, slots: int) -> None:
        self.block, self.slots = block, slots
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def write(self, first: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values (B, heads, S, width) at slots first, first + 1, …; returns those of all slots so far."""
        if self.keys is None or self.values is None:
            batch, heads, _, width = keys.shape
            self.keys = keys.new_empty(batch, heads, self.slots, width)
            self.values = torch.empty_like(self.keys)
        end = first + keys.shape[2]
        self.keys[:, :, first:end] = keys
        self.values[:, :, first:end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]

    def run(self, rows: Tensor, first: int, mask: Tensor | None) -> Tensor:
        """The block on the tokens of slots first, first + 1, …: (B, S, D) -> (B, S, D)."""
        queries, keys, values = self.block.attn.unpack(self.block.project(rows))
        return self.block.finish(rows, queries, *self.write(first, keys, values), mask)

    def run_last(self, rows: Tensor, read: slice, first: int, mask: Tensor) -> Tensor:
        """As `run`, but only the output of the rows `read`; `mask` is theirs."""
        return self.block.attend(rows[:, read], *self.write(first, *self.block.keys_values(rows)), mask)


class CachedDecoder:
    """Next-token probabilities of K beams for each of B clips; a `modules.beam_search.Scorer`.

    A step costs the text tower one token and the fusion encoder two per beam: the token that was added, and the blank
    that predicts the next one. Keys and values of a clip's context are computed once and shared by its beams. A beam is
    a path through the slots of its clip, kept in a mask, so that reordering beams moves no keys and values.

    Slots of the text tower are [K tokens of step 0 | K of step 1 | …]; those of the fusion encoder have the context in
    front and the K blanks behind, where the next step's tokens will stand.

    Args:
        model: in evaluation mode.
        head: of the vocabulary.
        video: clips of the batch.
        beams: K.
        steps: tokens at most that are appended to a beam.
    """

    def __init__(self, model: Backbone, head: VocabularyHead, video: VideoTokens, beams: int, steps: int) -> None:
        self.model, self.head, self.beams, self.step = model, head, beams, 0
        context = model.fusion.context(video)
        self.context_mask, self.context_size = context.mask[:, None], context.tokens.shape[1]
        self.text = [_Cache(block, beams * steps) for block in model.clip.transformer.resblocks]
        fusion_slots = self.context_size + beams * (steps + 1)
        self.fusion = [_Cache(block, fusion_slots) for block in model.fusion.blocks]
        self._read_context(context.tokens)
        self.itself = torch.eye(beams, dtype=torch.bool, device=context.mask.device).expand(len(video.frames), -1, -1)
        self.path = self.itself[:, :, :0]  # (B, K, K·steps), True = token of this beam's text
        rows, words = len(video.frames) * beams, model.config.vocab_size
        self.scores = torch.empty(2, rows, words, device=self.path.device)  # logits and log-probabilities of a step

    def _read_context(self, tokens: Tensor) -> None:
        """Keys and values of the context tokens (B, C, E) in every block; they never see text."""
        for cache in self.fusion[:-1]:
            tokens = cache.run(tokens, 0, self.context_mask[:, None])
        self.fusion[-1].write(0, *self.fusion[-1].block.keys_values(tokens))

    @torch.no_grad()
    def advance(self, tokens: Tensor) -> Tensor:
        """Append tokens (B, K); next-token log-probabilities (B, K, V), fp32, which the next call overwrites."""
        self.path = torch.cat([self.path, self.itself], dim=-1)
        first = self.context_size + self.beams * self.step
        positions = self.model.fusion.text_positions(self.step + 2)
        text = self._text_states(tokens) + positions[self.step]
        rows, mask = torch.cat([text, positions[self.step + 1].expand_as(text)], dim=1), self._mask()
        for cache in self.fusion[:-1]:
            rows = cache.run(rows, first, mask)
        blanks = slice(self.beams, None)
        rows = self.fusion[-1].run_last(rows, blanks, first, mask[:, :, blanks])
        self.step += 1
        return self._logprobs(rows)

    def _logprobs(self, rows: Tensor) -> Tensor:
        """(B, K, E) -> (B, K, V), in buffers that all steps share (see `VocabularyHead.forward`)."""
        logits, logprobs = self.scores
        self.head(rows.flatten(0, 1), self.model.clip.word_vectors, logits)
        return torch.log_softmax(logits, -1, out=logprobs).unflatten(0, rows.shape[:2])

    def _text_states(self, tokens: Tensor) -> Tensor:
        """Append to each text: (B, K) -> projected hidden states of the new tokens (B, K, E)."""
        clip = self.model.clip
        x = clip.embed(tokens, slice(self.step, self.step + 1))
        for cache in self.text:
            x = cache.run(x, self.beams * self.step, self.path[:, None])
        return clip.project(x)

    def _mask(self) -> Tensor:
        """(B, 1, K·2, C + K·(steps + 1)): rows see the context and their own beam; only blanks see themselves."""
        seen = torch.cat([self.context_mask.expand(-1, self.beams, -1), self.path], dim=-1)
        return torch.cat([F.pad(seen, (0, self.beams)), torch.cat([seen, self.itself], dim=-1)], dim=1)[:, None]

    def reorder(self, source: Tensor) -> None:
        """Let beam k of clip b continue its former beam source[b, k]; `source` is (B, K)."""
        self.path = self.path.gather(1, source[..., None].expand_as(self.path))
