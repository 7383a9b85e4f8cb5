"""Accuracy of multiple choice, sharded over ranks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from dataloaders.multiple_choice import ChoiceItem
from modules.batch import Batch
from modules.tasks.multiple_choice import MultipleChoiceModel
from utils.evaluation.loop import over_clips, with_missing
from utils.evaluation.result import Evaluation
from utils.runtime.distributed import Runtime
from utils.settings.groups import ReadSettings


def evaluate_choices(
    model: MultipleChoiceModel,
    items: Sequence[ChoiceItem],
    batches: Iterable[Batch],
    runtime: Runtime,
    settings: ReadSettings,
    *,
    use_matching: bool = True,
    missing: Sequence[str] = (),
) -> Evaluation:
    """Answer every question and compare.

    Args:
        items: all questions.
        batches: this rank's part of them, in order (dataloaders/choices.py).
        missing: ids of videos that were not there; their questions are not among `items`.

    Returns:
        `accuracy` in percent, `questions`, and `skipped` (clips left out); `correct` and `items` by question; the file
        predictions.json.

    Raises:
        BadVideos: as `over_clips`.
    """

    def scores(batch: Batch) -> Sequence[Any]:
        found = model.score_options(batch, use_matching=use_matching)
        return list(zip(batch["index"], found.float().tolist(), strict=True))

    scored, skipped = over_clips(model, batches, scores, runtime, settings)
    return _summary([(items[index], row) for index, row in scored], with_missing(missing, skipped))


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
