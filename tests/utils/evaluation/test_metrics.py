"""Retrieval metrics from a similarity matrix."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.golden import DATA
from utils.evaluation import metrics as metrics_module
from utils.evaluation.metrics import (
    dual_softmax,
    ranks_of_diagonal,
    retrieval_metrics,
    text_to_video_ranks,
    video_to_text_ranks,
)


def random_groups(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(40, 9) scores with many ties, and captions of videos 0..7 in any order; video 8 has none."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 12, (40, 9)).astype(np.float32), np.r_[np.arange(8), rng.integers(0, 8, 32)]


def group_rank_one_by_one(similarity: np.ndarray, caption_video: np.ndarray, video: int) -> int:
    """The rule in words: groups other than the own one whose best caption scores at least as high."""
    scores = {group: similarity[caption_video == group, video].max() for group in set(caption_video.tolist())}
    return sum(score >= scores[video] for group, score in scores.items() if group != video)


def released_groups() -> tuple[np.ndarray, np.ndarray, dict]:
    """The released example of several captions per video, without its padding."""
    expected = json.loads((DATA / "extra-seed0.json").read_text())["metrics"]
    padded = np.load(DATA / "extra-seed0.npz")["metrics.groups"]  # (videos, captions at most, videos)
    sizes = expected["group_sizes"]
    similarity = np.concatenate([group[:size] for group, size in zip(padded, sizes, strict=True)])
    return similarity, np.repeat(np.arange(len(sizes)), sizes), expected


def test_known_ranks_give_known_numbers():
    metrics = retrieval_metrics(np.array([0, 0, 4, 5, 9, 10]))
    assert metrics == pytest.approx(
        {"R1": 100 / 3, "R5": 50, "R10": 500 / 6, "RSum": 100 / 3 + 50 + 500 / 6, "MedianR": 5.5, "MeanR": 17 / 3}
    )


def test_lower_median_is_one_of_the_ranks():
    assert retrieval_metrics(np.array([0, 0, 4, 5, 9, 10]), lower_median=True)["MedianR"] == 5
    assert retrieval_metrics(np.array([0, 4, 9]), lower_median=True)["MedianR"] == 5


def test_no_ranks_are_an_error():
    with pytest.raises(ValueError, match="no ranks"):
        retrieval_metrics(np.array([], np.int64))


def test_a_perfect_matrix_and_its_opposite():
    assert ranks_of_diagonal(np.eye(7)).tolist() == [0] * 7
    assert ranks_of_diagonal(-np.eye(7)).tolist() == [6] * 7


def test_ties_count_against_the_right_one():
    assert ranks_of_diagonal(np.ones((100, 100))).tolist() == [99] * 100
    scores = np.array([[2.0, 2.0, 1.0], [0.0, 5.0, 0.0], [3.0, 1.0, 3.0]])
    assert ranks_of_diagonal(scores).tolist() == [1, 0, 1]
    assert video_to_text_ranks(np.ones((6, 3)), np.array([0, 0, 1, 1, 2, 2])).tolist() == [2, 2, 2]


def test_every_caption_is_ranked_by_its_own_video():
    similarity, caption_video = random_groups()
    ranks = text_to_video_ranks(similarity, caption_video)
    assert ranks.dtype == np.int64
    assert ranks.tolist() == [
        sum(score >= row[own] for column, score in enumerate(row) if column != own)
        for row, own in zip(similarity, caption_video, strict=True)
    ]


def test_a_group_scores_as_its_best_caption_and_videos_without_captions_have_no_rank():
    similarity, caption_video = random_groups()
    ranks = video_to_text_ranks(similarity, caption_video)
    assert ranks.dtype == np.int64
    assert ranks.tolist() == [group_rank_one_by_one(similarity, caption_video, video) for video in range(8)]
    without_captions_of_3 = caption_video != 3
    assert len(video_to_text_ranks(similarity[without_captions_of_3], caption_video[without_captions_of_3])) == 7


def test_one_caption_per_video_is_the_ranking_of_columns():
    square = np.random.default_rng(1).integers(0, 50, (30, 30)).astype(np.float32)
    assert video_to_text_ranks(square, np.arange(30)).tolist() == ranks_of_diagonal(square.T).tolist()
    shuffled = np.random.default_rng(2).permutation(30)
    assert video_to_text_ranks(square[shuffled], shuffled).tolist() == ranks_of_diagonal(square.T).tolist()


def test_chunked_equals_whole(monkeypatch: pytest.MonkeyPatch):
    similarity, caption_video = random_groups()
    whole = [f(similarity, caption_video) for f in (text_to_video_ranks, video_to_text_ranks)]
    weighted = dual_softmax(similarity)
    monkeypatch.setattr(metrics_module, "ENTRIES_PER_CHUNK", 130)
    chunked = [f(similarity, caption_video) for f in (text_to_video_ranks, video_to_text_ranks)]
    assert all(np.array_equal(a, b) for a, b in zip(whole, chunked, strict=True))
    np.testing.assert_allclose(dual_softmax(similarity), weighted, rtol=1e-14)


@pytest.mark.parametrize("ranks", [text_to_video_ranks, video_to_text_ranks])
def test_nan_is_refused_with_their_number_and_infinity_is_ranked(ranks):
    similarity, caption_video = random_groups()
    similarity[5, 8] = -np.inf
    ranks(similarity, caption_video)
    similarity[[1, 7], 2] = np.nan
    with pytest.raises(ValueError, match="2 of 360 similarity scores are NaN"):
        ranks(similarity, caption_video)


def test_columns_and_shapes_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match=r"caption 1 belongs to video 3 of 3 \(2 such captions\)"):
        text_to_video_ranks(np.eye(3), np.array([0, 3, -1]))
    with pytest.raises(ValueError, match=r"similarity \(3, 3\) and caption_video \(2,\)"):
        video_to_text_ranks(np.eye(3), np.array([0, 1]))
    with pytest.raises(ValueError, match="not empty"):
        text_to_video_ranks(np.empty((0, 3)), np.array([], np.int64))


def test_rows_and_columns_of_the_released_example():
    """The released code's own numbers; the matrix has no ties, which that code counts twice."""
    square = np.load(DATA / "extra-seed0.npz")["metrics.square"]
    expected = json.loads((DATA / "extra-seed0.json").read_text())["metrics"]
    assert ranks_of_diagonal(square).tolist() == expected["square_rows_ranks"]
    for ranks, name in (
        (ranks_of_diagonal(square), "square_rows"),
        (ranks_of_diagonal(square.T), "square_columns"),
        (video_to_text_ranks(square, np.arange(len(square))), "square_columns"),
    ):
        metrics = retrieval_metrics(ranks)
        assert {key: metrics[key] for key in expected[name]} == pytest.approx(expected[name])


