"""How likely a clip makes a text: equal to one pass per token, whatever stands together in a pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.caption_scoring import CaptionScorer
from modules.fusion_encoder import VideoTokens
from modules.objectives.captions import CaptionScores
from modules.reranking import TextTokens
from modules.tasks.retrieval import CaptionRankedModel
from tests import tiny
from tests.modules.test_reranking import cached
from tests.plain_forms import next_token, vocabulary_logits

CPU = torch.device("cpu")


def random_ids(model: CaptionRankedModel, lengths: Tensor) -> Tensor:
    """Token ids (M, W) of texts so long: start token, random ones, end token, zeros."""
    config = model.config
    ids = torch.randint(1, config.start_token, (len(lengths), config.max_words), generator=tiny_draw())
    ids[:, 0] = config.start_token
    ids[torch.arange(len(lengths)), lengths - 1] = config.end_token
    return ids * (torch.arange(config.max_words) < lengths[:, None])


def tiny_draw() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def scorer(
    model: CaptionRankedModel, videos: VideoTokens, ids: Tensor, lengths: Tensor, **bounds: int
) -> CaptionScorer:
    def texts(index: Tensor) -> TextTokens:
        return TextTokens(model.encode_text(ids[index, : int(lengths[index].max())]), lengths[index])

    objective, words = model.objective(CaptionScores), model.clip.word_vectors
    return CaptionScorer(objective, model.fusion, words, videos, texts, ids, lengths, CPU, **bounds)


@torch.no_grad()
def plain_likelihood(model: CaptionRankedModel, videos: VideoTokens, ids: Tensor, length: int, clip: int) -> float:
    """One pass per token of one text, with the whole context: the geometric mean of their probabilities."""
    context = model.fusion.context(videos.select(torch.tensor([clip])))
    product = 1.0
    for step, row in enumerate(next_token(model, context, ids[None, :length])):
        logits = vocabulary_logits(model.vocabulary_head, row, model.clip.word_vectors)[0]
        product *= float(logits.double().softmax(-1)[ids[step + 1]])
    return product ** (1 / (length - 1))


@pytest.mark.parametrize("choices", [{}, {"fusion_layers": 1}, {"need_object": False, "use_action": False}], ids=str)
def test_likelihoods_equal_one_pass_per_token_whatever_stands_in_a_pass(choices):
    model = tiny.model(CaptionRankedModel, **choices).eval()
    videos, _, lengths = cached(model, 5, 6)
    ids = random_ids(model, lengths)
    assert len(set(lengths.tolist())) > 2, "texts of several lengths stand in one pass"
    text_index = torch.arange(6)[:, None].expand(6, 3)
    video_index = torch.stack([torch.randperm(5, generator=tiny_draw())[:3].roll(shift) for shift in range(6)])
    expected = torch.tensor(
        [
            [plain_likelihood(model, videos, ids[text], int(lengths[text]), int(clip)) for clip in clips]
            for text, clips in enumerate(video_index)
        ]
    )
    assert float((expected / expected.mean() - 1).abs().max()) > 1e-2
    for bounds in ({}, {"pairs_per_pass": 1}, {"pairs_per_pass": 5}):
        found = scorer(model, videos, ids, lengths, **bounds).probabilities(text_index, video_index)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_clips_without_trajectories_and_no_pairs_at_all_are_scored():
    model = tiny.model(CaptionRankedModel).eval()
    videos, _, lengths = cached(model, 2, 2)
    videos = videos._replace(trajectory_mask=torch.zeros_like(videos.trajectory_mask))
    pairs = scorer(model, videos, random_ids(model, lengths), lengths)
    found = pairs.probabilities(torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1], [0, 1]]))
    assert bool(((found > 0) & (found < 1)).all())
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert pairs.probabilities(none, none).shape == (0, 3)


def test_the_vocabulary_head_is_there_and_no_loss_trains_it():
    model = tiny.model(CaptionRankedModel)
    assert model.available_losses == ("vtm", "contrastive")
    model.set_active_losses({"vtm", "contrastive"})
    assert not any(parameter.requires_grad for parameter in model.vocabulary_head.parameters())
    assert all(parameter.requires_grad for parameter in model.matching_head.parameters())
