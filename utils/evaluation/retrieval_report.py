"""Report of a retrieval evaluation: ranks and first videos by query, and the best and worst queries to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from utils.evaluation.loop import with_missing
from utils.evaluation.metrics import text_to_video_ranks
from utils.evaluation.result import Evaluation
from utils.evaluation.retrieval import RetrievalResult

CAPTION_WIDTH = 120
SHOWN = 5  # videos listed under a query
LEGEND = "* marks a query's own video; margin: its score less the best other one's."


def describe(result: RetrievalResult, missing: Sequence[str]) -> Evaluation:
    """Metrics with the number of clips left out; ranks (from 0) and names of the queries.

    Its files are `best_and_worst.txt` and `retrieved.json`, the list of `retrieved`.

    Args:
        missing: ids of the videos that were not there, beside those that could not be read.
    """
    split = result.split
    names = [split.video_ids[video] for video in split.caption_video.tolist()]
    first = split.captions_per_video.cumsum() - split.captions_per_video
    numbers = (np.arange(len(names)) - first[split.caption_video]).tolist()
    skipped = with_missing(missing, result.skipped)
    details = {
        "ranks": {direction: ranks.tolist() for direction, ranks in result.ranks().items()},
        "queries": {
            "t2v": [f"{name}#{number}" for name, number in zip(names, numbers, strict=True)],
            "v2t": [split.video_ids[video] for video in np.unique(split.caption_video)],
        },
        "skipped_videos": skipped,
    }
    scores = result.final.text_to_video.numpy()
    found = retrieved(scores, split.caption_video, split.captions, split.video_ids)
    files = {
        "best_and_worst.txt": best_and_worst(scores, split.caption_video, split.captions, split.video_ids),
        "retrieved.json": json.dumps(found, indent=1, ensure_ascii=False) + "\n",
    }
    return Evaluation({**result.metrics(), "skipped": len(skipped)}, details, files)


def retrieved(
    similarity: np.ndarray,
    caption_video: np.ndarray,
    captions: Sequence[str],
    video_ids: Sequence[str],
    shown: int = SHOWN,
) -> list[dict[str, Any]]:
    """For each query its `caption`, its own `video_id`, the `rank` of that (from 1) and the best videos: `retrieved`.

    Arguments are those of `best_and_worst`; the videos are in its order, with the own one last of equal scores.
    """
    ranks = text_to_video_ranks(similarity, caption_video)
    return [
        {
            "caption": caption,
            "video_id": video_ids[own],
            "rank": int(rank) + 1,
            "retrieved": [video_ids[column] for column in _best(row, own, shown)],
        }
        for caption, own, rank, row in zip(captions, caption_video.tolist(), ranks, similarity, strict=True)
    ]


def best_and_worst(
    similarity: np.ndarray,
    caption_video: np.ndarray,
    captions: Sequence[str],
    video_ids: Sequence[str],
    count: int = 10,
    shown: int = SHOWN,
) -> str:
    """Describe the queries that a model answers best and worst, with the videos that it finds.

    The best have rank 1 and the largest margin between their own video's score and the best other one. The worst are
    those of largest rank that are not among the best; of equal ranks, those of the most negative margin come first.
    Ties go to the earlier caption, so the same scores always give the same text.

    Args:
        similarity: (M, V) finite scores of M captions and V videos.
        caption_video: (M,) column of each caption's own video.
        captions: M texts.
        video_ids: V names.
        count: queries of each kind, where there are as many.
        shown: retrieved videos listed under each query.

    Raises:
        ValueError: a score is not finite, or the lengths do not fit.
    """
    if (len(captions), len(video_ids)) != similarity.shape:
        raise ValueError(f"{len(captions)} captions and {len(video_ids)} videos for similarity {similarity.shape}")
    if not np.isfinite([similarity.min(), similarity.max()]).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(similarity))} similarity scores are not finite")
    ranks = text_to_video_ranks(similarity, caption_video)
    margins = _margins(similarity, caption_video)
    order = np.lexsort((-margins, ranks))[:count]  # stable: equal ones stay in the order of captions
    best = order[ranks[order] == 0]
    order = np.lexsort((margins, -ranks))
    worst = order[~np.isin(order, best)][:count]
    blocks = [LEGEND]
    for title, queries in (("Best: rank 1, largest margin first", best), ("Worst: largest rank first", worst)):
        blocks.append(f"{title} ({len(queries)} of {len(captions)} queries)")
        for query in queries:
            row, own = similarity[query], int(caption_video[query])
            margin = f"margin {margins[query]:+.4f}" if len(row) > 1 else "no other video"
            header = (
                f'"{_one_line(captions[query])}"\n'
                f"  rank {ranks[query] + 1} of {len(row)}, own video {video_ids[own]}, score {row[own]:.4f}, {margin}"
            )
            blocks.append("\n".join([header, *_retrieved(row, own, video_ids, shown)]))
    return "\n\n".join(blocks) + "\n"


def _margins(similarity: np.ndarray, caption_video: np.ndarray) -> np.ndarray:
    """(M,) score of the own video less the best other one; infinite where there is no other."""
    margins = np.empty(len(similarity))
    for query, (row, own) in enumerate(zip(similarity, caption_video, strict=True)):
        others = max(row[:own].max(initial=-np.inf), row[own + 1 :].max(initial=-np.inf))
        margins[query] = float(row[own]) - float(others)
    return margins


def _retrieved(row: np.ndarray, own: int, video_ids: Sequence[str], shown: int) -> Iterator[str]:
    """Lines of the best videos of a query."""
    best = _best(row, own, shown)
    scores = [f"{row[column]:.4f}" for column in best]
    width = max(map(len, scores))
    for place, (column, score) in enumerate(zip(best, scores, strict=True), start=1):
        mark = "*" if column == own else " "
        yield f"  {mark} {place:2}  {score:>{width}}  {video_ids[column]}"


def _best(row: np.ndarray, own: int, shown: int) -> np.ndarray:
    """Columns of the best videos of a query; among equal scores the own video is last, as in its rank."""
    columns = np.arange(len(row))
    return np.lexsort((columns, columns == own, -row))[:shown]


def _one_line(caption: str) -> str:
    """The caption on one line of CAPTION_WIDTH at most, quotation marks included."""
    text, room = " ".join(caption.split()), CAPTION_WIDTH - 2
    return text if len(text) <= room else text[: room - 3] + "..."
