"""Second stage of retrieval: equal to the plain loop, whatever the chunks; the released rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.fusion_encoder import VideoTokens
from modules.reranking import OFFSET, PairScorer, TextTokens, rerank, rerank_both
from modules.tasks.retrieval import RetrievalModel
from tests import tiny
from tests.plain_forms import match_probabilities

CPU = torch.device("cpu")


def cached(model: RetrievalModel, videos: int, texts: int, seed: int = 0) -> tuple[VideoTokens, Tensor, Tensor]:
    """Random clips with 0..N used trajectories (packed to the front), text tokens (M, L, E) and lengths."""
    cfg, draw = model.config, torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    frame_mask = torch.rand(videos, cfg.max_frames, generator=draw) < 0.8
    frame_mask[:, 0] = True
    trajectories = mask = actions = None
    if cfg.has_trajectories:
        trajectories = normal(videos, cfg.num_trajectories, cfg.embed_dim)
        counts = torch.randint(0, cfg.num_trajectories + 1, (videos, 1), generator=draw)
        mask = torch.arange(cfg.num_trajectories) < counts
    if cfg.has_actions:
        actions = normal(videos, cfg.num_actions, cfg.embed_dim)
    frames = normal(videos, cfg.max_frames, cfg.embed_dim)
    lengths = torch.randint(3, cfg.max_words + 1, (texts,), generator=draw)
    tokens = normal(texts, cfg.max_words, cfg.embed_dim)
    return VideoTokens(frames, frame_mask, trajectories, mask, actions), tokens, lengths


def scorer(model: RetrievalModel, videos: VideoTokens, tokens: Tensor, lengths: Tensor, **bounds: int) -> PairScorer:
    def texts(index: Tensor) -> TextTokens:
        return TextTokens(tokens[index, : int(lengths[index].max())], lengths[index])

    return PairScorer(model.fusion, model.matching_head, videos, texts, lengths, CPU, **bounds)


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize(
    "choices", [{}, {"fusion_layers": 1}, {"use_action": False}, {"need_object": False, "use_action": False}], ids=str
)
def test_probabilities_equal_the_plain_loop_whatever_the_chunks(choices, behaviour):
    model = tiny.model(RetrievalModel, behaviour=behaviour, **choices).eval()
    videos, tokens, lengths = cached(model, 7, 9)
    draw = torch.Generator().manual_seed(1)
    text_index = torch.arange(9)[:, None].expand(9, 5)
    video_index = torch.stack([torch.randperm(7, generator=draw)[:5] for _ in range(9)])
    expected = match_probabilities(model, videos, tokens, lengths, text_index, video_index)
    assert float(expected.std()) > 1e-3
    for bounds in ({}, {"pairs_per_pass": 4}, {"items_per_chunk": 1}, {"items_per_chunk": 6, "pairs_per_pass": 7}):
        found = scorer(model, videos, tokens, lengths, **bounds).probabilities(text_index, video_index)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_chunks_hold_a_bounded_number_of_items_and_every_group():
    model = tiny.model(RetrievalModel)
    pairs = scorer(model, *cached(model, 20, 20), items_per_chunk=6)
    video_index = torch.arange(20)[:, None].expand(20, 4)
    text_index = (torch.arange(20)[:, None] * 2 + torch.arange(4)) % 20
    chunks = list(pairs._chunks(text_index, video_index))
    assert [i for part in chunks for i in range(part.start, part.stop)] == list(range(20))
    assert len(chunks) > 1 and max(len(text_index[part].unique()) for part in chunks) <= 6


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize(("texts", "videos", "top"), [(9, 7, 3), (4, 3, 32), (1, 1, 32), (9, 7, 1)])
def test_both_directions_equal_their_definition(texts, videos, top, behaviour):
    model = tiny.model(RetrievalModel, behaviour=behaviour).eval()
    clips, tokens, lengths = cached(model, videos, texts)
    similarity = torch.randn(texts, videos, generator=torch.Generator().manual_seed(3)) * 5
    head = model.matching_head
    both = rerank_both(similarity, top, scorer(model, clips, tokens, lengths).probabilities, head.is_pairwise)
    for scores, first, turned in (
        (both.text_to_video, similarity, False),
        (both.video_to_text.t(), similarity.t(), True),
    ):
        for query, row in enumerate(first):
            best = row.topk(min(top, len(row))).indices
            pair = (torch.full_like(best, query), best)
            index = [part[None] for part in (pair[::-1] if turned else pair)]
            matching = match_probabilities(model, clips, tokens, lengths, *index)[0]
            wanted = row.double().clone()
            wanted[best] = row[best].double().softmax(-1) * matching.double() * 1000 + OFFSET
            torch.testing.assert_close(scores[query], wanted, rtol=1e-5, atol=1e-4)


def test_a_pair_is_computed_once_when_both_directions_ask_for_it():
    model = tiny.model(RetrievalModel).eval()
    pairs = scorer(model, *cached(model, 6, 6))
    asked: list[int] = []

    def counted(text_index: Tensor, video_index: Tensor) -> Tensor:
        asked.append(text_index.numel())
        return pairs.probabilities(text_index, video_index)

    similarity = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    rerank_both(similarity, 6, counted, is_pairwise=True)
    assert asked == [36, 0]
    asked.clear()
    rerank_both(similarity, 6, counted, is_pairwise=False)
    assert asked == [36, 36]


def test_candidates_rank_before_all_others_and_near_ones_stay_apart():
    similarity = torch.tensor([[100.0, 99.0, -3.0, 50.0]])
    candidates = torch.tensor([[0, 1]])
    scores = rerank(similarity, candidates, torch.tensor([[0.5, 0.5 + 1e-7]]))
    assert scores[0, 2] == -3 and scores[0, 3] == 50 and bool((scores[0, :2] >= OFFSET).all())
    near = rerank(torch.tensor([[1.0, 1.0]]), candidates, torch.tensor([[0.5, np.nextafter(np.float32(0.5), 1)]]))
    assert near[0, 1] > near[0, 0]
