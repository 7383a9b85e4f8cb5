"""Scores of a clip's options: equal to a plain loop over clips and options, and independent of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modules.batch import Batch, finish_batch
from modules.tasks.multiple_choice import MultipleChoiceModel
from tests import tiny

OPTIONS = 3
CLIP_PARTS = ("video", "video_mask", "random_keys", "boxes", "box_trajectory", "trajectory_ids")
WITHOUT_OBJECTS = {"need_object": False, "use_action": False}


def make_model(behaviour: str = "intended", **choices: Any) -> MultipleChoiceModel:
    model = tiny.model(MultipleChoiceModel, behaviour=behaviour, header_layers=1, **choices).eval()
    if model.needs_fusion(model.config):
        model.matching_head.match.data.mul_(50)  # so that matching moves the answer
    return model


def choice_batch(clips: range, model: MultipleChoiceModel) -> Batch:
    """Clips with OPTIONS texts each, as `collate_choices` makes it."""
    cfg = model.config
    items = [tiny.sample(i, cfg) for i in clips]
    parts = CLIP_PARTS if cfg.need_object else CLIP_PARTS[:3]
    batch: Batch = {name: torch.stack([item[name] for item in items]) for name in parts}
    batch["video_mask"][:, -1] = torch.tensor([i % 2 == 0 for i in clips])
    texts = [tiny.sample(100 + i * OPTIONS + k, cfg) for i in clips for k in range(OPTIONS)]
    for name in ("text_ids", "text_mask"):
        batch[name] = torch.stack([text[name] for text in texts])
    return finish_batch(batch)


@torch.no_grad()
def plain_scores(model: MultipleChoiceModel, clip: int, *, use_matching: bool) -> Tensor:
    """(K,) scores of one clip, one option at a time, by their definition for mean pooling."""
    batch = choice_batch(range(clip, clip + 1), model)
    video = model.encode_video(batch)
    frames = video.frames[0].float()
    if model.behaviour.choice_frames_normalised:
        frames = F.normalize(frames, dim=-1)
    pooled = F.normalize((frames * batch["video_mask"][0, :, None]).sum(0) / batch["video_mask"].sum(), dim=-1)
    cosines, rows = [], []
    for k in range(OPTIONS):
        length = int(batch["text_lengths"][k])
        text = model.encode_text(batch["text_ids"][k : k + 1, :length])
        cosines.append(F.normalize(text[0, -1].float(), dim=-1) @ pooled)
        if use_matching:
            mask = torch.ones(1, length, dtype=torch.bool)
            rows.append(model.fusion.matching_rows(video, text, mask, torch.tensor([length])))
    scores = torch.stack(cosines)
    if not use_matching:
        return scores
    matching = model.matching_head(torch.cat(rows)).softmax(-1)[:, 1]
    return (scores * model.clip.logit_scale.exp()).softmax(-1) * matching


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize(
    ("choices", "use_matching"),
    [({}, True), ({}, False), ({"use_action": False}, True), (WITHOUT_OBJECTS, False)],
    ids=str,
)
@torch.no_grad()
def test_scores_equal_a_plain_loop(choices, use_matching, behaviour):
    model = make_model(behaviour, **choices)
    found = model.score_options(choice_batch(range(4), model), use_matching=use_matching)
    expected = torch.stack([plain_scores(model, clip, use_matching=use_matching) for clip in range(4)])
    # The softmax is over cosines times the logit scale, which multiplies their rounding: 4e-5 was seen.
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("header", ["meanP", "seqLSTM", "seqTransf", "tightTransf"])
@torch.no_grad()
def test_a_clip_has_the_same_scores_in_any_batch(header):
    model = make_model(sim_header=header, **({} if header == "meanP" else WITHOUT_OBJECTS))
    together = model.score_options(choice_batch(range(4), model))
    alone = torch.cat([model.score_options(choice_batch(range(i, i + 1), model)) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert together.shape == (4, OPTIONS) and float(together.std()) > 0
