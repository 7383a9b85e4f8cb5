"""CLIP's towers: who attends to whom, and how objects enter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.backbone import Backbone
from modules.module_clip import EncodeObjects, ObjectTokens
from tests import plain_forms as plain
from tests import tiny
from tests.modules.agreement import assert_same

WITHOUT_OBJECTS = {"need_object": False, "use_action": False}


def objects(batch: int = 2, frames: int = 3, slots: int = 2) -> ObjectTokens:
    """Random tokens; the last slot of every frame is empty."""
    tokens = torch.randn(batch, frames, slots, 64, generator=torch.Generator().manual_seed(0))
    return ObjectTokens(tokens, torch.arange(slots).expand(batch, frames, -1) == slots - 1)


def reading(fuse: str, layer: int) -> Backbone:
    """A model that reads objects at a block, from 1."""
    return tiny.model(Backbone, object_fuse=fuse, object_layer=layer, use_action=False)


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


@pytest.mark.parametrize("height, width", [(32, 32), (37, 45)], ids=["whole patches", "some pixels left over"])
def test_the_patch_layer_equals_its_convolution(height: int, width: int):
    visual = tiny.model(Backbone, **WITHOUT_OBJECTS).clip.visual
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    found, expected = visual._project_patches(pixels), visual.conv1(pixels).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    wanted = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((patches * wanted).sum(), visual.conv1.weight)[0] for patches in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


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


def features(model: Backbone, video: Tensor, encode: EncodeObjects | None) -> Tensor:
    return model.clip.visual(video, encode).frame_features


@pytest.mark.parametrize("layer", [1, 3, 4])
@torch.no_grad()
def test_objects_that_take_part_are_attended_to_and_empty_slots_are_not(layer: int):
    """In a block over one frame, in one over all frames, and in the last."""
    model, found = reading("attention", layer), objects()
    video = tiny.batch(2, model.config)["video"]
    noise, empty = torch.randn(found.tokens.shape), found.is_padding[..., None]
    before, padded, seen = (
        features(model, video, lambda patches, tokens=tokens: found._replace(tokens=tokens))
        for tokens in (found.tokens, torch.where(empty, noise, found.tokens), torch.where(empty, found.tokens, noise))
    )
    torch.testing.assert_close(before, padded)
    assert not torch.isclose(before, seen, atol=1e-4).all(-1).any()


@torch.no_grad()
def test_objects_that_leave_the_tower_change_no_feature():
    model, found = reading("fusion", 2), objects()
    video = tiny.batch(2, model.config)["video"]
    seen = model.clip.visual(video, lambda patches: found)
    assert seen.objects is found
    assert torch.equal(seen.frame_features, features(model, video, None))


@pytest.mark.parametrize(("fuse", "layer", "times"), [("fusion", 3, 1), ("fusion", -3, 1), ("attention", -3, 3)])
@torch.no_grad()
def test_objects_are_read_from_the_patches_that_enter_the_block(fuse: str, layer: int, times: int):
    """Those that leave the tower once, at the last of the blocks; those that take part at every one."""
    model = reading(fuse, layer)
    batch, read = tiny.batch(2, model.config), []

    def encode(patches: Tensor) -> ObjectTokens:
        read.append(patches)
        return objects()

    seen = model.clip.visual(batch["video"], encode)
    assert len(read) == times and torch.equal(read[-1], seen.early_tokens[:, 1:])


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_lower_parameters_are_those_below_a_block_of_either_tower(blocks: int):
    model = tiny.model(Backbone, **WITHOUT_OBJECTS)
    lower = {name for name, _ in model.clip.lower_parameters(blocks)}
    below = {"visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding", "visual.ln_pre.weight"}
    below |= {"visual.ln_pre.bias", "token_embedding.weight", "positional_embedding"}
    assert {name for name in lower if "resblocks" not in name} == below
    numbers = {tower: {int(n.split("resblocks.")[1].split(".")[0]) for n in lower if n.startswith(tower + ".res")}
               for tower in ("visual.transformer", "transformer")}  # fmt: skip
    assert numbers["visual.transformer"] == numbers["transformer"] == set(range(blocks))
    with_time = tiny.model(Backbone, linear_patch="3d", **WITHOUT_OBJECTS)
    assert {name for name, _ in with_time.clip.lower_parameters(0)} == below - {"visual.conv1.weight"}


@torch.no_grad()
def test_the_logit_scale_stays_within_its_bound():
    clip = tiny.model(Backbone, **WITHOUT_OBJECTS).clip
    for value, expected in ((9.0, 100.0), (1.0, 2.71828)):
        clip.logit_scale.fill_(value)
        clip.clamp_logit_scale()
        assert float(clip.logit_scale.exp()) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_a_text_token_sees_none_after_it():
    model = tiny.model(Backbone, **WITHOUT_OBJECTS)
    ids = tiny.batch(2, model.config, words=8)["text_ids"]
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 90
    before, after = model.encode_text(ids), model.encode_text(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:], atol=1e-4).all(-1).any()
