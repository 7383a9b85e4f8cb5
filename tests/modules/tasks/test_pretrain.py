"""Which parameters train, what a batch's composition may and may not change, and degenerate batches."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from modules.config import MATCHING_LOSSES, Behaviour
from modules.tasks.pretrain import PretrainModel
from tests import tiny
from tests.plain_forms import PlainPretrainModel

LOSSES = ("vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive")
WITHOUT_OBJECTS = {"need_object": False, "use_action": False}


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        WITHOUT_OBJECTS,
        {"action_only": True},
        {"use_action": False},
        {"object_fuse": "attention"},
        {"object_layer": 2},
    ]
    + [{"sim_header": h} for h in ("seqLSTM", "seqTransf", "tightTransf")],
    ids=str,
)
def test_trainable_parameters_are_exactly_those_with_gradient(choices, behaviour):
    model = tiny.model(behaviour=behaviour, **choices)
    batch = tiny.batch(4, model.config)
    for names in [set(LOSSES), set(LOSSES) - {"contrastive"}, {"mlm", "vtm"}, {"contrastive"}, {"plm", "object_noun"}]:
        model.set_active_losses(names)
        model.zero_grad()
        tiny.total(model(batch)).backward()
        wrong = [n for n, p in model.named_parameters() if p.requires_grad != (p.grad is not None)]
        assert not wrong, (names, wrong)


def test_gradients_stop_where_the_losses_detach():
    model = tiny.model()
    batch = tiny.batch(4, model.config)
    for loss in ("vtm", "mlm", "plm", "object_noun", "action_verb"):
        model.zero_grad()
        model(batch)[loss].backward()
        reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        text = {n for n in reached if n.startswith("clip.") and not n.startswith("clip.visual.")}
        assert text <= ({"clip.token_embedding.weight"} if loss in ("mlm", "plm") else set()), loss
        assert not any(
            n.startswith(("clip.visual.transformer.resblocks.3.", "clip.visual.ln_post", "clip.visual.proj"))
            for n in reached
        )
        assert "clip.visual.transformer.resblocks.0.mlp.c_fc.weight" in reached  # through the object tokens


def test_released_contrastive_loss_trains_the_text_tower_alone():
    model = tiny.model(behaviour="released")
    model(tiny.batch(4, model.config))["contrastive"].backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached and not any(n.startswith("clip.visual.") for n in reached)


def test_batch_order_changes_no_loss():
    """Every loss is a mean over samples or terms; with the intended matching norm no pair depends on the others."""
    model = tiny.model()
    items = [tiny.sample(i, model.config) for i in range(4)]
    negatives = torch.tensor([1, 2, 3, 0])
    order = torch.tensor([2, 0, 3, 1])
    where = order.argsort()
    batch, shuffled = tiny.collate(items), tiny.collate([items[i] for i in order.tolist()])
    for name in ("hard_negative_video", "hard_negative_text"):
        batch[name], shuffled[name] = negatives, where[negatives[order]]
    a, b = model(batch), model(shuffled)
    for name in LOSSES:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)


def test_dropout_is_a_function_of_the_sample_key():
    model = tiny.model(dropout=0.5)
    batch = tiny.batch(3, model.config)
    first, again = model(batch), model(batch)
    assert all(torch.equal(first[name], again[name]) for name in LOSSES)
    other = model({**batch, "random_keys": batch["random_keys"] + 1})
    assert not torch.equal(first["mlm"], other["mlm"])
    model.eval()
    assert torch.equal(model(batch)["mlm"], model({**batch, "random_keys": batch["random_keys"] + 1})["mlm"])


@pytest.mark.parametrize("form", MATCHING_LOSSES)
@pytest.mark.parametrize("size", [1, 2])
def test_batch_without_any_box_or_tag_has_finite_losses_and_gradients(size, form):
    model = tiny.model(behaviour=Behaviour(matching_loss=form))
    items = [tiny.sample(i, model.config, boxes=0) for i in range(size)]
    for item in items:
        item["noun_mask"][:] = item["verb_mask"][:] = False
    losses = model(tiny.collate(items))
    tiny.total(losses).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    # Actions are matched to the end token: drawn to it, or told from verbs that are not there.
    assert losses["object_noun"] == 0 and (losses["action_verb"] > 0) == (form == "released")
    missing = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing, missing


def test_released_behaviour_skips_actions_of_clips_without_boxes():
    model = tiny.model(behaviour="released")
    losses = model(tiny.batch(2, model.config, boxes=0))
    assert losses["action_verb"] == 0


def test_empty_caption_trains():
    """Start and end token alone: one next-token target, the end token marked for the masked loss."""
    model = tiny.model()
    items = [tiny.sample(i, model.config, words=0) for i in range(2)]
    losses = model(tiny.collate(items))
    assert all(torch.isfinite(v) for v in losses.values())


def test_losses_are_finite_for_all_mode_combinations():
    for fuse, layer, action, only in itertools.product(
        ("fusion", "attention"), (None, 1, -4), (True, False), (True, False)
    ):
        model = tiny.model(object_fuse=fuse, object_layer=layer, use_action=action, action_only=only)
        assert all(torch.isfinite(v) for v in model(tiny.batch(2, model.config)).values())


def both(**choices: Any) -> tuple[PretrainModel, PlainPretrainModel]:
    """The model and its plain form with the same parameters."""
    fast = tiny.model(**choices)
    slow = tiny.model(PlainPretrainModel, **choices)
    slow.load_state_dict(fast.state_dict())
    return fast, slow


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"object_layer": 2},
        {"object_fuse": "attention", "object_layer": 4},
        {"object_fuse": "attention", "object_layer": 3},
        {"object_fuse": "attention", "object_layer": -2},
        {"action_only": True},
        {"use_action": False},
        {"need_object": False, "use_action": False},
        {"linear_patch": "3d"},
    ],
    ids=str,
)
def test_whole_model_equals_plain_forms(choices, behaviour):
    fast, slow = both(behaviour=behaviour, **choices)
    batch = tiny.batch(4, fast.config)
    a, b = fast(batch), slow(batch)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)
    tiny.total(a).backward()
    tiny.total(b).backward()
    for (name, p), (_, q) in zip(fast.named_parameters(), slow.named_parameters(), strict=True):
        left = torch.zeros_like(p) if p.grad is None else p.grad
        right = torch.zeros_like(q) if q.grad is None else q.grad
        torch.testing.assert_close(left, right, rtol=1e-3, atol=2e-5 + 1e-4 * float(right.abs().max()), msg=name)
