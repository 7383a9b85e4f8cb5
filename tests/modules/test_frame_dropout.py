"""Frame dropout: hidden samples show trajectories alone, in training only, whatever the batch they are in."""

from __future__ import annotations

import pytest
import torch

from modules.answering import AnswerModel
from modules.captioning import CaptionModel
from modules.pretrain import PretrainModel
from tests import tiny
from tests.modules.test_answering import ANSWERS, question_batch


def caption_batch(model: CaptionModel) -> dict:
    batch = tiny.batch(6, model.config, boxes=2)
    batch["plm_index"] = torch.arange(batch["text_ids"].shape[0] * (batch["text_ids"].shape[1] - 1))
    return batch


@torch.no_grad()
def test_hidden_samples_do_not_depend_on_frames_and_actions_and_others_do():
    model = tiny.model(CaptionModel).eval()
    batch = caption_batch(model)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    other = video._replace(frames=torch.randn_like(video.frames), actions=torch.randn_like(video.actions))
    hidden = torch.tensor([True, False] * 3)
    before, after = (model.next_token_rows(tokens, text, hidden) for tokens in (video, other))
    assert torch.allclose(before[hidden], after[hidden], atol=1e-6)
    assert not torch.isclose(before[~hidden], after[~hidden], atol=1e-3).all(-1).any()
    moved = video._replace(trajectories=torch.randn_like(video.trajectories))
    assert (
        not torch.isclose(before[hidden], model.next_token_rows(moved, text, hidden)[hidden], atol=1e-3).all(-1).any()
    )


def test_share_of_hidden_samples_follows_the_rate_and_clips_without_boxes_are_shown():
    model = tiny.model(CaptionModel, frame_dropout=0.3)
    keys = torch.randint(0, 2**62, (2000,))
    video = model.encode_video(tiny.batch(2, model.config, boxes=2))
    video = video.select(torch.zeros(2000, dtype=torch.int64))
    hidden = model.hidden_frames({"random_keys": keys}, video)
    assert hidden is not None and 0.25 < hidden.float().mean() < 0.35
    assert torch.equal(hidden[:7], model.hidden_frames({"random_keys": keys[:7]}, video.select(torch.arange(7))))
    none = video._replace(trajectory_mask=torch.zeros_like(video.trajectory_mask))
    assert not model.hidden_frames({"random_keys": keys}, none).any()


def test_nothing_is_hidden_in_evaluation_or_without_trajectories():
    model = tiny.model(CaptionModel, frame_dropout=1.0)
    batch = caption_batch(model)
    video = model.encode_video(batch)
    assert model.hidden_frames(batch, video).all()
    assert model.eval().hidden_frames(batch, video) is None
    without = tiny.model(CaptionModel, frame_dropout=1.0, need_object=False, use_action=False)
    assert without.hidden_frames(batch, without.encode_video(batch)) is None


@pytest.mark.parametrize("cls", [CaptionModel, PretrainModel, AnswerModel])
def test_every_parameter_that_trains_has_a_gradient_when_all_is_hidden(cls):
    choices = {"answers": ANSWERS} if cls is AnswerModel else {}
    model = tiny.model(cls, frame_dropout=1.0, **choices)
    batch = question_batch(model, [0, 0, 1, 2]) if cls is AnswerModel else caption_batch(model)
    model.set_active_losses(set(model.available_losses))
    shown = tiny.model(cls, **choices)
    losses = model(batch)
    tiny.total(losses).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    name = {CaptionModel: "caption", PretrainModel: "plm", AnswerModel: "answer"}[cls]
    assert not torch.isclose(losses[name], shown(batch)[name])
