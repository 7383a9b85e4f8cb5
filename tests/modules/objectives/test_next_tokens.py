"""Predicting the next token: what a prediction sees, and which tokens the loss counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.objectives.captions import Captions
from modules.objectives.next_tokens import NextTokens
from modules.tasks.captioning import CaptionModel
from modules.tasks.task_model import TaskModel
from tests import tiny


def token_logits(model: TaskModel, rows: torch.Tensor) -> torch.Tensor:
    return model.vocabulary_head(rows, model.clip.token_embedding.weight)


def test_context_never_sees_text_in_the_next_token_pass():
    """Changing a later token changes no earlier prediction."""
    model = tiny.model()
    batch = tiny.batch(2, model.config, words=8)
    video = model.encode_video(batch)
    before = model.objective(NextTokens).rows(model.fusion, video, model.encode_text(batch["text_ids"]))
    ids = batch["text_ids"].clone()
    ids[:, 5] = (ids[:, 5] + 1) % 90
    after = model.objective(NextTokens).rows(model.fusion, video, model.encode_text(ids))
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-4)


@torch.no_grad()
def test_a_prediction_sees_the_clip():
    model = tiny.model()
    batch = tiny.batch(2, model.config)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    before = model.objective(NextTokens).rows(model.fusion, video, text)
    other = model.objective(NextTokens).rows(model.fusion, video.select(torch.tensor([1, 0])), text)
    assert not torch.isclose(before, other, atol=1e-4).all(-1).any()


@pytest.mark.parametrize("index", [[0], [2, 3, 9, 12]], ids=str)
@torch.no_grad()
def test_the_loss_is_the_mean_over_the_named_rows(index: list[int]):
    model = tiny.model(CaptionModel)
    batch = tiny.batch(2, model.config, words=8)
    batch["plm_index"] = torch.tensor(index)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    found = model.objective(NextTokens).loss(model.encoded(batch), video, text)
    logits = token_logits(model, model.objective(NextTokens).rows(model.fusion, video, text))
    each = F.cross_entropy(logits.flatten(0, 1), batch["text_ids"][:, 1:].flatten(), reduction="none")
    torch.testing.assert_close(found.loss, each[index].mean(), rtol=1e-4, atol=1e-5)
    assert len(each) == 18 and each.std() > 0.01
    right = (logits.argmax(-1) == batch["text_ids"][:, 1:]).flatten().float()
    torch.testing.assert_close(found.accuracy, right[index].mean())


@torch.no_grad()
def test_dropout_is_drawn_from_the_named_stream():
    model = tiny.model(CaptionModel, dropout=0.5)
    batch = tiny.batch(2, model.config)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    captions = model.objective(Captions)
    first, again = (captions.loss(model.encoded(batch), video, text).loss for _ in range(2))
    captions.STREAM = "another"
    assert first == again and first != captions.loss(model.encoded(batch), video, text).loss
