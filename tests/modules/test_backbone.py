"""The backbone: the parts that a configuration has, and what stands for a clip and for a text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modules.backbone import Backbone
from modules.config import ModelConfig
from tests import tiny

WITHOUT_OBJECTS = {"need_object": False, "use_action": False}
ALL = {"clip", "object_encoder", "trajectory_encoder", "action_encoder", "fusion", "similarity"}


class Towers(Backbone):
    """A task without any use for the fusion encoder."""

    @classmethod
    def needs_fusion(cls, config: ModelConfig) -> bool:
        return False


@pytest.mark.parametrize(
    ("cls", "choices", "parts"),
    [
        (Backbone, {}, ALL),
        (Backbone, {"use_action": False}, ALL - {"action_encoder"}),
        (Backbone, {"action_only": True}, ALL - {"trajectory_encoder"}),
        (Backbone, {"object_fuse": "attention"}, ALL - {"trajectory_encoder", "action_encoder"}),
        (Backbone, WITHOUT_OBJECTS, {"clip", "fusion", "similarity"}),
        (Towers, WITHOUT_OBJECTS, {"clip", "similarity"}),
    ],
    ids=["all", "no actions", "no trajectories", "objects in the tower", "no objects", "no fusion encoder"],
)
def test_parts_without_a_use_are_not_created(cls: type[Backbone], choices: dict[str, Any], parts: set[str]):
    assert {name for name, _ in tiny.model(cls, **choices).named_children()} == parts


def test_a_clip_has_the_tokens_of_its_parts():
    model = tiny.model(Backbone)
    batch, cfg = tiny.batch(2, model.config), model.config
    video, ids = model.encode_video(batch), batch["trajectory_ids"]
    assert video.frames.shape == (2, cfg.max_frames, cfg.embed_dim) and video.frame_mask is batch["video_mask"]
    assert video.trajectories.shape == (*ids.shape, cfg.embed_dim) and torch.equal(video.trajectory_mask, ids != 0)
    assert video.actions.shape == (2, cfg.num_actions, cfg.embed_dim)
    without = tiny.model(Backbone, **WITHOUT_OBJECTS)
    assert without.encode_video(tiny.batch(2, without.config))[2:] == (None,) * 5


@pytest.mark.parametrize("choices", [{}, {"object_fuse": "attention"}, {"linear_patch": "3d"}], ids=str)
@torch.no_grad()
def test_a_clip_is_encoded_the_same_in_any_batch(choices: dict[str, Any]):
    model = tiny.model(Backbone, **choices)
    items = [tiny.sample(i, model.config, boxes=i) for i in range(3)]
    together = model.encode_video(tiny.collate(items))
    for i, item in enumerate(items):
        alone = model.encode_video(tiny.collate([item]))
        torch.testing.assert_close(together.frames[i], alone.frames[0], rtol=1e-4, atol=1e-5)
        if alone.trajectories is None:
            continue
        torch.testing.assert_close(together.actions[i], alone.actions[0], rtol=1e-4, atol=1e-5)
        # Unused rows carry no meaning, and a single clip has fewer of them.
        both = [video.trajectories[video.trajectory_mask] for video in (together.select(torch.tensor([i])), alone)]
        torch.testing.assert_close(*both, rtol=1e-4, atol=1e-5)


def test_frames_may_do_without_gradient_while_objects_keep_theirs():
    model = tiny.model(Backbone)
    video = model.encode_video(tiny.batch(2, model.config), features_need_grad=False)
    assert not video.frames.requires_grad
    assert video.trajectories.requires_grad and video.actions.requires_grad
    assert model.encode_video(tiny.batch(2, model.config)).frames.requires_grad


def test_grad_checkpoint_changes_no_number():
    model = tiny.model()
    batch = tiny.batch(3, model.config)
    plain_total = tiny.total(model(batch))
    plain_total.backward()
    reference = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.set_grad_checkpoint(True)
    again = tiny.total(model(batch))
    again.backward()
    torch.testing.assert_close(plain_total, again)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, reference[name], msg=name)


@torch.no_grad()
def test_pairs_are_scored_the_same_in_chunks_of_any_size():
    model = tiny.model(Backbone, sim_header="tightTransf", **WITHOUT_OBJECTS)
    texts, frames = torch.randn(5, 64), torch.randn(3, 3, 64)
    mask = torch.ones(3, 3, dtype=torch.bool)
    whole = model.similarity_matrix(texts, frames, mask)
    assert whole.shape == (5, 3) and whole.std() > 1e-3
    for chunk in (1, 2, 5):
        torch.testing.assert_close(model.similarity_matrix(texts, frames, mask, chunk), whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_feature_of_a_text_is_that_of_its_end_token():
    model = tiny.model(Backbone, **WITHOUT_OBJECTS)
    batch = tiny.collate([tiny.sample(i, model.config, words=words) for i, words in enumerate((2, 7, 4))])
    found = model.text_feature(model.encode_text(batch["text_ids"]), batch["text_lengths"])
    for row, ids in zip(found, batch["text_ids"], strict=True):
        end = int((ids == model.config.end_token).nonzero()[0])
        alone = model.encode_text(ids[None, : end + 1])[0]
        torch.testing.assert_close(row, alone[-1], rtol=1e-4, atol=1e-5)
        assert F.cosine_similarity(row, alone[0], dim=0) < 0.999
