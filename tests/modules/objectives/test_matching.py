"""Video-text matching on hard negatives: which pairs are scored, and the loss of a single clip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from modules.backbone import Logits
from modules.fusion_encoder import VideoTokens
from modules.objectives.contrastive import Contrastive
from modules.objectives.matching import Matching, hard_negatives, interleave, matching_loss
from modules.random_streams import sample_key, uniform
from modules.tasks.retrieval import RetrievalModel
from modules.true_pairs import true_pairs
from tests import tiny
from tests.modules.tasks.test_retrieval import retrieval_batch
from tests.modules.test_true_pairs import CLIPS, TEXTS, batch_of, plain


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


def plain_draw(scores: torch.Tensor, is_true: torch.Tensor, stream: str) -> list[int]:
    """Row by row, among what is wrong alone; the own place where nothing is."""
    points, drawn = uniform(keys(len(scores)), stream, 1)[:, 0].tolist(), []
    for row, point in enumerate(points):
        wrong = [column for column in range(scores.shape[1]) if not is_true[row, column]]
        shares = scores[row, wrong].double().softmax(-1).cumsum(-1).tolist()
        drawn.append(next((one for one, share in zip(wrong, shares, strict=True) if share > point), row))
    return drawn


def test_draws_are_those_of_the_loop_over_wrong_pairs():
    """However similar true pairs are; some rows have nothing that is wrong."""
    draw, missing = torch.Generator().manual_seed(0), 0
    for size, kinds in ((8, 2), (8, 3), (30, 5), (30, 12), (64, 60)):
        clips, texts = torch.randint(kinds, (2, size), generator=draw)
        is_true = plain(clips.tolist(), texts.tolist())
        scores = logits(size, size) + 50 * is_true
        drawn = hard_negatives(scores, scores.t(), keys(size), true_pairs(texts, clips))
        assert drawn.video.tolist() == plain_draw(scores, is_true, "negative video")
        assert drawn.text.tolist() == plain_draw(scores.t(), is_true.t(), "negative text")
        missing += int((drawn.video == torch.arange(size)).sum())
    assert missing


@pytest.mark.parametrize("point", [0.0, 1.0, float("nan")])
def test_rounding_never_falls_on_a_true_pair(monkeypatch: pytest.MonkeyPatch, point: float):
    """At both ends of the table, where the first and the last two samples are of one clip."""
    monkeypatch.setattr("modules.objectives.matching.uniform", lambda *_: torch.full((6, 1), point))
    clips = torch.tensor([0, 0, 1, 2, 3, 3])
    drawn = hard_negatives(logits(6, 6), logits(6, 6), keys(6), true_pairs(torch.arange(6), clips))
    for index in drawn:
        assert ((index >= 0) & (index < 6)).all() and not (clips[index] == clips).any()


def test_where_no_pair_but_the_own_is_true_draws_losses_and_gradients_are_the_same_bit_for_bit():
    for size in (2, 5, 7):
        scores = 5 * logits(size, size)
        own = true_pairs(torch.arange(size), torch.arange(size))
        for one, other in zip(
            hard_negatives(scores, scores, keys(size), own), hard_negatives(scores, scores, keys(size)), strict=True
        ):
            assert torch.equal(one, other)
    found = []
    for released in (False, True):
        model = tiny.model(RetrievalModel, dropout=0.5)
        model.behaviour.same_clip_negatives = released
        losses = model(retrieval_batch(7, model))
        tiny.total(losses).backward()
        found.append([*losses.values(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_loss_is_the_mean_over_positives_and_wrong_pairs_as_far_as_there_are_any():
    """Of eight samples two have no negative, two a wrong text alone and two a wrong video alone."""
    model = tiny.model(RetrievalModel).eval()
    batch = batch_of(CLIPS, TEXTS, model)
    found = model(batch)
    matching, is_true, terms, right = model.objective(Matching), plain(CLIPS, TEXTS), [], 0
    negatives = matching.negatives(model.encoded(batch))
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    for i in range(8):
        pairs = [(int(negatives.video[i]), i)] * bool((~is_true[i]).any())
        pairs += [(i, int(negatives.text[i]))] * bool((~is_true[:, i]).any())
        assert not any(is_true[caption, clip] for clip, caption in pairs)
        for clip, caption in [*pairs, *[(i, i)] * bool(pairs)]:
            rows = model.fusion.matching_rows(
                video.select(torch.tensor([clip])),
                text[[caption]],
                batch["text_mask"][[caption]],
                batch["text_lengths"][[caption]],
            )
            scores, target = model.matching_head(rows)[0], int(clip == caption)
            terms.append(-scores.log_softmax(-1)[target])
            right += int(scores.argmax() == target)
    assert len(terms) == 6 + 4 + 4
    torch.testing.assert_close(found["vtm"], torch.stack(terms).mean())
    assert float(found["vtm_accuracy"]) == pytest.approx(right / len(terms))


@pytest.mark.parametrize(
    ("clips", "texts"), [("aaaa", [0, 1, 2, 3]), ("abcd", [4, 4, 4, 4]), ("aa", [0, 0])], ids=["clip", "text", "both"]
)
def test_a_batch_in_which_all_is_true_teaches_nothing_and_has_gradients(clips: str, texts: list[int]):
    model = tiny.model(RetrievalModel)
    losses = model(batch_of([*clips], texts, model))
    tiny.total(losses).backward()
    assert {name: value.item() for name, value in losses.items()} == {"vtm": 0, "contrastive": 0, "vtm_accuracy": 0}
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_in_released_behaviour_it_makes_no_difference_which_clips_are_the_same():
    model = tiny.model(RetrievalModel, behaviour="released")
    batch = batch_of(CLIPS, TEXTS, model)
    found, without = model(batch), model({name: value for name, value in batch.items() if name != "clip_keys"})
    assert all(torch.equal(found[name], without[name]) for name in found)
    negatives = model.objective(Matching).negatives(model.encoded(batch))
    assert plain(CLIPS, TEXTS)[torch.arange(8), negatives.video].any()


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
