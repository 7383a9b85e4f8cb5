"""The loss of captions against one pass per token."""

from __future__ import annotations

import pytest
import torch

from modules.objectives.captions import Captions
from modules.tasks.captioning import CaptionModel
from tests import tiny
from tests.modules.tasks.test_captioning import caption_batch, plain_logits


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_equal_one_pass_per_token(smoothing: float):
    model = tiny.model(CaptionModel)
    model.set_active_losses({"caption"})
    model.objective(Captions).label_smoothing = smoothing
    batch = caption_batch(range(3), model)
    loss = model(batch)["caption"]
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    logits, terms = plain_logits(model, batch), []
    for row, ids, length in zip(logits, batch["text_ids"], batch["text_lengths"].tolist(), strict=True):
        logprobs = row[: length - 1].log_softmax(-1)
        right = logprobs.gather(1, ids[1:length, None])[:, 0]
        terms.append(-(1 - smoothing) * right - smoothing * logprobs.mean(-1))
    expected = torch.cat(terms).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    expected.backward()
    for name, parameter in model.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_an_empty_caption_trains_the_end_token_alone():
    model = tiny.model(CaptionModel)
    model.set_active_losses({"caption"})
    items = [tiny.sample(i, model.config, words=0) for i in range(2)]
    for item in items:
        item["plm_start"] = torch.tensor(1)
    batch = tiny.collate(items)
    assert batch["plm_index"].tolist() == [0, 1] and torch.isfinite(model(batch)["caption"])
