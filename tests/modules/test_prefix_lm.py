"""Predicting the next token: what a prediction sees, and which tokens the loss counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.captioning import CaptionModel
from modules.heads import SampleDropout
from tests import tiny


def test_context_never_sees_text_in_the_next_token_pass():
    """Changing a later token changes no earlier prediction."""
    model = tiny.model()
    batch = tiny.batch(2, model.config, words=8)
    video = model.encode_video(batch)
    before = model.next_token_rows(video, model.encode_text(batch["text_ids"]))
    ids = batch["text_ids"].clone()
    ids[:, 5] = (ids[:, 5] + 1) % 90
    after = model.next_token_rows(video, model.encode_text(ids))
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-4)


@torch.no_grad()
def test_a_prediction_sees_the_clip():
    model = tiny.model()
    batch = tiny.batch(2, model.config)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    before = model.next_token_rows(video, text)
    other = model.next_token_rows(video.select(torch.tensor([1, 0])), text)
    assert not torch.isclose(before, other, atol=1e-4).all(-1).any()


@pytest.mark.parametrize("index", [[0], [2, 3, 9, 12]], ids=str)
@torch.no_grad()
def test_the_loss_is_the_mean_over_the_named_rows(index: list[int]):
    model = tiny.model(CaptionModel)
    batch = tiny.batch(2, model.config, words=8)
    batch["plm_index"] = torch.tensor(index)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    off = SampleDropout(None, 0.0, training=False)
    found = model.next_token_loss(batch, video, text, off, "plm")
    logits = model.token_logits(model.next_token_rows(video, text))
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
    drop = SampleDropout(batch["random_keys"], 0.5, training=True)
    first, again, other = (model.next_token_loss(batch, video, text, drop, name).loss for name in ("a", "a", "b"))
    assert first == again and first != other
