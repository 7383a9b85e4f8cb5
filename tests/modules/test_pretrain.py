"""Which parameters train, what a batch's composition may and may not change, and degenerate batches."""

import itertools

import pytest
import torch

from modules.pretrain import LOSSES
from tests import tiny

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


def test_frozen_layers_stay_frozen_when_losses_change():
    model = tiny.model()
    model.clip.visual.conv1.weight.requires_grad_(False)
    model.remember_trainable()
    model.set_active_losses({"mlm"})
    model.set_active_losses(set(LOSSES))
    assert not model.clip.visual.conv1.weight.requires_grad
    assert model.clip.text_projection.requires_grad


def test_unknown_loss_is_an_error():
    with pytest.raises(ValueError, match="unknown losses.*mlm2"):
        tiny.model().set_active_losses({"mlm2"})


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


@pytest.mark.parametrize("size", [1, 2])
def test_batch_without_any_box_or_tag_has_finite_losses_and_gradients(size):
    model = tiny.model()
    items = [tiny.sample(i, model.config, boxes=0) for i in range(size)]
    for item in items:
        item["noun_mask"][:] = item["verb_mask"][:] = False
    losses = model(tiny.collate(items))
    tiny.total(losses).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    assert losses["object_noun"] == 0 and losses["action_verb"] > 0  # actions are matched to the end token
    missing = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not missing, missing


def test_released_behaviour_skips_actions_of_clips_without_boxes():
    model = tiny.model(behaviour="released")
    losses = model(tiny.batch(2, model.config, boxes=0))
    assert losses["action_verb"] == 0


def test_single_clip_has_no_matching_loss_but_a_gradient_path():
    model = tiny.model()
    losses = model(tiny.batch(1, model.config))
    assert losses["vtm"] == 0 and losses["vtm"].requires_grad and "vtm_accuracy" not in losses


def test_empty_caption_trains():
    """Start and end token alone: one next-token target, the end token marked for the masked loss."""
    model = tiny.model()
    items = [tiny.sample(i, model.config, words=0) for i in range(2)]
    losses = model(tiny.collate(items))
    assert all(torch.isfinite(v) for v in losses.values())


@pytest.mark.parametrize(("axis", "same"), [("feature", True), ("batch", False)])
def test_matching_score_depends_on_other_pairs_in_released_behaviour_only(axis, same):
    model = tiny.model(behaviour="intended" if axis == "feature" else "released")
    rows = torch.randn(5, 2, 64)
    assert torch.allclose(model.matching_head(rows)[:3], model.matching_head(rows[:3]), atol=1e-5) == same


def test_uint8_video_equals_normalised_video():
    model = tiny.model()
    batch = tiny.batch(2, model.config)
    visual = model.clip.visual
    floats = (batch["video"].float() / 255 - visual.pixel_mean) / visual.pixel_std
    torch.testing.assert_close(visual(batch["video"]).frame_features, visual(floats).frame_features)


def test_trajectory_sees_its_own_boxes_only():
    model = tiny.model()
    batch = tiny.batch(2, model.config, boxes=3)
    tokens = torch.randn(2, model.config.max_frames, model.config.object_count, 64)
    ids = batch["trajectory_ids"]
    before = model.trajectory_encoder(tokens, batch["box_trajectory"], ids)
    changed = tokens + torch.randn(64) * (batch["box_trajectory"] == ids[:, :1, None])[..., None]
    after = model.trajectory_encoder(changed, batch["box_trajectory"], ids)
    used = ids != 0
    assert not torch.allclose(before[:, 0], after[:, 0], atol=1e-3)
    torch.testing.assert_close(before[:, 1:][used[:, 1:]], after[:, 1:][used[:, 1:]])


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


def test_losses_are_finite_for_all_mode_combinations():
    for fuse, layer, action, only in itertools.product(
        ("fusion", "attention"), (None, 1, -4), (True, False), (True, False)
    ):
        model = tiny.model(object_fuse=fuse, object_layer=layer, use_action=action, action_only=only)
        assert all(torch.isfinite(v) for v in model(tiny.batch(2, model.config)).values())
