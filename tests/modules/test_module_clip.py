"""CLIP's towers: who attends to whom, and how objects enter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.backbone import Backbone
from modules.module_clip import ObjectTap, ObjectTokens
from tests import plain_forms as plain
from tests import tiny
from tests.modules.agreement import assert_same

WITHOUT_OBJECTS = {"need_object": False, "use_action": False}


def objects(batch: int = 2, frames: int = 3, slots: int = 2) -> ObjectTokens:
    """Random tokens; the last slot of every frame is empty."""
    tokens = torch.randn(batch, frames, slots, 64, generator=torch.Generator().manual_seed(0))
    return ObjectTokens(tokens, torch.arange(slots).expand(batch, frames, -1) == slots - 1)


def tap(tokens: ObjectTokens, *blocks: int, inject: bool) -> ObjectTap:
    """Gives these tokens, whatever the patches are."""
    return ObjectTap(blocks, lambda patches: tokens, inject)


def test_last_visual_block_for_cls_rows_equals_all_rows():
    model = tiny.model(need_object=False, use_action=False)
    video = tiny.batch(2, model.config)["video"]
    visual = model.clip.visual
    assert_same(visual(video).frame_features, plain.vision_tower(visual, video, None).frame_features, model)


def test_uint8_video_equals_normalised_video():
    model = tiny.model()
    batch = tiny.batch(2, model.config)
    visual = model.clip.visual
    floats = (batch["video"].float() / 255 - visual.pixel_mean) / visual.pixel_std
    torch.testing.assert_close(visual(batch["video"]).frame_features, visual(floats).frame_features)


@torch.no_grad()
def test_frames_are_apart_until_the_last_two_blocks():
    model = tiny.model(Backbone, **WITHOUT_OBJECTS)
    video = tiny.batch(2, model.config)["video"]
    changed = video.clone()
    changed[:, 2] = 255 - changed[:, 2]
    before, after = model.clip.visual(video), model.clip.visual(changed)
    early = [seen.early_tokens.unflatten(0, (2, 3)) for seen in (before, after)]
    torch.testing.assert_close(early[0][:, :2], early[1][:, :2])
    assert not torch.isclose(early[0][:, 2], early[1][:, 2], atol=1e-3).all(-1).any()
    assert not torch.isclose(before.frame_features[:, :2], after.frame_features[:, :2], atol=1e-3).all(-1).any()


@torch.no_grad()
def test_a_3d_patch_reads_the_frames_beside_its_own():
    model = tiny.model(Backbone, linear_patch="3d", **WITHOUT_OBJECTS)
    video = tiny.batch(1, model.config)["video"]
    changed = video.clone()
    changed[:, 2] = 255 - changed[:, 2]
    before, after = (model.clip.visual(part).early_tokens for part in (video, changed))
    torch.testing.assert_close(before[0], after[0])
    assert not torch.isclose(before[1], after[1], atol=1e-3).all(-1).any()


def test_early_tokens_carry_no_gradient():
    model = tiny.model(Backbone, **WITHOUT_OBJECTS)
    seen = model.clip.visual(tiny.batch(1, model.config)["video"])
    assert not seen.early_tokens.requires_grad and seen.frame_features.requires_grad


def features(model: Backbone, video: Tensor, how: ObjectTap | None) -> Tensor:
    return model.clip.visual(video, how).frame_features


@pytest.mark.parametrize("block", [0, 2, 3])
@torch.no_grad()
def test_injected_objects_are_attended_to_and_empty_slots_are_not(block: int):
    """In a block over one frame, in one over all frames, and in the last."""
    model, found = tiny.model(Backbone, **WITHOUT_OBJECTS), objects()
    video = tiny.batch(2, model.config)["video"]
    noise, empty = torch.randn(found.tokens.shape), found.is_padding[..., None]
    before, padded, seen = (
        features(model, video, tap(found._replace(tokens=tokens), block, inject=True))
        for tokens in (found.tokens, torch.where(empty, noise, found.tokens), torch.where(empty, found.tokens, noise))
    )
    torch.testing.assert_close(before, padded)
    assert not torch.isclose(before, seen, atol=1e-4).all(-1).any()


@torch.no_grad()
def test_objects_that_leave_the_tower_change_no_feature():
    model, found = tiny.model(Backbone, **WITHOUT_OBJECTS), objects()
    video = tiny.batch(2, model.config)["video"]
    seen = model.clip.visual(video, tap(found, 1, inject=False))
    assert seen.objects is found
    assert torch.equal(seen.frame_features, features(model, video, None))


@torch.no_grad()
def test_objects_are_read_from_the_patches_that_enter_the_block():
    model = tiny.model(Backbone, **WITHOUT_OBJECTS)
    batch, read = tiny.batch(2, model.config), []

    def encode(patches: Tensor) -> ObjectTokens:
        read.append(patches)
        return objects()

    seen = model.clip.visual(batch["video"], ObjectTap((2,), encode, inject=False))
    assert len(read) == 1 and torch.equal(read[0], seen.early_tokens[:, 1:])


@torch.no_grad()
def test_a_text_token_sees_none_after_it():
    model = tiny.model(Backbone, **WITHOUT_OBJECTS)
    ids = tiny.batch(2, model.config, words=8)["text_ids"]
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 90
    before, after = model.encode_text(ids), model.encode_text(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:], atol=1e-4).all(-1).any()
