"""The contrastive loss against its formula, and what it trains."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.config import Behaviour, ModelConfig
from modules.objectives.base import Heads
from modules.objectives.contrastive import Contrastive, PretrainContrastive, contrastive_loss
from modules.tasks.captioning import CaptionModel
from modules.tasks.multiple_choice import MultipleChoiceModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from modules.true_pairs import true_pairs
from tests import tiny
from tests.modules.test_true_pairs import CLIPS, TEXTS, batch_of, plain


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_contrastive_loss_is_half_of_both_directions():
    first, second = logits(3, 3), logits(4, 3)[1:]
    own = torch.arange(3)
    expected = (F.cross_entropy(first, own) + F.cross_entropy(second, own)) / 2
    torch.testing.assert_close(contrastive_loss(first, second), expected)
    assert contrastive_loss(50 * torch.eye(3), 50 * torch.eye(3)) < 1e-6


def plain_loss(scores: torch.Tensor, is_true: torch.Tensor) -> torch.Tensor:
    """Row by row and column by column: the own pair among what is wrong; rows without anything wrong are left out."""
    terms = []
    for logits, true in ((scores, is_true), (scores.t(), is_true.t())):
        for row in range(len(logits)):
            wrong = [column for column in range(len(logits)) if not true[row, column]]
            terms += [-logits[row, [row, *wrong]].log_softmax(-1)[0]] if wrong else []
    return torch.stack(terms).mean()


def test_true_pairs_are_no_negatives():
    draw = torch.Generator().manual_seed(0)
    for size, kinds in ((6, 2), (8, 3), (30, 5), (30, 12)):
        clips, texts = torch.randint(kinds, (2, size), generator=draw)
        scores, is_true = logits(size, size), plain(clips.tolist(), texts.tolist())
        found = contrastive_loss(scores, scores.t(), true_pairs(texts, clips))
        torch.testing.assert_close(found, plain_loss(scores, is_true))
        assert found < contrastive_loss(scores, scores.t())


@pytest.mark.parametrize("header", ["meanP", "seqLSTM", "seqTransf", "tightTransf"])
@pytest.mark.parametrize("task", [PretrainModel, RetrievalModel, MultipleChoiceModel, CaptionModel])
def test_true_pairs_are_no_negatives_in_any_task(task: type, header: str):
    model = tiny.model(task, sim_header=header, header_layers=1)
    batch = batch_of(CLIPS, TEXTS, model)
    loss = model(batch)["contrastive"]
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    scores = model.similarity_logits(video, text, batch["text_lengths"]).text_to_video
    torch.testing.assert_close(loss, plain_loss(scores, plain(CLIPS, TEXTS)))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_where_no_pair_but_the_own_is_true_the_loss_is_the_same_bit_for_bit():
    for size in range(2, 12):
        scores, own = 20 * logits(size, size), torch.arange(size)
        assert torch.equal(
            contrastive_loss(scores, scores.t(), true_pairs(own, own)), contrastive_loss(scores, scores.t())
        )


def parts(kind: type[Contrastive], behaviour: str, **choices: str) -> set[str]:
    return kind(ModelConfig(**choices), Behaviour.preset(behaviour), Heads()).trains({"contrastive"})


def test_it_trains_both_towers_and_in_released_pre_training_the_text_tower_alone():
    everything = {"frames", "text", "similarity", "temperature"}
    assert parts(Contrastive, "intended") == parts(Contrastive, "released") == everything
    assert parts(PretrainContrastive, "intended") == everything
    assert parts(PretrainContrastive, "released") == {"text", "temperature"}


def test_a_tight_header_has_no_logit_scale():
    assert "temperature" not in parts(Contrastive, "intended", sim_header="tightTransf")
