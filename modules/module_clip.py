"""CLIP's two towers, with joint space-time attention in the last two visual blocks.

Parameter names are those of OpenAI's archives, so that a CLIP state dict loads without a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers import LayerNorm, Transformer, draw_positions, draw_projection, draw_rows, maybe_checkpoint
from modules.parts import Owner

MAX_LOGIT_SCALE = math.log(100)  # CLIP's bound


class ObjectTokens(NamedTuple):
    """Tokens of the boxes of each frame: tokens (B, T, O, D), is_padding (B, T, O) True = empty slot."""

    tokens: Tensor
    is_padding: Tensor


EncodeObjects = Callable[[Tensor], ObjectTokens]  # of patches (B·T, P, D)


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
            self.conv1: nn.Conv2d | nn.Conv3d = nn.Conv3d(
                3, width, (3, patch, patch), (1, patch, patch), (1, 0, 0), bias=False
            )
        else:
            self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.grid**2 + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, config.vision_layers, config.head_width, config.activation)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))
        self.grad_checkpoint = False
        self.object_blocks = config.object_blocks
        self.objects_take_part = config.object_fuse == "attention"
        self.reads = {"frames": ("patches", "objects") if self.objects_take_part else ("patches",)}
        self.owners = self._owners()
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(1, 3, 1, 1), persistent=False)

    def _owners(self) -> dict[str, Owner]:
        """What lies below the patches that objects are read from is a part of its own: objects train it too."""
        frames, patches = Owner("frames", "clip"), Owner("patches", "clip")
        if self.objects_take_part or not self.object_blocks:
            return {"": frames}
        below = ["conv1", "class_embedding", "positional_embedding", "ln_pre"]
        below += [f"transformer.resblocks.{index}" for index in range(self.object_blocks[-1])]
        return {"": frames, **dict.fromkeys(below, patches)}

    def draw(self) -> None:
        """Initial values of its own parameters."""
        draw_rows(self.class_embedding)
        draw_positions(self.positional_embedding)
        draw_projection(self.proj)

    @property
    def joint_blocks(self) -> nn.ModuleList:
        """The last two blocks, which attend over the tokens of all frames."""
        return self.transformer.resblocks[-2:]

    def _patchify(self, video: Tensor) -> Tensor:
        """(B, T, 3, R, R) -> (B·T, 1 + P, D). uint8 is normalised here, on the device; floats already are."""
        pixels = video.flatten(0, 1)
        if pixels.dtype == torch.uint8:
            pixels = (pixels.float() / 255 - self.pixel_mean) / self.pixel_std
        if self.is_3d:
            over_time = self.conv1(pixels.unflatten(0, video.shape[:2]).transpose(1, 2))
            patches = over_time.transpose(1, 2).flatten(0, 1).flatten(2).transpose(1, 2)
        else:
            patches = self._project_patches(pixels)
        cls = self.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        return self.ln_pre(torch.cat([cls, patches], dim=1) + self.positional_embedding)

    def _project_patches(self, pixels: Tensor) -> Tensor:
        """The patch layer as one product, (N, 3, R, R) -> (N, P, D): patches do not overlap.

        On a CPU it takes two thirds of the convolution's time with a small model, backward pass included, and nine
        tenths with ViT-B/16.
        """
        weight = self.conv1.weight
        side = weight.shape[-1]
        rows, columns = pixels.shape[-2] // side, pixels.shape[-1] // side
        whole = pixels[..., : rows * side, : columns * side]  # as a convolution, which drops what is left over
        patches = whole.unflatten(-2, (rows, side)).unflatten(-1, (columns, side)).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.flatten(3).flatten(1, 2), weight.flatten(1))

    def forward(
        self, video: Tensor, encode_objects: EncodeObjects | None = None, *, features_need_grad: bool = True
    ) -> VisionOutput:
        """Encode video (B, T, 3, R, R), uint8 or normalised floats.

        `encode_objects` reads the patches that enter the blocks of `ModelConfig.object_blocks`; with
        `object_fuse=attention` those blocks attend to its tokens.

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
            if encode_objects is not None and index in self._blocks_that_encode():
                objects = encode_objects(x[:, 1:])
                if self.objects_take_part:
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

    def _blocks_that_encode(self) -> tuple[int, ...]:
        """Tokens that leave the tower are those of the last block alone."""
        return self.object_blocks if self.objects_take_part else self.object_blocks[-1:]

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

    owners = {
        "": Owner("text", "clip"),
        "token_embedding": Owner("words", "clip"),
        "logit_scale": Owner("temperature", "clip"),
    }
    reads = {"text": ("words",)}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.visual = VisionTower(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.text_width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.text_width))
        self.transformer = Transformer(
            config.text_width, config.text_layers, config.text_heads_width, config.activation
        )
        self.ln_final = LayerNorm(config.text_width)
        self.text_projection = nn.Parameter(torch.empty(config.text_width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))  # ln(1 / 0.07), CLIP's start

    def draw(self) -> None:
        """Initial values of its own parameters; the logit scale starts as CLIP's did."""
        draw_positions(self.positional_embedding)
        draw_projection(self.text_projection)

    def clamp_logit_scale(self) -> None:
        """Keep the logit scale within CLIP's bound."""
        self.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)

    def lower_parameters(self, blocks: int) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of the first `blocks` blocks of both towers and of all that is below them, by name.

        Not below: what follows the blocks, the logit scale, and a patch layer with a time axis, which CLIP's weights
        do not have.
        """
        above = ("ln_final.", "text_projection", "logit_scale", "visual.ln_post.", "visual.proj")
        for name, parameter in self.named_parameters():
            block = name.partition("resblocks.")[2].partition(".")[0]
            is_3d_patch_layer = name.startswith("visual.conv1.") and self.visual.is_3d
            if not (name.startswith(above) or (block and int(block) >= blocks) or is_3d_patch_layer):
                yield name, parameter

    def encode_text(self, text_ids: Tensor) -> Tensor:
        """Projected hidden states of all tokens: (B, L) -> (B, L, E); causal, so none sees the padding behind it."""
        x = self.embed(text_ids, slice(text_ids.shape[1]))
        return self.project(self.transformer(x, is_causal=True))

    @property
    def word_vectors(self) -> Tensor:
        """Embedding of each token, which vocabulary heads share: (V, text width)."""
        return self.token_embedding.weight

    def embed(self, text_ids: Tensor, positions: slice) -> Tensor:
        """Input of the text tower's first block: (B, L) -> (B, L, text width)."""
        return self.token_embedding(text_ids) + self.positional_embedding[positions]

    def project(self, x: Tensor) -> Tensor:
        """From the output of the text tower's last block to the joint space: (B, L, text width) -> (B, L, E)."""
        return self.ln_final(x) @ self.text_projection