def test_captions_to_videos_of_the_released_example_of_groups():
    similarity, caption_video, expected = released_groups()
    ranks = text_to_video_ranks(similarity, caption_video)
    metrics = retrieval_metrics(ranks, lower_median=True)
    stored = expected["groups_text_to_video"]
    # The released name of the same median, and the population deviation, which is no metric here.
    ours = {**metrics, "MR": metrics["MedianR"], "Std_Rank": ranks.std()}
    assert {key: ours[key] for key in stored} == pytest.approx(stored)


def test_videos_to_captions_of_the_released_example_of_groups():
    similarity, caption_video, expected = released_groups()
    metrics = retrieval_metrics(video_to_text_ranks(similarity, caption_video))
    stored = expected["groups_video_to_text"]
    assert {key: metrics[key] for key in stored} == pytest.approx(stored)
    released = np.load(DATA / "extra-seed0.npz")["metrics.groups_video_to_text"]
    assert video_to_text_ranks(similarity, caption_video).tolist() == ranks_of_diagonal(released).tolist()


def test_dual_softmax_weighs_down_the_queries():
    scores = np.array([[3.0, 1.0], [2.0, 1.0]])
    first = np.exp(3.0) / (np.exp(3.0) + np.exp(2.0))
    np.testing.assert_allclose(dual_softmax(scores), [[3 * first, 0.5], [2 * (1 - first), 0.5]])
    sharper = np.exp(6.0) / (np.exp(6.0) + np.exp(4.0))
    np.testing.assert_allclose(dual_softmax(scores, temperature=0.5)[:, 0], [3 * sharper, 2 * (1 - sharper)])


def test_dual_softmax_takes_a_popular_video_from_the_queries_that_it_suits_less():
    scores = np.array([[30.0, 20.0], [26.0, 24.0]])  # both captions like video 0 best
    assert ranks_of_diagonal(scores).tolist() == [0, 1]
    assert ranks_of_diagonal(dual_softmax(scores)).tolist() == [0, 0]


def test_dual_softmax_refuses_what_has_no_weight():
    with pytest.raises(ValueError, match="1 of 4 similarity scores are not finite"):
        dual_softmax(np.array([[1.0, -np.inf], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="temperature 0"):
        dual_softmax(np.eye(2), temperature=0)
