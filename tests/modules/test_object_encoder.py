"""One token per box: pooled from what the box covers, with its slot, its place and its frame."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.batch import finish_batch
from modules.module_clip import ObjectTokens
from modules.object_encoder import ObjectEncoder
from tests import plain_forms as plain
from tests import tiny
from tests.modules.agreement import assert_same

CORNER = (1.0, 1.0, 7.0, 7.0)  # inside the first patch of 8 x 8 pixels


def encode(encoder: ObjectEncoder, patches: Tensor, boxes: Tensor) -> ObjectTokens:
    """Boxes (3, 4, 4) of one clip."""
    finished = finish_batch({"boxes": boxes[None], "trajectory_ids": torch.zeros(1, 8, dtype=torch.int64)})
    return encoder(patches, finished["boxes"], finished["box_index"])


def one_box(frame: int, slot: int) -> Tensor:
    boxes = torch.full((3, 4, 4), -1.0)
    boxes[frame, slot] = torch.tensor(CORNER)
    return boxes


def made() -> tuple[ObjectEncoder, Tensor]:
    """An encoder, and patches of a clip: three frames of 4 x 4."""
    return tiny.model().object_encoder, torch.randn(3, 16, 64, generator=torch.Generator().manual_seed(0))


def test_first_roi_layer_before_pooling_equals_after():
    model = tiny.model()
    batch, cfg = tiny.batch(3, model.config), model.config
    patches = torch.randn(3 * cfg.max_frames, cfg.grid**2, cfg.vision_width)
    fast = model.object_encoder(patches, batch["boxes"], batch["box_index"])
    slow = plain.object_encoder(model.object_encoder, patches, batch["boxes"])
    assert torch.equal(fast.is_padding, slow.is_padding) and fast.is_padding.any()
    assert_same(fast.tokens, slow.tokens, model)


@torch.no_grad()
def test_a_box_sees_the_patches_under_it_in_its_own_frame():
    encoder, patches = made()
    boxes = one_box(1, 2)
    before = encode(encoder, patches, boxes).tokens[0, 1, 2]
    covered = torch.zeros(3, 16, dtype=torch.bool)
    covered[1, [0, 1, 4, 5]] = True  # the picture is read between patches, so neighbours may count
    noise = torch.randn(patches.shape)
    elsewhere = encode(encoder, torch.where(covered[..., None], patches, noise), boxes).tokens[0, 1, 2]
    torch.testing.assert_close(before, elsewhere)
    under = encode(encoder, torch.where(covered[..., None], noise, patches), boxes).tokens[0, 1, 2]
    assert not torch.allclose(before, under, atol=1e-4)


@torch.no_grad()
def test_an_empty_slot_is_its_slot_and_box_embedding():
    encoder, patches = made()
    found = encode(encoder, patches, one_box(1, 2))
    empty = torch.ones(3, 4, dtype=torch.bool)
    empty[1, 2] = False
    assert torch.equal(found.is_padding[0], empty)
    nowhere = encoder.box_mlp(torch.full((4,), -1.0 / 32))
    torch.testing.assert_close(found.tokens[0][empty], (encoder.slot_embedding + nowhere)[empty])
    assert not torch.allclose(found.tokens[0, 1, 2], (encoder.slot_embedding + nowhere)[1, 2], atol=1e-4)


def test_a_clip_without_boxes_still_reaches_every_parameter():
    encoder, patches = made()
    found = encode(encoder, patches, torch.full((3, 4, 4), -1.0))
    assert found.is_padding.all()
    encoder.with_frame_positions(found).tokens.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())
    assert not encoder.patch_mlp[0].weight.grad.any()


@torch.no_grad()
def test_frame_positions_are_those_of_each_token_s_frame():
    encoder, patches = made()
    found = encode(encoder, patches, one_box(0, 0))
    placed = encoder.with_frame_positions(found)
    assert torch.equal(placed.is_padding, found.is_padding)
    for frame in range(3):
        added = placed.tokens[0, frame] - found.tokens[0, frame]
        torch.testing.assert_close(added, encoder.frame_embedding[frame].expand(4, -1), rtol=1e-3, atol=1e-5)
    assert not hasattr(tiny.model(object_fuse="attention").object_encoder, "frame_embedding")
