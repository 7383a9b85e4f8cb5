"""A set of action tokens, pooled by learned queries from patches and object tokens of each frame."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers import LayerNorm, ResidualBlock, draw_projection, draw_rows
from modules.module_clip import CLIP, ObjectTokens
from modules.parts import Owner


class ActionEncoder(nn.Module):
    """Per frame, action queries pool patches and object tokens; a two-block transformer reads each action over time.

    As in the released code (`object_action`, `object_act_fusion`), the frame and slot embeddings of the object tokens
    alone tell the order of frames.
    """

    # The released rates: the blocks are fusion's, the queries an object's (--action_lr is one for both). Patches reach
    # it detached.
    owners = {"": Owner("actions", "fusion"), "queries": Owner("actions", "object")}
    reads = {"actions": ("objects",)}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.vision_width
        self.queries = nn.Parameter(torch.empty(config.num_actions, width))
        self.blocks = nn.ModuleList(ResidualBlock(width, config.head_width, config.activation) for _ in range(2))
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def draw(self) -> None:
        """Initial values of its own parameters."""
        draw_rows(self.queries)
        draw_projection(self.proj)

    @staticmethod
    def starts_from(clip: CLIP) -> Mapping[str, nn.Module | nn.Parameter]:
        """What takes its initial values from which part of CLIP."""
        visual = clip.visual
        return {"blocks": visual.joint_blocks, "ln_post": visual.ln_post, "proj": visual.proj}

    def forward(self, early_tokens: Tensor, objects: ObjectTokens) -> Tensor:
        """Encode actions.

        Args:
            early_tokens: (B·T, 1 + P, D), detached frame tokens, [CLS] first.
            objects: tokens (B, T, O, D) with their frame embedding.

        Returns:
            (B, A, E).
        """
        sequence = self._over_time(early_tokens, objects)
        out = self.blocks[1](sequence, rows=sequence[:, :1])[:, 0]
        return (self.ln_post(out) @ self.proj).view(len(objects.tokens), -1, self.proj.shape[1])

    def source_weights(self, early_tokens: Tensor, objects: ObjectTokens) -> Tensor:
        """Attention weights of the action queries over each frame's patches and object tokens.

        Args:
            early_tokens, objects: as in `forward`.

        Returns:
            (B·T, A, P + O) fp32 over patches, then object slots; each row sums to 1, and an empty slot has 0.
        """
        sources, visible = self._sources(early_tokens, objects)
        with torch.autocast(sources.device.type, enabled=False):
            scores = self.queries.float() @ sources.float().transpose(1, 2)
            return scores.masked_fill(~visible[:, None], float("-inf")).softmax(-1)

    def frame_weights(self, early_tokens: Tensor, objects: ObjectTokens) -> Tensor:
        """Attention weights of each action over the frames: first row of the last block, mean over its heads.

        Args:
            early_tokens, objects: as in `forward`.

        Returns:
            (B, A, 1 + T) fp32 over the mean of the frames' [CLS] tokens, then the T frames; each row sums to 1.
        """
        sequence = self._over_time(early_tokens, objects)
        last = self.blocks[1]
        assert isinstance(last, ResidualBlock)
        weights = last.row_weights(sequence, sequence[:, :1])  # (B·A, heads, 1, 1 + T)
        return weights.mean(dim=1)[:, 0].view(len(objects.tokens), -1, sequence.shape[1])

    def _over_time(self, early_tokens: Tensor, objects: ObjectTokens) -> Tensor:
        """Input of the last block for each action: mean [CLS] of the frames, one token per frame: (B·A, 1 + T, D)."""
        batch, frames, _, width = objects.tokens.shape
        frame_cls = early_tokens[:, 0].view(batch, frames, width)
        pooled = self._pool(*self._sources(early_tokens, objects)).view(batch, frames, -1, width).transpose(1, 2)
        video_cls = frame_cls.mean(dim=1)[:, None, None].expand(-1, pooled.shape[1], 1, -1)
        return self.blocks[0](torch.cat([video_cls, pooled], dim=2).flatten(0, 1))

    @staticmethod
    def _sources(early_tokens: Tensor, objects: ObjectTokens) -> tuple[Tensor, Tensor]:
        """Patches and object tokens of each frame (B·T, P + O, D), and which of them exist (B·T, P + O)."""
        patches = early_tokens[:, 1:]
        visible = ~objects.is_padding.flatten(0, 1)
        visible = torch.cat([visible.new_ones(patches.shape[:2]), visible], dim=1)
        return torch.cat([patches, objects.tokens.flatten(0, 1)], dim=1), visible

    def _pool(self, sources: Tensor, visible: Tensor) -> Tensor:
        """softmax(q·k) without the 1/sqrt(D) and in fp32, as released: (B·T, P + O, D) -> (B·T, A, D)."""
        with torch.autocast(sources.device.type, enabled=False):
            keys = sources.float()
            queries = self.queries.float().expand(keys.shape[0], -1, -1)
            return F.scaled_dot_product_attention(queries, keys, keys, attn_mask=visible[:, None], scale=1.0)
