"""Accuracy of multiple choice, sharded over ranks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from dataloaders.multiple_choice import ChoiceItem
from modules.batch import Batch, to_device
from modules.multiple_choice import MultipleChoiceModel
from utils.evaluation.bad_videos import BadVideos, check_bad_videos
from utils.evaluation.result import Evaluation
from utils.runtime.distributed import Runtime
from utils.runtime.precision import autocast


@torch.no_grad()
def evaluate_choices(
    model: MultipleChoiceModel,
    items: Sequence[ChoiceItem],
    batches: Iterable[Batch],
    runtime: Runtime,
    *,
    precision: str = "fp32",
    on_bad_video: str = "error",
    use_matching: bool = True,
    missing: Sequence[str] = (),
) -> Evaluation:
    """Answer every question and compare.

    Args:
        model: left in evaluation mode.
        items: all questions.
        batches: this rank's part of them, in order (dataloaders/choices.py).
        missing: ids of videos that were not there; their questions are not among `items`.

    Returns:
        `accuracy` in percent, `questions`, and `skipped` (clips left out); `correct` and `items` by question; the file
        predictions.json.

    Raises:
        BadVideos: a clip cannot be read and `on_bad_video` is "error", or none can be read.
    """
    model.eval()
    mine: list[list[Any]] = []  # [index, scores], plain values that travel between ranks
    bad: list[str] = []
    for batch in batches:
        with autocast(precision, runtime.device):
            scores = model.score_options(to_device(batch, runtime.device), use_matching=use_matching)
        for index, row, reason in zip(batch["index"], scores.float().tolist(), batch["bad_video"], strict=True):
            if reason:
                bad.append(reason)
            else:
                mine.append([index, row])
    skipped = [reason for part in runtime.gather_json(bad) for reason in part]
    check_bad_videos(skipped, on_bad_video)
    scored = [entry for part in runtime.gather_json(mine) for entry in part]
    if not scored:
        raise BadVideos("none of the clips can be read")
    skipped = [f"{video_id}: no such video" for video_id in missing] + skipped
    return _summary([(items[index], row) for index, row in scored], skipped)


def _summary(scored: list[tuple[ChoiceItem, list[float]]], skipped: list[str]) -> Evaluation:
    predictions = [
        {
            "item": item.item_id,
            "video_id": item.video_id,
            "options": item.options,
            "answer": item.answer,
            "prediction": row.index(max(row)),
            "scores": row,
        }
        for item, row in scored
    ]
    correct = [entry["prediction"] == entry["answer"] for entry in predictions]
    metrics = {"accuracy": 100.0 * sum(correct) / len(correct), "questions": len(correct), "skipped": len(skipped)}
    details = {"correct": correct, "items": [item.item_id for item, _ in scored], "skipped_videos": skipped}
    return Evaluation(metrics, details, {"predictions.json": json.dumps(predictions, indent=1) + "\n"})
