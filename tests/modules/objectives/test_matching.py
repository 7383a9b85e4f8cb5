"""Video-text matching on hard negatives: which pairs are scored, and the loss of a single clip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.backbone import Logits
from modules.fusion_encoder import VideoTokens
from modules.objectives.contrastive import Contrastive
from modules.objectives.matching import Matching, hard_negatives, interleave, matching_loss
from modules.random_streams import sample_key
from modules.tasks.retrieval import RetrievalModel
from tests import tiny
from tests.modules.tasks.test_retrieval import retrieval_batch


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
                rows = model.fusion.matching_rows(
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
    encoded = model.encoded(batch)
    encoded.similarity = Logits(100 * torch.eye(4).roll(1, dims=1), 100 * torch.eye(4).roll(-1, dims=1))
    drawn = model.objective(Matching).losses(encoded)
    given = {**batch, "hard_negative_video": (own + 1) % 4, "hard_negative_text": (own - 1) % 4}
    torch.testing.assert_close(drawn["vtm"], model(given)["vtm"])
    swapped = {**batch, "hard_negative_video": (own - 1) % 4, "hard_negative_text": (own + 1) % 4}
    assert drawn["vtm"] != model(swapped)["vtm"]


@torch.no_grad()
def test_accuracy_is_the_share_of_pairs_that_are_told_right():
    """A head that calls every pair a match is right about the positives, one pair in three."""
    model = tiny.model(RetrievalModel)
    batch = retrieval_batch(4, model)
    rows = model.fusion.matching_rows(
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
        OBJECTIVES = (Contrastive,)

    model = tiny.model(DualEncoder, need_object=False, use_action=False)
    assert not any(name.startswith(("fusion", "matching_head")) for name, _ in model.named_parameters())
    assert set(model(retrieval_batch(3, model))) == {"contrastive"}


def keys(count: int) -> torch.Tensor:
    return torch.tensor([sample_key(0, 0, index) for index in range(count)])


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_negative_is_never_the_own_pair_however_similar():
    others, own = logits(20, 20), torch.arange(20)
    for seed in range(20):
        near = hard_negatives(others + 50 * torch.eye(20), others.t() + 50 * torch.eye(20), keys(20) + seed)
        far = hard_negatives(others, others.t(), keys(20) + seed)
        for index, expected in zip(near, far, strict=True):
            assert ((index >= 0) & (index < 20)).all() and not (index == own).any()
            assert torch.equal(index, expected), "its own similarity does not matter"
    two = hard_negatives(torch.zeros(2, 2), torch.zeros(2, 2), keys(2))
    assert two.video.tolist() == two.text.tolist() == [1, 0]


def test_negatives_are_drawn_in_proportion_to_the_softmax_of_similarity():
    """Column 0 is three times as likely as column 1, and no other has a chance."""
    scores = torch.full((2000, 2000), -1e4)
    scores[:, 0], scores[:, 1] = torch.tensor(3.0).log(), 0.0
    drawn = hard_negatives(scores, scores.clone(), keys(2000))
    for index in drawn:
        others = index[2:]
        assert set(others.tolist()) == {0, 1}
        assert abs((others == 0).float().mean() - 0.75) < 0.03
    assert not torch.equal(drawn.video, drawn.text), "each kind has a stream of its own"


def test_a_draw_depends_on_the_key_of_its_sample_alone():
    scores = logits(6, 6)
    first, again = (hard_negatives(scores, scores, keys(6)) for _ in range(2))
    assert torch.equal(first.video, again.video) and torch.equal(first.text, again.text)
    drawn = [hard_negatives(scores, scores, keys(6) + (torch.arange(6) >= 3) * step) for step in range(1, 9)]
    assert all(torch.equal(one.video[:3], first.video[:3]) for one in drawn)
    assert any(not torch.equal(one.video[3:], first.video[3:]) for one in drawn)


def test_pairs_of_a_sample_stand_together():
    parts = [torch.tensor([1, 2]) + ten for ten in (0, 10, 20)]
    assert interleave(*parts).tolist() == [1, 11, 21, 2, 12, 22]
    assert interleave(*(part[:, None].expand(-1, 5) for part in parts)).shape == (6, 5)


def test_the_first_pair_of_each_sample_is_the_match():
    scores = logits(6, 2)
    found = matching_loss(scores, 3)
    torch.testing.assert_close(found.loss, F.cross_entropy(scores, torch.tensor([1, 0, 0, 1, 0, 0])))
    sure = torch.tensor([[0.0, 9], [9, 0], [9, 0], [0, 9], [9, 0], [0, 9]])
    assert float(matching_loss(sure, 3).accuracy) == pytest.approx(5 / 6)
