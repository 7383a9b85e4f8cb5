"""Captioning: what trains, cached decoding against re-encoding at every step, and decoding in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modules.batch import Batch
from modules.beam_search import SearchSettings
from modules.objectives.captions import Captions
from modules.tasks.captioning import CaptionModel
from tests import plain_forms, tiny

WITHOUT_OBJECTS = {"need_object": False, "use_action": False}
VARIANTS = [{}, WITHOUT_OBJECTS, {"use_action": False}, {"action_only": True}, {"object_fuse": "attention"}]


def caption_model(**choices: object) -> CaptionModel:
    """With weights large enough that clips have captions of their own, of different lengths."""
    model = tiny.model(CaptionModel, **choices)
    with torch.no_grad():
        model.fusion.positional_embedding.mul_(30)
        model.clip.visual.proj.mul_(20)
        model.vocabulary_head.proj.mul_(30)
        model.vocabulary_head.bias[model.config.end_token] += 5.6
        for block in model.fusion.blocks:
            block.attn.in_proj_weight.mul_(4)
    return model


def caption_batch(clips: range, model: CaptionModel) -> Batch:
    items = [tiny.sample(i, model.config) for i in clips]
    for i, item in zip(clips, items, strict=True):
        # Noise alone looks the same to the model in every clip: give each frame shades of its own.
        shades = torch.from_numpy(np.random.default_rng(i).integers(0, 224, (model.config.max_frames, 3, 4, 4)))
        item["video"] = item["video"] // 8 + F.interpolate(shades.float(), scale_factor=8).to(torch.uint8)
        item["video_mask"][-1] = bool(item["random_keys"] % 2)
        item["plm_start"] = torch.tensor(1)
        del item["mlm_mask"], item["noun_mask"], item["verb_mask"]
    return tiny.collate(items)


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_trainable_parameters_are_exactly_those_with_gradient(choices, behaviour):
    model = tiny.model(CaptionModel, behaviour=behaviour, **choices)
    batch = caption_batch(range(4), model)
    for names in ({"caption"}, {"contrastive"}, {"caption", "contrastive"}):
        model.set_active_losses(names)
        model.zero_grad()
        out = model(batch)
        assert {name for name in out if not name.endswith("_accuracy")} == names
        tiny.total(out).backward()
        wrong = [n for n, p in model.named_parameters() if p.requires_grad != (p.grad is not None)]
        assert not wrong, (names, wrong)


def plain_logits(model: CaptionModel, batch: Batch) -> Tensor:
    """(B, L - 1, V), with one pass of both encoders per target."""
    video = model.encode_video(batch)
    context = model.fusion.context(video)
    rows = plain_forms.next_token(model, context, batch["text_ids"], text_grad=True)
    embedding = model.clip.token_embedding.weight
    return torch.stack([plain_forms.vocabulary_logits(model.vocabulary_head, row, embedding) for row in rows], dim=1)


@torch.no_grad()
def test_greedy_captions_equal_the_plain_loop():
    model = caption_model().eval()
    batch, settings = caption_batch(range(6), model), SearchSettings(max_tokens=model.config.max_words - 1)
    found = model.generate(batch, settings)
    ids = torch.zeros(6, model.config.max_words, dtype=torch.int64)
    ids[:, 0] = model.config.start_token
    for step in range(settings.max_tokens):
        ids[:, step + 1] = plain_logits(model, {**batch, "text_ids": ids})[:, step].argmax(-1)
    ends = ids[:, 1:] == model.config.end_token
    after = ends.cumsum(1) - ends.int() > 0
    assert torch.equal(found.tokens, ids[:, 1:].masked_fill(after, model.config.end_token))
    assert len(set(ends.int().argmax(1).tolist())) > 2


@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_captions_may_be_longer_than_training_texts(beams: int):
    model = caption_model().eval()
    model.vocabulary_head.bias[model.config.end_token] = -1e4
    batch = caption_batch(range(2), model)
    usual, long = (
        model.generate(batch, SearchSettings(beams, words - 1)).tokens
        for words in (model.config.max_words, model.config.context_length)
    )
    assert long.shape[1] == model.config.context_length - 1 > usual.shape[1]
    if beams == 1:
        assert torch.equal(long[:, : usual.shape[1]], usual)


@pytest.mark.parametrize("beams", [1, 4])
@torch.no_grad()
def test_a_clip_has_the_same_caption_in_any_batch(beams: int):
    model = caption_model().eval()
    settings = SearchSettings(beams, model.config.max_words - 1, length_penalty=0.5, no_repeat_ngram=2)
    together = model.generate(caption_batch(range(5), model), settings)
    for clip in range(5):
        alone = model.generate(caption_batch(range(clip, clip + 1), model), settings)
        assert torch.equal(together.tokens[clip], alone.tokens[0])
        torch.testing.assert_close(together.score[clip], alone.score[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_score_is_the_log_probability_of_the_caption_under_the_training_pass():
    model = caption_model().eval()
    batch = caption_batch(range(4), model)
    found = model.generate(batch, SearchSettings(3, model.config.max_words - 1))
    start = torch.full((4, 1), model.config.start_token)
    ids = torch.cat([start, found.tokens], dim=1)
    video = model.encode_video(batch)
    rows = model.objective(Captions).rows(model.fusion, video, model.encode_text(ids))
    logits = model.vocabulary_head(rows, model.clip.token_embedding.weight)
    each = logits.log_softmax(-1).gather(2, found.tokens[..., None])[..., 0]
    ends = found.tokens == model.config.end_token
    counted = ends.cumsum(1) - ends.int() == 0
    torch.testing.assert_close(found.score, (each * counted).sum(1), rtol=1e-4, atol=1e-3)
