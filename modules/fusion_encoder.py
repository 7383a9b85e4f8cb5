"""Self-attention over frames, trajectories, actions and text. The one place that knows layout, masks and positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from modules.config import Behaviour, ModelConfig
from modules.layers import ResidualBlock


class VideoTokens(NamedTuple):
    """What the fusion encoder sees of a clip.

    frames (B, T, E); frame_mask (B, T) True = valid; trajectories (B, N, E) with trajectory_mask (B, N) True = used,
    and
    actions (B, A, E), or None where the model has none.
    """

    frames: Tensor
    frame_mask: Tensor
    trajectories: Tensor | None
    trajectory_mask: Tensor | None
    actions: Tensor | None

    def select(self, index: Tensor) -> VideoTokens:
        """Clips `index` of the batch."""

        def pick(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[index]

        return VideoTokens(
            self.frames[index],
            self.frame_mask[index],
            pick(self.trajectories),
            pick(self.trajectory_mask),
            pick(self.actions),
        )


class Context(NamedTuple):
    """tokens (B, C, E) with positions added; mask (B, C), True = may be attended."""

    tokens: Tensor
    mask: Tensor


class FusionEncoder(nn.Module):
    """Bidirectional and prefix-causal passes over `[frames, frame mean, trajectories, actions, text]`.

    Position rows are fixed by the full layout, S = T + 1 + 2·O + A + L with absent parts left out; columns that a
    batch trims
    away (unused trajectories, text padding) do not shift the others. In bidirectional passes the frame mean and the
    end token
    act as separators and get no position. Source: spec, text and fusion encoders.
    """

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__()
        self.max_frames = config.max_frames
        self.trajectory_start = config.max_frames + 1
        self.action_start = self.trajectory_start + (config.num_trajectories if config.has_trajectories else 0)
        self.text_start = self.action_start + (config.num_actions if config.has_actions else 0)
        self.shifted_frame_mask = behaviour.shifted_frame_mask
        self.blocks = nn.ModuleList(ResidualBlock(config.embed_dim) for _ in range(config.fusion_layers))
        self.positional_embedding = nn.Parameter(torch.empty(config.fusion_positions, config.embed_dim))

    def context(self, video: VideoTokens, *, frame_positions: bool = True) -> Context:
        """Everything but text. `frame_positions=False`: frames have no positions, as in the released prefix-LM loss."""
        frames, positions = video.frames, self.positional_embedding
        valid = video.frame_mask[..., None].to(frames.dtype)
        mean = (frames * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)
        if frame_positions:
            frames = frames + positions[: self.max_frames]
        parts = [frames, mean]
        masks = [self._frame_mask(video.frame_mask)]
        if video.trajectories is not None and video.trajectory_mask is not None:
            rows = positions[self.trajectory_start :][: video.trajectories.shape[1]]
            parts.append(video.trajectories + rows)
            masks.append(video.trajectory_mask)
        if video.actions is not None:
            parts.append(video.actions + positions[self.action_start : self.text_start])
            masks.append(video.frame_mask.new_ones(video.actions.shape[:2]))
        return Context(torch.cat(parts, dim=1), torch.cat(masks, dim=1))

    def _frame_mask(self, frame_mask: Tensor) -> Tensor:
        """Key mask of [frames, mean]: (B, T) -> (B, T + 1). The released layout repeats the first frame's entry in
        front.
        """
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
        positions = self.positional_embedding[self.text_start :][: text.shape[1]]
        is_end = torch.arange(text.shape[1], device=text.device) == end[:, None]
        text = text + positions * ~is_end[..., None]
        sequence = torch.cat([context.tokens, text], dim=1)
        mask = torch.cat([context.mask, text_mask], dim=1)[:, None, None]
        return self._run(sequence, mask, rows)

    @property
    def mean_row(self) -> int:
        """Row of the frame mean in every sequence."""
        return self.max_frames

    def text_rows(self, context: Context, index: Tensor) -> Tensor:
        """Rows of text positions `index` in `[context, text]` (the context may have been trimmed)."""
        return context.tokens.shape[1] + index

    def _run(self, sequence: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        for block in self.blocks[:-1]:
            sequence = block(sequence, mask)
        picked = sequence.gather(1, rows[..., None].expand(-1, -1, sequence.shape[-1]))
        if mask.shape[2] > 1:
            mask = mask.expand(rows.shape[0], -1, -1, -1).gather(
                2, rows[:, None, :, None].expand(-1, 1, -1, mask.shape[-1])
            )
        return self.blocks[-1](sequence, mask, rows=picked)

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
        positions = self.positional_embedding[self.text_start :][:length]
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
