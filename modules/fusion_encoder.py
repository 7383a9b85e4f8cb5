"""Self-attention over frames, trajectories, actions and text. The one place that knows layout, masks and positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.config import Behaviour, ModelConfig
from modules.layers import ResidualBlock, draw_positions
from modules.module_clip import CLIP
from modules.parts import Owner


class VideoTokens(NamedTuple):
    """Inputs of the fusion encoder from B clips.

    frames (B, T, E); frame_mask (B, T) True = valid; trajectories (B, N, E) with trajectory_mask (B, N) True = used,
    and actions (B, A, E), or None where the model has none. further (B, M, E) with further_mask (B, M) True = used:
    tokens of encoders beside these (`Backbone.ENCODERS`), or None.
    """

    frames: Tensor
    frame_mask: Tensor
    trajectories: Tensor | None
    trajectory_mask: Tensor | None
    actions: Tensor | None
    further: Tensor | None = None
    further_mask: Tensor | None = None

    def select(self, index: Tensor) -> VideoTokens:
        """Clips `index` of the batch."""
        return self.apply(lambda part: part[index])

    def apply(self, function: Callable[[Tensor], Tensor]) -> VideoTokens:
        """Apply a function to every part that is not None."""
        frames, mask, *rest = self
        return VideoTokens(
            function(frames), function(mask), *(None if part is None else function(part) for part in rest)
        )


def pad_columns(x: Tensor, columns: int) -> Tensor:
    """Append zeros (False): (B, C, ...) -> (B, columns, ...)."""
    return F.pad(x, (0, 0) * (x.ndim - 2) + (0, columns - x.shape[1]))


def join(parts: Sequence[VideoTokens]) -> VideoTokens:
    """Concatenate the clips of several batches, padded to the largest number of trajectories among them."""

    def whole(column: tuple[Tensor | None, ...]) -> Any:
        rows = [part for part in column if part is not None]
        widest = max((part.shape[1] for part in rows), default=0)
        return torch.cat([pad_columns(part, widest) for part in rows]) if rows else None

    return VideoTokens(*map(whole, zip(*parts, strict=True)))


class Context(NamedTuple):
    """Clips without text: tokens (B, C, E) with positions added; mask (B, C), True = may be attended."""

    tokens: Tensor
    mask: Tensor


class Projected(NamedTuple):
    """Tokens of items that take part in many pairs, with the first block's queries, keys and values computed once.

    tokens (B, S, E), positions added; packed (B, S, 3·E); mask (B, S), True = may be attended.
    """

    tokens: Tensor
    packed: Tensor
    mask: Tensor

    def select(self, index: Tensor, length: int) -> Projected:
        """Items `index`, cut to their first `length` tokens."""
        return Projected(self.tokens[index, :length], self.packed[index, :length], self.mask[index, :length])


class FusionEncoder(nn.Module):
    """Bidirectional and prefix-causal passes over `[frames, frame mean, actions, further, trajectories, text]`.

    Position rows are those of the released layout `[frames, frame mean, trajectories, actions, text]`, absent parts
    left out: T + 1 + N + A + L rows. The order of the columns differs: trajectories stand last in the context, so that
    unused ones can be cut off. Columns that a batch trims away (these, and text padding) shift no position. As in the
    released code, the frame mean and the end token are separators without a position in bidirectional passes. Further
    tokens have no row of the table: an encoder that wants positions adds its own.
    """

    owners = {"": Owner("fusion", "fusion")}

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__()
        self.max_frames = config.max_frames
        self.trajectory_start = config.max_frames + 1
        self.action_start = self.trajectory_start + (config.num_trajectories if config.has_trajectories else 0)
        self.text_start = self.action_start + (config.num_actions if config.has_actions else 0)
        self.shifted_frame_mask = behaviour.shifted_frame_mask
        self.blocks: Any = nn.ModuleList(
            ResidualBlock(config.embed_dim, config.text_heads_width, config.activation)
            for _ in range(config.fusion_layers)
        )
        self.positional_embedding = nn.Parameter(torch.empty(config.fusion_positions, config.embed_dim))

    def draw(self) -> None:
        """Initial values of its own parameters."""
        draw_positions(self.positional_embedding)

    @staticmethod
    def starts_from(clip: CLIP) -> Mapping[str, nn.Module | nn.Parameter]:
        """What takes its initial values from which part of CLIP."""
        return {"blocks": clip.transformer.resblocks, "positional_embedding": clip.positional_embedding}

    def context(self, video: VideoTokens, *, frame_positions: bool = True, hidden: Tensor | None = None) -> Context:
        """The sequence without text: frames, frame mean, actions, further tokens, trajectories, with their positions.

        Args:
            frame_positions: False: frames have no positions, as in the released prefix-LM loss.
            hidden: (B,), True = nothing but the trajectories of this clip may be attended.
        """
        frames, positions = video.frames, self.positional_embedding
        valid = video.frame_mask[..., None].to(frames.dtype)
        mean = (frames * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)
        if frame_positions:
            frames = frames + positions[: self.max_frames]
        parts = [frames, mean]
        masks = [self._frame_mask(video.frame_mask)]
        if video.actions is not None:
            parts.append(video.actions + positions[self.action_start : self.text_start])
            masks.append(video.frame_mask.new_ones(video.actions.shape[:2]))
        if video.further is not None and video.further_mask is not None:
            parts.append(video.further)
            masks.append(video.further_mask)
        if hidden is not None:
            masks = [mask & ~hidden[:, None] for mask in masks]
        if video.trajectories is not None and video.trajectory_mask is not None:
            rows = positions[self.trajectory_start :][: video.trajectories.shape[1]]
            parts.append(video.trajectories + rows)
            masks.append(video.trajectory_mask)
        return Context(torch.cat(parts, dim=1), torch.cat(masks, dim=1))

    def _frame_mask(self, frame_mask: Tensor) -> Tensor:
        """Key mask of [frames, mean]: (B, T) -> (B, T + 1); the released one repeats the first frame's in front."""
        if self.shifted_frame_mask:
            return torch.cat([frame_mask[:, :1], frame_mask], dim=1)
        return torch.cat([frame_mask, torch.ones_like(frame_mask[:, :1])], dim=1)

    def forward(self, context: Context, text: Tensor, text_mask: Tensor, end: Tensor, rows: Tensor) -> Tensor:
        """Bidirectional pass; the last block is run for the rows that are read.

        Args:
            text: (B, L, E), without positions.
            text_mask: (B, L), True = token.
            end: (B,), index of the end token in the text.
            rows: (B, R), indices into the sequence `[context, text]`: see `mean_row` and `text_rows`.

        Returns:
            (B, R, E).
        """
        sequence = torch.cat([context.tokens, self._place(text, end)], dim=1)
        return self._run(sequence, torch.cat([context.mask, text_mask], dim=1)[:, None, None], rows)

    def matching_rows(self, video: VideoTokens, text: Tensor, text_mask: Tensor, lengths: Tensor) -> Tensor:
        """Rows of the frame mean and of the end token of K pairs, which the matching head reads: (K, 2, E).

        Args:
            text, text_mask: as in `forward`.
            lengths: (K,) tokens of each text, start and end included.
        """
        context = self.context(video)
        end = lengths - 1
        rows = torch.stack([torch.full_like(end, self.mean_row), self.text_rows(context, end)], dim=1)
        return self(context, text, text_mask, end, rows)

    def text_positions(self, length: int) -> Tensor:
        """Position rows of the first `length` text tokens: (length, E)."""
        return self.positional_embedding[self.text_start : self.text_start + length]

    def slot(self, context: Context, text: Tensor, text_mask: Tensor, end: Tensor, index: int) -> Tensor:
        """Bidirectional pass with an answer slot behind every text; only the slot's output is computed.

        The slot's token is the position of text token `index` alone, and all tokens may attend to it.

        Args:
            text, text_mask, end: as in `forward`.

        Returns:
            (B, E), the slot's output.
        """
        blank = self.text_positions(index + 1)[-1].expand(len(text), 1, -1)
        sequence = torch.cat([context.tokens, self._place(text, end), blank], dim=1)
        mask = torch.cat([context.mask, text_mask, torch.ones_like(text_mask[:, :1])], dim=1)
        last = torch.full_like(end, sequence.shape[1] - 1)
        return self._run(sequence, mask[:, None, None], last[:, None])[:, 0]

    def _place(self, text: Tensor, end: Tensor) -> Tensor:
        """Text tokens (B, L, E) with their positions; the end token has none."""
        positions = self.text_positions(text.shape[1])
        is_end = torch.arange(text.shape[1], device=text.device) == end[:, None]
        return text + positions * ~is_end[..., None]

    def project_context(self, context: Context) -> Projected:
        """Prepare clips for `pair_rows`."""
        return Projected(context.tokens, self.blocks[0].project(context.tokens), context.mask)

    def project_text(self, text: Tensor, text_mask: Tensor, end: Tensor) -> Projected:
        """Prepare texts for `pair_rows`; arguments as in `forward`."""
        tokens = self._place(text, end)
        return Projected(tokens, self.blocks[0].project(tokens), text_mask)

    def pair_rows(self, context: Projected, text: Projected, end: Tensor) -> Tensor:
        """Frame-mean row and end-token row of pairs whose parts are prepared.

        The same as `forward` on those rows. Within a block, normalisation and the three projections see one token at a
        time, so the first block's are shared by all pairs of an item.

        Args:
            context, text: K items each, pair i made of context i and text i.
            end: (K,), index of the end token in the text.

        Returns:
            (K, 2, E).
        """
        joined = [torch.cat(parts, dim=1) for parts in zip(context, text, strict=True)]
        tokens, packed, mask = joined[0], joined[1], joined[2][:, None, None]
        rows = torch.stack([torch.full_like(end, self.mean_row), context.tokens.shape[1] + end], dim=1)
        first = self.blocks[0]
        if len(self.blocks) == 1:
            return first.attend(_pick(tokens, rows), *first.attn.unpack(packed)[1:], mask)
        return self._run(first.complete(tokens, packed, mask), mask, rows, done=1)

    @property
    def mean_row(self) -> int:
        """Row of the frame mean in every sequence."""
        return self.max_frames

    def text_rows(self, context: Context, index: Tensor) -> Tensor:
        """Rows of text positions `index` in `[context, text]` (the context may have been trimmed)."""
        return context.tokens.shape[1] + index

    def _run(self, sequence: Tensor, mask: Tensor, rows: Tensor, done: int = 0) -> Tensor:
        """All blocks but the first `done`; the last one for `rows` alone."""
        for block in self.blocks[done:-1]:
            sequence = block(sequence, mask)
        if mask.shape[2] > 1:
            mask = mask.expand(rows.shape[0], -1, -1, -1).gather(
                2, rows[:, None, :, None].expand(-1, 1, -1, mask.shape[-1])
            )
        return self.blocks[-1](sequence, mask, rows=_pick(sequence, rows))

    def next_token(self, context: Context, text: Tensor) -> Tensor:
        """Prefix-LM pass: row i is the prediction of token i + 1 given the context and tokens 0..i.

        One pass over `[context | content 0..L-2 | blank queries 1..L-1]` instead of one pass per target. Step i of the
        plain form shows content up to i and a blank (position only) at i + 1; the context never sees text and content
        is causal, so every step's rows are rows of this one sequence. The end token has its position here.

        Args:
            text: (B, L, E), without positions, causal.

        Returns:
            (B, L - 1, E).
        """
        batch, length, width = text.shape
        positions = self.text_positions(length)
        content = text[:, :-1] + positions[:-1]
        blanks = positions[1:].expand(batch, -1, -1)
        sequence = torch.cat([context.tokens, content, blanks], dim=1)
        mask = self._prefix_mask(context.mask, length - 1)
        first_blank = sequence.shape[1] - (length - 1)
        rows = torch.arange(first_blank, sequence.shape[1], device=text.device).expand(batch, -1)
        return self._run(sequence, mask, rows)

    @staticmethod
    def _prefix_mask(context_mask: Tensor, steps: int) -> Tensor:
        """(B, C) -> (B, 1, C + 2·steps, C + 2·steps), True = may be attended."""
        batch, size = context_mask.shape
        total = size + 2 * steps
        causal = torch.ones(steps, steps, dtype=torch.bool, device=context_mask.device).tril()
        mask = torch.zeros(batch, total, total, dtype=torch.bool, device=context_mask.device)
        mask[:, :, :size] = context_mask[:, None]
        mask[:, size : size + steps, size : size + steps] = causal
        mask[:, size + steps :, size : size + steps] = causal
        mask[:, size + steps :, size + steps :] = torch.eye(steps, dtype=torch.bool, device=context_mask.device)
        return mask[:, None]


def _pick(sequence: Tensor, rows: Tensor) -> Tensor:
    """Gather rows of each sequence: (B, S, E), (B, R) -> (B, R, E)."""
    return sequence.gather(1, rows[..., None].expand(-1, -1, sequence.shape[-1]))
