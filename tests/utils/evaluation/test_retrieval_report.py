"""The text on the best and worst queries, and the list of what every query finds."""

from __future__ import annotations

import numpy as np
import pytest

from utils.evaluation.retrieval_report import best_and_worst, retrieved

SCORES = np.array(
    [
        [9.0, 1.0, 2.0, 3.0],  # right, margin 6
        [8.0, 1.0, 5.0, 5.0],  # rank 4
        [0.0, 1.0, 2.0, 1.5],  # right, margin 0.5
        [4.0, 0.0, 0.0, 4.0],  # a tie counts against: rank 2, margin 0
    ]
)
OWN = np.array([0, 1, 2, 3])
CAPTIONS = ["a dog runs", "a cat sits", "a man\n sings", "a bird flies"]
VIDEOS = ["vid0", "vid1", "vid2", "vid3"]


def captions_in(text: str) -> tuple[list[str], list[str]]:
    """Captions of the best and of the worst queries, in order."""
    best, worst = text.split("Worst:")
    return captions_of(best), captions_of(worst)


def captions_of(part: str) -> list[str]:
    return [line.strip('"') for line in part.splitlines() if line.startswith('"')]


def test_best_by_margin_and_worst_by_rank():
    text = best_and_worst(SCORES, OWN, CAPTIONS, VIDEOS)
    assert captions_in(text) == (["a dog runs", "a man sings"], ["a cat sits", "a bird flies"])
    assert "(2 of 4 queries)" in text
    assert captions_in(best_and_worst(SCORES, OWN, CAPTIONS, VIDEOS, count=1)) == (["a dog runs"], ["a cat sits"])


def test_a_query_shows_its_rank_own_video_and_the_right_one_marked():
    text = best_and_worst(SCORES, OWN, CAPTIONS, VIDEOS, shown=3)
    assert text.split("\n\n")[-1].splitlines() == [
        '"a bird flies"',
        "  rank 2 of 4, own video vid3, score 4.0000, margin +0.0000",
        "     1  4.0000  vid0",
        "  *  2  4.0000  vid3",
        "     3  0.0000  vid1",
    ]


def test_every_query_has_its_first_videos_in_the_order_of_its_rank():
    found = retrieved(SCORES, OWN, CAPTIONS, VIDEOS, shown=3)
    assert [entry["caption"] for entry in found] == CAPTIONS and [entry["video_id"] for entry in found] == VIDEOS
    assert [entry["rank"] for entry in found] == [1, 4, 1, 2]
    assert found[1]["retrieved"] == ["vid0", "vid2", "vid3"]  # its own is the fourth
    assert found[3]["retrieved"] == ["vid0", "vid3", "vid1"]  # of equal scores the own video is last
    for entry in retrieved(SCORES, OWN, CAPTIONS, VIDEOS):
        assert entry["retrieved"].index(entry["video_id"]) == entry["rank"] - 1 and len(entry["retrieved"]) == 4


def test_equal_ranks_by_the_most_negative_margin_then_by_order():
    scores = np.array([[0.0, 1.0], [3.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
    text = best_and_worst(scores, np.array([0, 1, 0, 1]), list("abcd"), ["x", "y"])
    assert captions_in(text) == ([], ["d", "b", "a", "c"])


def test_long_lists_have_ten_of_each_and_the_same_text_each_time():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(200, 60)).astype(np.float32)
    own = rng.integers(0, 60, 200)
    scores[np.arange(200), own] += 2
    texts = [
        best_and_worst(scores, own, [f"caption {i}" for i in range(200)], [f"video{i}" for i in range(60)])
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    best, worst = captions_in(texts[0])
    assert len(best) == len(worst) == 10 and not {*best} & {*worst}
    blocks = [block for block in texts[0].split("\n\n") if block.startswith('"')]
    assert all(len(block.splitlines()) == 7 for block in blocks)
    for block in blocks[:10]:
        assert "rank 1 of 60" in block and "*  1" in block
    ranks = [int(block.split("rank ")[1].split()[0]) for block in blocks[10:]]
    assert ranks == sorted(ranks, reverse=True)


def test_one_query_and_one_video():
    text = best_and_worst(np.array([[2.5]]), np.array([0]), ["only"], ["vid"])
    assert "rank 1 of 1, own video vid, score 2.5000, no other video" in text
    assert "Worst: largest rank first (0 of 1 queries)" in text


def test_scores_are_aligned_and_long_captions_are_cut():
    scores = np.array([[1000.25, 2.0, -3.0]])
    text = best_and_worst(scores, np.array([1]), ["word " * 60], ["a", "b", "c"])
    assert "     1  1000.2500  a\n  *  2     2.0000  b\n     3    -3.0000  c\n" in text
    assert max(map(len, text.splitlines())) == 120 and '..."' in text


def test_lengths_and_scores_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="3 captions and 4 videos"):
        best_and_worst(SCORES, OWN, CAPTIONS[:3], VIDEOS)
    bad = SCORES.copy()
    bad[1, 1] = np.nan
    with pytest.raises(ValueError, match="1 similarity scores are not finite"):
        best_and_worst(bad, OWN, CAPTIONS, VIDEOS)
