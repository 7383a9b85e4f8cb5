"""One token per trajectory, read from the boxes that share its id across frames."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers import LayerNorm, ResidualBlock, draw_projection, draw_rows
from modules.module_clip import CLIP
from modules.parts import Owner


class TrajectoryEncoder(nn.Module):
    """A [CLS] query attends to the boxes of one trajectory, in one block: the released code runs only its first."""

    # The released rates: the block is fusion's, its query an object's.
    owners = {"": Owner("trajectories", "fusion"), "cls_embedding": Owner("trajectories", "object")}
    reads = {"trajectories": ("objects",)}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.vision_width
        self.cls_embedding = nn.Parameter(torch.empty(1, width))
        self.block = ResidualBlock(width, config.head_width, config.activation)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def draw(self) -> None:
        """Initial values of its own parameters."""
        draw_rows(self.cls_embedding)
        draw_projection(self.proj)

    @staticmethod
    def starts_from(clip: CLIP) -> Mapping[str, nn.Module | nn.Parameter]:
        """What takes its initial values from which part of CLIP."""
        visual = clip.visual
        return {"block": visual.joint_blocks[0], "ln_post": visual.ln_post, "proj": visual.proj}

    def forward(self, object_tokens: Tensor, box_trajectory: Tensor, trajectory_ids: Tensor) -> Tensor:
        """Encode trajectories.

        Keys and values of the box tokens are computed once per clip; a trajectory is one query row with its own mask.

        Args:
            object_tokens: (B, T, O, D).
            box_trajectory: (B, T, O) int64, the trajectory of each box, 0 for an empty slot.
            trajectory_ids: (B, N) int64, 0 for an unused row.

        Returns:
            (B, N, E); rows whose id is 0 carry no meaning.
        """
        batch, trajectories = trajectory_ids.shape
        cls = self.cls_embedding.to(object_tokens.dtype).expand(batch, 1, -1)
        keys, values = self.block.keys_values(torch.cat([cls, object_tokens.flatten(1, 2)], dim=1))
        member = box_trajectory.flatten(1)[:, None] == trajectory_ids[:, :, None]  # (B, N, T·O)
        member = member & (trajectory_ids != 0)[:, :, None]
        mask = torch.cat([member.new_ones(batch, trajectories, 1), member], dim=2)[:, None]
        out = self.block.attend(cls.expand(batch, trajectories, -1), keys, values, mask)
        return self.ln_post(out) @ self.proj
