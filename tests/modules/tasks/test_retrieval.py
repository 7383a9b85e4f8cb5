"""Losses of retrieval fine-tuning: what each trains, what it detaches, and small batches."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from modules.objectives.contrastive import contrastive_loss
from modules.tasks.retrieval import RetrievalModel
from tests import tiny

WITHOUT_OBJECTS = {"need_object": False, "use_action": False}
TEXT_TOWER = ("clip.token_embedding.", "clip.positional_embedding", "clip.transformer.", "clip.ln_final.")


def retrieval_batch(size: int, model: RetrievalModel, **choices: Any) -> dict[str, Any]:
    """A batch as the retrieval loaders make it: no masked tokens and no tags."""
    items = [tiny.sample(i, model.config, **choices) for i in range(size)]
    kept = ("video", "video_mask", "text_ids", "text_mask", "random_keys")
    kept += ("boxes", "box_trajectory", "trajectory_ids") if model.config.need_object else ()
    return tiny.collate([{name: item[name] for name in kept} for item in items])


def reached(model: RetrievalModel) -> set[str]:
    """Parameters with a gradient that is not zero."""
    return {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize(
    "choices",
    [{}, WITHOUT_OBJECTS, {"use_action": False}, {"action_only": True}, {"object_fuse": "attention"}]
    + [{"sim_header": header, **WITHOUT_OBJECTS} for header in ("seqLSTM", "seqTransf", "tightTransf")],
    ids=str,
)
def test_trainable_parameters_are_exactly_those_with_gradient(choices, behaviour):
    model = tiny.model(RetrievalModel, behaviour=behaviour, **choices)
    batch = retrieval_batch(4, model)
    losses = model.available_losses
    assert losses == ("vtm", "contrastive")
    for names in itertools.chain.from_iterable(itertools.combinations(losses, n) for n in (1, 2)):
        model.set_active_losses(set(names))
        model.zero_grad()
        out = model(batch)
        assert {name for name in out if not name.endswith("_accuracy")} == set(names)
        tiny.total(out).backward()
        wrong = [n for n, p in model.named_parameters() if p.requires_grad != (p.grad is not None)]
        assert not wrong, (names, wrong)


def test_matching_trains_objects_and_fusion_but_not_the_towers_through_frames_or_text():
    model = tiny.model(RetrievalModel)
    model(retrieval_batch(4, model))["vtm"].backward()
    names = reached(model)
    assert not any(n.startswith(TEXT_TOWER) or n == "clip.text_projection" for n in names)
    assert not any(n.startswith(("clip.visual.ln_post", "clip.visual.proj")) for n in names)
    for part in ("fusion.", "matching_head.", "trajectory_encoder.", "action_encoder.", "object_encoder."):
        assert any(n.startswith(part) for n in names), part


def test_contrastive_loss_is_that_of_pooled_clips_and_trains_both_towers():
    model = tiny.model(RetrievalModel)
    batch = retrieval_batch(4, model)
    loss = model(batch)["contrastive"]
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    texts = model.text_feature(text, batch["text_lengths"])
    logits = model.similarity_matrix(texts, video.frames, batch["video_mask"])
    torch.testing.assert_close(loss, contrastive_loss(logits, logits.t()))
    loss.backward()
    names = reached(model)
    assert {"clip.text_projection", "clip.visual.proj", "clip.logit_scale"} <= names
    assert not any(n.startswith(("fusion.", "matching_head.", "trajectory_encoder.")) for n in names)


def test_clips_without_any_box_have_finite_losses_and_gradients():
    model = tiny.model(RetrievalModel)
    losses = model(retrieval_batch(3, model, boxes=0))
    tiny.total(losses).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
