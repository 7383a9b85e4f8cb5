"""Retrieval metrics from similarities; ranks count from 0."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ENTRIES_PER_CHUNK = 1 << 22  # bounds what is copied of a similarity matrix at a time


def text_to_video_ranks(similarity: np.ndarray, caption_video: np.ndarray) -> np.ndarray:
    """Rank of each caption's own video among all videos.

    Ties count against it: an equal score ranks before it, so every caption has exactly one rank.

    Args:
        similarity: (M, V) scores of M captions and V videos.
        caption_video: (M,) column of each caption's own video.

    Returns:
        (M,) int64.

    Raises:
        ValueError: a score is NaN, or the shapes or columns do not fit.
    """
    similarity, caption_video = _checked(similarity, caption_video)
    own = similarity[np.arange(len(similarity)), caption_video]
    ranks = np.empty(len(similarity), np.int64)
    for rows in _chunks(len(similarity), similarity.shape[1]):
        ranks[rows] = np.count_nonzero(similarity[rows] >= own[rows, None], axis=1) - 1
    return ranks


def video_to_text_ranks(similarity: np.ndarray, caption_video: np.ndarray) -> np.ndarray:
    """Rank of each video's own captions among the groups of captions of all videos.

    The field's rule for several captions per video (CLIP4Clip, Luo et al. 2021): a group scores as its best caption
    does. With one caption per video these are the ranks in the columns. Ties count against the own group.

    Args:
        similarity: (M, V) scores of M captions and V videos.
        caption_video: (M,) column of each caption's own video, in any order.

    Returns:
        int64 ranks of the videos that have captions, in the order of their columns: (V,) where all have. A video
        without captions has no right answer and no rank; the ranked videos are `np.unique(caption_video)`.

    Raises:
        ValueError: a score is NaN, or the shapes or columns do not fit.
    """
    similarity, caption_video = _checked(similarity, caption_video)
    order = np.argsort(caption_video, kind="stable")
    videos, first_caption = np.unique(caption_video[order], return_index=True)
    ranks = np.empty(len(videos), np.int64)
    for part in _chunks(len(videos), len(similarity)):
        groups = np.maximum.reduceat(similarity[np.ix_(order, videos[part])], first_caption, axis=0)  # (groups, part)
        own = groups[np.arange(part.start, part.stop), np.arange(part.stop - part.start)]
        ranks[part] = np.count_nonzero(groups >= own, axis=0) - 1
    return ranks


def ranks_of_diagonal(similarity: np.ndarray) -> np.ndarray:
    """Rank of entry i in row i of an (N, N) matrix; ties and errors as in `text_to_video_ranks`."""
    return text_to_video_ranks(similarity, np.arange(len(similarity)))


def retrieval_metrics(ranks: np.ndarray, lower_median: bool = False) -> dict[str, float]:
    """R1, R5, R10 in percent, RSum, and median and mean rank (from 1) of ranks (from 0).

    Args:
        lower_median: of an even number of ranks, the lower of the two in the middle and not their mean. So does the
            released code from captions to videos that have several of them.

    Raises:
        ValueError: there are no ranks.
    """
    if not len(ranks):
        raise ValueError("no ranks: the test list is empty")
    recalls = {f"R{k}": 100.0 * float(np.mean(ranks < k)) for k in (1, 5, 10)}
    median = np.quantile(ranks, 0.5, method="lower") if lower_median else np.median(ranks)
    return {
        **recalls,
        "RSum": sum(recalls.values()),
        "MedianR": float(median) + 1,
        "MeanR": float(np.mean(ranks)) + 1,
    }


def dual_softmax(similarity: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Weigh each score by how much its item prefers this query to the other queries (CAMoE, Cheng et al. 2021).

    score(q, n) · softmax over q of score(q, n) / temperature: down the rows, not along a query's own row, whose ranking
    a softmax would leave as it is. From captions to videos the rows are captions, `dual_softmax(similarity)`; from
    videos to captions they are videos, and the result is turned back: `dual_softmax(similarity.T).T`.

    The scores of one query then depend on all other test queries, which a single search does not have, so results with
    it are reported apart from those without. Scores should be positive: a small weight lifts a negative one.

    Args:
        similarity: (Q, N) scores of Q queries and N items, such as logits.
        temperature: above 0; a lower one makes the weights sharper.

    Returns:
        (Q, N) float64: weights in single precision would vanish, and vanished scores are ties.

    Raises:
        ValueError: a score is not finite, or the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: it must be above 0")
    bad = int(np.count_nonzero(~np.isfinite(similarity)))
    if bad:
        raise ValueError(f"{bad} of {similarity.size} similarity scores are not finite")
    result = similarity.astype(np.float64)
    for columns in _chunks(result.shape[1], len(result)):
        logits = result[:, columns] / temperature
        weights = np.exp(logits - logits.max(axis=0))
        result[:, columns] *= weights / weights.sum(axis=0)
    return result


def _checked(similarity: np.ndarray, caption_video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, once shapes, columns and scores are known to be sound."""
    similarity, caption_video = np.asarray(similarity), np.asarray(caption_video)
    if similarity.ndim != 2 or not similarity.size or caption_video.shape != similarity.shape[:1]:
        raise ValueError(
            f"similarity {similarity.shape} and caption_video {caption_video.shape}: they must be (captions, videos) "
            "and (captions,), and not empty"
        )
    outside = np.flatnonzero((caption_video < 0) | (caption_video >= similarity.shape[1]))
    if len(outside):
        raise ValueError(
            f"caption {outside[0]} belongs to video {caption_video[outside[0]]} of {similarity.shape[1]} "
            f"({len(outside)} such captions)"
        )
    if np.isnan(similarity.min()):  # the minimum is NaN where any entry is
        raise ValueError(f"{np.count_nonzero(np.isnan(similarity))} of {similarity.size} similarity scores are NaN")
    return similarity, caption_video


def _chunks(count: int, entries_each: int) -> Iterator[slice]:
    """Slices of 0..count, as long as ENTRIES_PER_CHUNK allows."""
    length = max(1, ENTRIES_PER_CHUNK // entries_each)
    return (slice(start, min(start + length, count)) for start in range(0, count, length))
