"""What the models of all tasks share: which parameters train, scores of a batch, and frame dropout."""

from __future__ import annotations

import pytest
import torch

from modules.tasks.answering import AnswerModel
from modules.tasks.captioning import CaptionModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from tests import tiny
from tests.modules.objectives.test_answers import ANSWERS, question_batch

WITHOUT_OBJECTS = {"need_object": False, "use_action": False}


def shown_batch(model: CaptionModel) -> dict:
    """Every clip has boxes, and every token is a target."""
    batch = tiny.batch(6, model.config, boxes=2)
    batch["plm_index"] = torch.arange(batch["text_ids"].shape[0] * (batch["text_ids"].shape[1] - 1))
    return batch


def test_frozen_layers_stay_frozen_when_losses_change():
    model = tiny.model()
    model.clip.visual.conv1.weight.requires_grad_(False)
    model.remember_trainable()
    model.set_active_losses({"mlm"})
    model.set_active_losses(set(model.losses))
    assert not model.clip.visual.conv1.weight.requires_grad
    assert model.clip.text_projection.requires_grad


def test_unknown_loss_is_an_error():
    with pytest.raises(ValueError, match="unknown losses.*mlm2"):
        tiny.model().set_active_losses({"mlm2"})


def test_an_unknown_loss_is_an_error():
    with pytest.raises(ValueError, match="unknown losses.*mlm"):
        tiny.model(RetrievalModel).set_active_losses({"mlm"})


@pytest.mark.parametrize("header", ["meanP", "seqLSTM", "seqTransf", "tightTransf"])
@torch.no_grad()
def test_scores_of_a_batch_are_those_of_every_text_with_every_clip(header: str):
    model = tiny.model(RetrievalModel, sim_header=header, **WITHOUT_OBJECTS)
    batch = tiny.batch(4, model.config)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    logits = model.similarity_logits(video, text, batch["text_lengths"])
    features = model.text_feature(text, batch["text_lengths"])
    expected = model.similarity_matrix(features, video.frames, video.frame_mask)
    torch.testing.assert_close(logits.text_to_video, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits.video_to_text, expected.t(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, expected.t(), atol=1e-3), "the directions can be told apart"


@pytest.mark.parametrize("cls", [CaptionModel, PretrainModel, AnswerModel])
def test_every_parameter_that_trains_has_a_gradient_when_all_is_hidden(cls):
    choices = {"answers": ANSWERS} if cls is AnswerModel else {}
    model = tiny.model(cls, **choices)
    model.frame_dropout = 1.0
    batch = question_batch(model, [0, 0, 1, 2]) if cls is AnswerModel else shown_batch(model)
    model.set_active_losses(set(model.available_losses))
    shown = tiny.model(cls, **choices)
    losses = model(batch)
    tiny.total(losses).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    name = {CaptionModel: "caption", PretrainModel: "plm", AnswerModel: "answer"}[cls]
    assert not torch.isclose(losses[name], shown(batch)[name])
