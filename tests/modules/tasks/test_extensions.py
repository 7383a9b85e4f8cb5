"""Objectives and encoders from outside: they train with the others, and leave the others as they are."""

from __future__ import annotations

import itertools

import pytest
import torch

from modules.fusion_encoder import VideoTokens
from modules.parts import owners
from modules.reranking import PairScorer, TextTokens
from modules.tasks.pretrain import PretrainModel
from tests import tiny
from tests.modules.toy_parts import BoxCount, ExtendedModel, Shades


class WithObjective(PretrainModel):
    OBJECTIVES = (*PretrainModel.OBJECTIVES, BoxCount)


class WithEncoder(PretrainModel):
    ENCODERS = (Shades,)


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize("choices", [{}, {"object_fuse": "attention"}, {"object_layer": 2}], ids=str)
def test_trainable_parameters_are_exactly_those_with_gradient(choices: dict, behaviour: str):
    model = tiny.model(ExtendedModel, behaviour=behaviour, **choices)
    batch, losses = tiny.batch(4, model.config), model.available_losses
    assert losses[-1] == "box_count"
    for names in [set(losses), *map(set, itertools.combinations(losses, 2)), {"box_count"}]:
        model.set_active_losses(names)
        model.zero_grad()
        out = model(batch)
        assert {name for name in out if not name.endswith("_accuracy")} == names
        tiny.total(out).backward()
        wrong = [n for n, p in model.named_parameters() if p.requires_grad != (p.grad is not None)]
        assert not wrong, (names, wrong)


def test_an_objective_of_its_own_changes_no_other_loss():
    plain, extended = tiny.model(), tiny.model(WithObjective)
    extended.load_state_dict(plain.state_dict(), strict=False)
    batch = tiny.batch(3, plain.config)
    found, expected = extended(batch), plain(batch)
    assert found.keys() - expected.keys() == {"box_count", "box_count_accuracy"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_encoder_of_its_own_is_seen_by_every_pass_of_the_fusion_encoder_and_by_nothing_else():
    model = tiny.model(WithEncoder)
    batch = tiny.batch(3, model.config)
    before = model(batch)
    with torch.no_grad():
        model.encoders["shades"].proj.weight.mul_(50)
    after = model(batch)
    changed = {
        name for name in before if not name.endswith("accuracy") and not torch.isclose(before[name], after[name])
    }
    assert changed == {"vtm", "mlm", "plm"}


@torch.no_grad()
def test_its_unused_tokens_are_not_seen_and_move_no_position():
    model = tiny.model(WithEncoder)
    batch = tiny.batch(2, model.config)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    arguments = (text, batch["text_mask"], batch["text_lengths"])
    assert video.further.shape == (2, 3, 64) and video.further_mask.all()
    hidden = video._replace(further_mask=torch.zeros_like(video.further_mask))
    without = VideoTokens(*video[:5])
    rows = [model.fusion.matching_rows(clips, *arguments) for clips in (video, hidden, without)]
    torch.testing.assert_close(rows[1], rows[2])
    assert not torch.isclose(rows[0], rows[1], atol=1e-4).all(-1).any()


@torch.no_grad()
def test_re_ranking_from_cached_clips_sees_them_too():
    model = tiny.model(WithEncoder).eval()
    batch = tiny.batch(3, model.config)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    lengths, pairs = batch["text_lengths"], torch.tensor([[0, 1, 2], [2, 1, 0], [1, 1, 2]])

    def texts(index: torch.Tensor) -> TextTokens:
        return TextTokens(text[index, : int(lengths[index].max())], lengths[index])

    own = torch.arange(3)[:, None].expand_as(pairs)
    scorer = PairScorer(model.fusion, model.matching_head, video, texts, lengths, torch.device("cpu"))
    found = scorer.probabilities(own, pairs)
    of_text, of_clip = own.flatten(), pairs.flatten()
    rows = model.fusion.matching_rows(
        video.select(of_clip), text[of_text], batch["text_mask"][of_text], lengths[of_text]
    )
    expected = model.matching_head(rows).softmax(-1)[:, 1].view_as(found)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_it_learns_beside_the_others():
    model = tiny.model(ExtendedModel)
    batch = tiny.batch(3, model.config)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    found = []
    for _ in range(25):
        optimizer.zero_grad()
        losses = model(batch)
        tiny.total(losses).backward()
        optimizer.step()
        found.append(float(losses["box_count"].detach()))
    assert found[-1] < 0.6 * found[0]


def test_parts_from_outside_have_the_rate_that_they_state():
    model = tiny.model(ExtendedModel)
    own = owners(model)
    assert own["encoders.shades.proj.weight"] == ("shades", "head") and own["count_head.bias"] == ("box_count", "head")
