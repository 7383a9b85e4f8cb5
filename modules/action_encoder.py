"""A set of action tokens, pooled by learned queries from patches and object tokens of each frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers import LayerNorm, ResidualBlock
from modules.module_clip import ObjectTokens


class ActionEncoder(nn.Module):
    """Per frame, action queries pool patches and object tokens; a two-block transformer reads each action over time.

    Frame order enters through the object tokens' frame embedding alone. Source: spec, action encoder.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.vision_width
        self.queries = nn.Parameter(torch.empty(config.num_actions, width))
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(2))
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def forward(self, early_tokens: Tensor, objects: ObjectTokens) -> Tensor:
        """Encode actions.

        Args:
            early_tokens: (B·T, 1 + P, D), detached frame tokens, [CLS] first.
            objects: tokens (B, T, O, D) with their frame embedding.

        Returns:
            (B, A, E).
        """
        batch, frames, slots, width = objects.tokens.shape
        patches, frame_cls = early_tokens[:, 1:], early_tokens[:, 0].view(batch, frames, width)
        sources = torch.cat([patches, objects.tokens.flatten(0, 1)], dim=1)
        visible = ~objects.is_padding.flatten(0, 1)
        visible = torch.cat([visible.new_ones(batch * frames, patches.shape[1]), visible], dim=1)
        pooled = self._pool(sources, visible).view(batch, frames, -1, width).transpose(1, 2)  # (B, A, T, D)
        video_cls = frame_cls.mean(dim=1)[:, None, None].expand(-1, pooled.shape[1], 1, -1)
        sequence = torch.cat([video_cls, pooled], dim=2).flatten(0, 1)  # (B·A, 1 + T, D)
        sequence = self.blocks[0](sequence)
        out = self.blocks[1](sequence, rows=sequence[:, :1])[:, 0]
        return (self.ln_post(out) @ self.proj).view(batch, -1, self.proj.shape[1])

    def _pool(self, sources: Tensor, visible: Tensor) -> Tensor:
        """softmax(q·k) without the 1/sqrt(D) and in fp32, as released: (B·T, S, D) -> (B·T, A, D)."""
        with torch.autocast(sources.device.type, enabled=False):
            keys = sources.float()
            queries = self.queries.float().expand(keys.shape[0], -1, -1)
            return F.scaled_dot_product_attention(queries, keys, keys, attn_mask=visible[:, None], scale=1.0)
