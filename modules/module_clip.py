"""CLIP's two towers, with joint space-time attention in the last two visual blocks.

Parameter names are those of OpenAI's archives, so that a CLIP state dict loads without a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers import LayerNorm, Transformer, maybe_checkpoint

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_LOGIT_SCALE = 4.6052  # ln 100, CLIP's bound


class ObjectTokens(NamedTuple):
    """Tokens of the boxes of each frame: tokens (B, T, O, D), is_padding (B, T, O) True = empty slot."""

    tokens: Tensor
    is_padding: Tensor


@dataclass
class ObjectTap:
    """The link between the visual tower and the object encoder.

    Attributes:
        blocks: indices of the blocks whose input patches are encoded.
        encode: patches (B·T, P, D) -> ObjectTokens.
        inject: whether those blocks attend to the tokens (`object_fuse=attention`).
    """

    blocks: tuple[int, ...]
    encode: Callable[[Tensor], ObjectTokens]
    inject: bool


class VisionOutput(NamedTuple):
    """Output of the visual tower: features of the frames, and what the object and action encoders read.

    frame_features (B, T, E); early_tokens (B·T, 1 + P, D), detached, [CLS] first: input of the first joint block;
    objects: the last block's object tokens, or None.
    """

    frame_features: Tensor
    early_tokens: Tensor
    objects: ObjectTokens | None


class VisionTower(nn.Module):
    """ViT whose last two blocks attend over the tokens of all frames, as in the released code."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, patch = config.vision_width, config.patch_size
        self.is_3d = config.linear_patch == "3d"
        if self.is_3d:
            self.conv1: nn.Module = nn.Conv3d(3, width, (3, patch, patch), (1, patch, patch), (1, 0, 0), bias=False)
        else:
            self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.grid**2 + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, config.vision_layers, config.head_width)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))
        self.grad_checkpoint = False
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(1, 3, 1, 1), persistent=False)

    def _patchify(self, video: Tensor) -> Tensor:
        """(B, T, 3, R, R) -> (B·T, 1 + P, D). uint8 is normalised here, on the device; floats already are."""
        batch, frames = video.shape[:2]
        pixels = video.flatten(0, 1)
        if pixels.dtype == torch.uint8:
            pixels = (pixels.float() / 255 - self.pixel_mean) / self.pixel_std
        if self.is_3d:
            pixels = pixels.unflatten(0, (batch, frames)).transpose(1, 2)
            patches = self.conv1(pixels).transpose(1, 2).flatten(0, 1)
        else:
            patches = self.conv1(pixels)
        patches = patches.flatten(2).transpose(1, 2)
        cls = self.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        return self.ln_pre(torch.cat([cls, patches], dim=1) + self.positional_embedding)

    def forward(self, video: Tensor, tap: ObjectTap | None = None, *, features_need_grad: bool = True) -> VisionOutput:
        """Encode video (B, T, 3, R, R), uint8 or normalised floats.

        The last block, ln_post and the projection are computed for the frames' [CLS] tokens only, since nothing else of
        their output is read; with `features_need_grad=False` no graph is kept for them.
        """
        batch, frames = video.shape[:2]
        x = self._patchify(video)
        blocks = self.transformer.resblocks
        first_joint, last = len(blocks) - 2, len(blocks) - 1
        early_tokens = x
        objects = None
        for index, block in enumerate(blocks):
            if index == first_joint:
                early_tokens = x.detach()
            extra = mask = None
            if tap is not None and index in tap.blocks and (tap.inject or index == tap.blocks[-1]):
                objects = tap.encode(x[:, 1:])
                if tap.inject:
                    extra, mask = self._injected(objects, x.shape[1], joint=index >= first_joint)
            if index == last:
                break
            if index >= first_joint:
                joint = x.view(batch, -1, x.shape[-1])
                joint = maybe_checkpoint(self.grad_checkpoint, block, joint, mask, extra_keys=extra)
                x = joint.view_as(x)
            else:
                x = maybe_checkpoint(self.grad_checkpoint, block, x, mask, extra_keys=extra)
        with torch.set_grad_enabled(torch.is_grad_enabled() and features_need_grad):
            tokens = x.view(batch, frames, -1, x.shape[-1])
            cls = blocks[last](tokens.flatten(1, 2), mask, rows=tokens[:, :, 0], extra_keys=extra)
            features = self.ln_post(cls) @ self.proj
        return VisionOutput(features, early_tokens, objects)

    @staticmethod
    def _injected(objects: ObjectTokens, tokens_per_frame: int, joint: bool) -> tuple[Tensor, Tensor]:
        """Object tokens as extra keys of a block, with the key mask over [frame tokens, object tokens]."""
        tokens, padding = objects
        batch, frames, slots, width = tokens.shape
        groups = batch if joint else batch * frames
        extra = tokens.reshape(groups, -1, width)
        visible = ~padding.reshape(groups, -1)
        frame_tokens = visible.new_ones(groups, tokens_per_frame * (frames if joint else 1))
        return extra, torch.cat([frame_tokens, visible], dim=1)[:, None, None]


class CLIP(nn.Module):
    """Vision tower under `visual`, causal text tower beside it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.visual = VisionTower(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.text_width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.text_width))
        self.transformer = Transformer(config.text_width, config.text_layers, config.head_width)
        self.ln_final = LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(torch.empty(config.text_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))  # ln(1 / 0.07), CLIP's start

    def encode_text(self, text_ids: Tensor) -> Tensor:
        """Projected hidden states of all tokens: (B, L) -> (B, L, E); causal, so none sees the padding behind it."""
        x = self.token_embedding(text_ids) + self.positional_embedding[: text_ids.shape[1]]
        x = self.transformer(x, is_causal=True)
        return self.ln_final(x) @ self.text_projection
