"""Question answering: what trains, several questions on one clip, and both kinds of answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.batch import Batch, finish_batch
from modules.objectives.answers import Answers
from modules.tasks.answering import AnswerModel
from tests import plain_forms, tiny

ANSWERS = tuple(f"answer {i}" for i in range(7))
CLIP_PARTS = ("video", "video_mask", "boxes", "box_trajectory", "trajectory_ids")
WITHOUT_OBJECTS = {"need_object": False, "use_action": False}
VARIANTS = [{}, WITHOUT_OBJECTS, {"use_action": False}, {"action_only": True}, {"object_fuse": "attention"}]


def answer_model(behaviour: str = "intended", **choices: object) -> AnswerModel:
    answers = ANSWERS if behaviour == "intended" else ()
    return tiny.model(AnswerModel, behaviour=behaviour, answers=answers, **choices)


def question_batch(model: AnswerModel, clips: list[int]) -> Batch:
    """One question per entry, on the clip with this number; every clip is there once."""
    cfg = model.config
    distinct = sorted(set(clips))
    items = {clip: tiny.sample(clip, cfg) for clip in distinct}
    parts = CLIP_PARTS if cfg.need_object else CLIP_PARTS[:2]
    batch: Batch = {name: torch.stack([items[clip][name] for clip in distinct]) for name in parts}
    texts = [tiny.sample(50 + i, cfg) for i in range(len(clips))]
    for name in ("text_ids", "text_mask", "random_keys"):
        batch[name] = torch.stack([text[name] for text in texts])
    batch["text_clip"] = torch.tensor([distinct.index(clip) for clip in clips])
    batch["answer"] = torch.arange(len(clips)) % len(ANSWERS)
    return finish_batch(batch)


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_trainable_parameters_are_exactly_those_with_gradient(choices, behaviour):
    model = answer_model(behaviour, **choices)
    model.set_active_losses({"answer"})
    tiny.total(model(question_batch(model, [0, 0, 1, 2]))).backward()
    wrong = [n for n, p in model.named_parameters() if p.requires_grad != (p.grad is not None)]
    assert not wrong, wrong


@torch.no_grad()
def plain_rows(model: AnswerModel, batch: Batch) -> Tensor:
    """One question at a time with its clip encoded for it, every row of the fusion encoder computed."""
    rows = []
    for question, clip in enumerate(batch["text_clip"].tolist()):
        own = {name: batch[name][clip : clip + 1] for name in CLIP_PARTS if name in batch}
        video = model.encode_video(finish_batch(own))
        context = model.fusion.context(video)
        length = int(batch["text_lengths"][question])
        text = model.encode_text(batch["text_ids"][question : question + 1, :length])
        text = torch.cat([text, torch.zeros_like(text[:, :1])], dim=1)
        positions = model.fusion.positional_embedding[model.fusion.text_start :]
        placed = positions[torch.tensor([*range(length), model.config.max_words])].clone()
        placed[length - 1] = 0  # the end token has no position
        sequence = torch.cat([context.tokens, text + placed], dim=1)
        mask = torch.cat([context.mask, torch.ones(1, length + 1, dtype=torch.bool)], dim=1)[:, None, None]
        for block in model.fusion.blocks:
            sequence = block(sequence, mask)
        rows.append(sequence[0, -1])
    return torch.stack(rows)


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize("choices", VARIANTS, ids=str)
@torch.no_grad()
def test_slot_equals_one_question_at_a_time(choices, behaviour):
    model = answer_model(behaviour, **choices).eval()
    batch = question_batch(model, [2, 0, 0, 1, 2])
    assert len(batch["video"]) == 3
    expected, answers = plain_rows(model, batch), model.objective(Answers)
    torch.testing.assert_close(answers.slots(model.encoded(batch)), expected, rtol=1e-4, atol=1e-5)
    if answers.classifier is not None:
        logits = model.answer_head(expected)
    else:
        logits = plain_forms.vocabulary_logits(model.vocabulary_head, expected, model.clip.token_embedding.weight)
    assert torch.equal(model.predict(batch), logits.argmax(-1))
    loss = torch.nn.functional.cross_entropy(logits, batch["answer"])
    torch.testing.assert_close(model(batch)["answer"], loss, rtol=1e-4, atol=1e-5)


def test_questions_in_the_same_words_are_encoded_once(monkeypatch):
    model = answer_model()
    batch = question_batch(model, [0, 1, 1, 2])
    for name in ("text_ids", "text_mask"):
        batch[name][2:] = batch[name][:2]
    plain = {name: value for name, value in finish_batch(batch).items() if name != "text_wording"}
    encoded, encode = [], model.encode_text
    monkeypatch.setattr(model, "encode_text", lambda ids: encoded.append(len(ids)) or encode(ids))
    gradients = []
    for one in (finish_batch(batch), plain):
        model.zero_grad()
        tiny.total(model(one)).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert encoded == [2, 4]
    for name, gradient in gradients[1].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=name)


def test_dropout_is_drawn_per_question():
    model = answer_model(dropout=0.5)
    batch = question_batch(model, [0, 0, 1])
    assert torch.equal(model(batch)["answer"], model(batch)["answer"])
    other = {**batch, "random_keys": batch["random_keys"] + torch.tensor([0, 1, 0])}
    assert not torch.equal(model(batch)["answer"], model(other)["answer"])


def test_a_classifier_needs_answers():
    with pytest.raises(ValueError, match="no answers to choose from"):
        tiny.model(AnswerModel)
