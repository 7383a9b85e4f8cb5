"""Video-text matching on hard negatives: which pairs are scored, and the loss of a single clip."""

from __future__ import annotations

import pytest
import torch

from modules.config import ModelConfig
from modules.fusion_encoder import VideoTokens
from modules.heads import SampleDropout
from modules.retrieval import RetrievalModel
from modules.task_model import Logits
from tests import tiny
from tests.modules.test_retrieval import retrieval_batch


def test_given_negatives_are_used():
    """The matching loss is the mean over positives and the pairs that the batch names."""
    model = tiny.model(RetrievalModel).eval()
    batch = retrieval_batch(3, model)
    found = {}
    for shift in (1, 2):
        wrong_video, wrong_text = (torch.arange(3) + shift) % 3, (torch.arange(3) - shift) % 3
        found[shift] = model({**batch, "hard_negative_video": wrong_video, "hard_negative_text": wrong_text})["vtm"]
        video: VideoTokens = model.encode_video(batch)
        text = model.encode_text(batch["text_ids"])
        terms = []
        for i in range(3):
            for clip, caption, target in ((i, i, 1), (int(wrong_video[i]), i, 0), (i, int(wrong_text[i]), 0)):
                pair = torch.tensor([clip])
                rows = model.matching_rows(
                    video.select(pair),
                    text[[caption]],
                    batch["text_mask"][[caption]],
                    batch["text_lengths"][[caption]],
                )
                terms.append(-model.matching_head(rows).log_softmax(-1)[0, target])
        torch.testing.assert_close(found[shift], torch.stack(terms).mean())
    assert found[1] != found[2]


@torch.no_grad()
def test_negatives_that_are_not_given_are_drawn_among_the_most_similar():
    """Every text is like the next clip, every clip like the text before its own."""
    model = tiny.model(RetrievalModel)
    batch, own = retrieval_batch(4, model), torch.arange(4)
    logits = Logits(100 * torch.eye(4).roll(1, dims=1), 100 * torch.eye(4).roll(-1, dims=1))
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    drawn = model.matching_losses(batch, video, text, logits, SampleDropout(None, 0.0, training=False))
    given = {**batch, "hard_negative_video": (own + 1) % 4, "hard_negative_text": (own - 1) % 4}
    torch.testing.assert_close(drawn["vtm"], model(given)["vtm"])
    swapped = {**batch, "hard_negative_video": (own - 1) % 4, "hard_negative_text": (own + 1) % 4}
    assert drawn["vtm"] != model(swapped)["vtm"]


@torch.no_grad()
def test_accuracy_is_the_share_of_pairs_that_are_told_right():
    """A head that calls every pair a match is right about the positives, one pair in three."""
    model = tiny.model(RetrievalModel)
    batch = retrieval_batch(4, model)
    rows = model.matching_rows(
        model.encode_video(batch), model.encode_text(batch["text_ids"]), batch["text_mask"], batch["text_lengths"]
    )
    direction = torch.nn.functional.normalize(rows, dim=-1).mean(0)
    model.matching_head.match.copy_(1e3 * direction[0][:, None] * direction[1])
    model.matching_head.unmatch.copy_(-model.matching_head.match)
    assert (model.matching_head(rows).argmax(-1) == 1).all()
    assert float(model(batch)["vtm_accuracy"]) == pytest.approx(1 / 3)
    model.matching_head.match.neg_()
    model.matching_head.unmatch.neg_()
    assert float(model(batch)["vtm_accuracy"]) == pytest.approx(2 / 3)


def test_single_clip_has_no_matching_loss_but_a_gradient_path():
    model = tiny.model()
    losses = model(tiny.batch(1, model.config))
    assert losses["vtm"] == 0 and losses["vtm"].requires_grad and "vtm_accuracy" not in losses


def test_a_single_clip_has_no_matching_loss_but_a_gradient_path():
    model = tiny.model(RetrievalModel)
    losses = model(retrieval_batch(1, model))
    assert losses["vtm"] == 0 and losses["vtm"].requires_grad and "vtm_accuracy" not in losses


def test_a_task_without_the_fusion_encoder_has_no_matching_head_and_no_such_loss():
    class DualEncoder(RetrievalModel):
        @classmethod
        def needs_fusion(cls, config: ModelConfig) -> bool:
            return False

    model = tiny.model(DualEncoder, need_object=False, use_action=False)
    assert not any(name.startswith(("fusion", "matching_head")) for name, _ in model.named_parameters())
    assert set(model(retrieval_batch(3, model))) == {"contrastive"}
