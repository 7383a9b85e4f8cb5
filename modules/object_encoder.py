"""One token per detected box, pooled from the patches it covers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers import draw_positions, maybe_checkpoint
from modules.module_clip import ObjectTokens
from modules.parts import Owner
from modules.roi_align import roi_align


class ObjectEncoder(nn.Module):
    """RoIAlign on the patch grid -> two-layer perceptron per cell -> maximum over cells, plus slot and box embeddings.

    `with_frame_positions` adds `frame_embedding` (T, D) for the trajectory and action encoders; tokens that take part
    in the visual tower do without it. The rule is that of the released code's `object_encoder`.
    """

    owners = {"": Owner("objects", "object")}
    reads = {"objects": ("patches",)}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.vision_width
        self.grid, self.resolution = config.grid, config.image_resolution
        self.slot_embedding = nn.Parameter(torch.zeros(config.max_frames, config.object_count, width))
        self.patch_mlp = nn.Sequential(
            nn.Linear(width, width // 2, bias=False), nn.ReLU(), nn.Linear(width // 2, width, bias=False), nn.ReLU()
        )
        self.box_mlp = nn.Sequential(
            nn.Linear(4, width // 2, bias=False), nn.ReLU(), nn.Linear(width // 2, width, bias=False), nn.ReLU()
        )
        # Only where tokens leave the visual tower does anything read the frame embedding.
        if config.object_fuse == "fusion":
            self.frame_embedding = nn.Parameter(torch.empty(config.max_frames, width))
        self.grad_checkpoint = False

    def draw(self) -> None:
        """Initial values of its own parameters; slots start equal."""
        if hasattr(self, "frame_embedding"):
            draw_positions(self.frame_embedding)

    def forward(self, patches: Tensor, boxes: Tensor, box_index: Tensor) -> ObjectTokens:
        """Encode boxes.

        Args:
            patches: (B·T, P, D), one row per patch, without [CLS].
            boxes: (B, T, O, 4), x1 y1 x2 y2 in pixels of the R x R picture; x1 = -1 marks an empty slot.
            box_index: (K,), indices of the K real boxes among the flattened B·T·O slots, so that no empty slot is
                pooled. Found on the host: on the device it would cost a sync.

        Returns:
            ObjectTokens; tokens of empty slots are their slot and box embeddings alone, since their pooled value is 0.
        """
        batch, frames, slots, _ = boxes.shape
        # The first layer and RoIAlign are both linear and bias-free: applied to P patches instead of P cells per box.
        reduced = self.patch_mlp[0](patches)
        flat = boxes.reshape(-1, 4)[box_index]
        frame = torch.div(box_index, slots, rounding_mode="floor")
        pooled = maybe_checkpoint(self.grad_checkpoint, self._pool, reduced, flat, frame)
        tokens = pooled.new_zeros(batch * frames * slots, pooled.shape[-1]).index_copy(0, box_index, pooled)
        tokens = tokens.view(batch, frames, slots, -1)
        tokens = tokens + self.slot_embedding + self.box_mlp(boxes / self.resolution)
        return ObjectTokens(tokens, boxes[..., 0] == -1)

    def _pool(self, reduced: Tensor, boxes: Tensor, frame: Tensor) -> Tensor:
        """Pooled value of K boxes: reduced (B·T, P, D/2), boxes (K, 4), frame (K,) -> (K, D)."""
        cells = roi_align(reduced.float(), boxes * (self.grid / self.resolution), frame)  # (K, P, D/2)
        hidden = self.patch_mlp[2](self.patch_mlp[1](cells))
        # relu and maximum commute; the smaller tensor goes through relu.
        return self.patch_mlp[3](hidden.amax(dim=1).float()) if len(boxes) else hidden.sum(dim=1).float()

    def with_frame_positions(self, objects: ObjectTokens) -> ObjectTokens:
        """Add the embedding of each token's frame."""
        return ObjectTokens(objects.tokens + self.frame_embedding[:, None], objects.is_padding)
