"""Similarity of texts and clips under all four headers."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modules.backbone import Backbone
from modules.similarity import LooseSimilarity, TightTransf, pool_frames
from tests import tiny

HEADERS = ["meanP", "seqLSTM", "seqTransf", "tightTransf"]


class Clips(NamedTuple):
    """Four clips with 1 to 4 valid frames, which come first."""

    frames: Tensor
    mask: Tensor


def clips() -> Clips:
    frames = torch.randn(4, 4, 64, generator=torch.Generator().manual_seed(0))
    return Clips(frames, torch.arange(4) < torch.arange(1, 5)[:, None])


def texts() -> Tensor:
    return torch.randn(5, 64, generator=torch.Generator().manual_seed(1))


def backbone(header: str) -> Backbone:
    """The header's matrices are drawn larger than for training, so that what it adds to the frames counts."""
    model = tiny.model(Backbone, sim_header=header, max_frames=4, need_object=False, use_action=False)
    with torch.no_grad():
        for parameter in model.similarity.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    return model


def scores(header: str, frames: Tensor, mask: Tensor, features: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return backbone(header).similarity_matrix(texts() if features is None else features, frames, mask)


@pytest.mark.parametrize("header", HEADERS)
def test_padding_never_changes_a_score(header: str):
    frames, mask = clips()
    before = scores(header, frames, mask)
    assert before.shape == (5, 4)
    padded = torch.where(mask[..., None], frames, 9 * torch.randn(frames.shape))
    torch.testing.assert_close(before, scores(header, padded, mask), rtol=1e-4, atol=1e-4)
    shorter = scores(header, frames[:2, :2], mask[:2, :2])
    torch.testing.assert_close(before[:, :2], shorter, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("header", HEADERS)
def test_a_score_depends_on_its_own_text_and_clip(header: str):
    frames, mask = clips()
    before = scores(header, frames, mask)
    index, which = torch.tensor([3, 0]), torch.tensor([2, 1, 4])
    torch.testing.assert_close(
        scores(header, frames[index], mask[index], texts()[which]), before[which][:, index], rtol=1e-4, atol=1e-4
    )
    other = scores(header, frames + 2 * mask[..., None] * torch.randn(frames.shape), mask)
    assert not torch.isclose(before, other, atol=1e-3).any()


@pytest.mark.parametrize("header", HEADERS)
def test_the_order_of_frames_counts_for_headers_that_read_a_sequence(header: str):
    frames, mask = clips()
    turned = frames[:, [1, 0, 2, 3]]
    whole = mask[:, 1]
    change = (scores(header, frames, mask) - scores(header, turned, mask))[:, whole].abs()
    assert (change < 1e-4).all() if header == "meanP" else (change > 1e-4).any()


@torch.no_grad()
def test_the_mean_of_frames_is_compared_by_its_angle():
    frames, mask = clips()
    pooled = torch.stack([F.normalize(f[m], dim=-1).mean(0) for f, m in zip(frames, mask, strict=True)])
    expected = F.cosine_similarity(texts()[:, None], pooled[None], dim=-1)
    model = backbone("meanP")
    found = model.similarity_matrix(texts(), frames, mask)
    torch.testing.assert_close(found, expected * model.clip.logit_scale.exp(), rtol=1e-4, atol=1e-4)


def test_frames_count_alike_when_they_are_normalised_and_by_their_length_otherwise():
    frames, mask = clips()
    longer = frames * torch.tensor([5.0, 1.0, 1.0, 1.0])[:, None]
    torch.testing.assert_close(pool_frames(frames, mask), pool_frames(longer, mask))
    plain, weighted = (pool_frames(part, mask, normalise_frames=False) for part in (frames, longer))
    torch.testing.assert_close(plain, F.normalize((frames * mask[..., None]).sum(1), dim=-1))
    assert not torch.isclose(plain[1:], weighted[1:], atol=1e-3).all(-1).any()


@pytest.mark.parametrize("header", HEADERS[:3])
@torch.no_grad()
def test_loose_scores_are_single_precision_under_autocast(header: str):
    model, (frames, mask) = backbone(header), clips()
    assert isinstance(model.similarity, LooseSimilarity)
    feature = model.similarity.video_feature(frames, mask)
    exact = model.similarity(texts(), feature, model.clip.logit_scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.similarity(texts(), feature, model.clip.logit_scale), exact)


@torch.no_grad()
def test_the_tight_header_has_no_logit_scale():
    model, (frames, mask) = backbone("tightTransf"), clips()
    assert isinstance(model.similarity, TightTransf) and not isinstance(model.similarity, LooseSimilarity)
    before = model.similarity_matrix(texts(), frames, mask)
    model.clip.logit_scale.add_(1)
    assert torch.equal(before, model.similarity_matrix(texts(), frames, mask))
