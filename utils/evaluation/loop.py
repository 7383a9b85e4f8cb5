"""The one loop of every evaluation: over this rank's clips, gathered from all ranks, without what cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch

from modules.batch import AnyBatch, to_device
from utils.evaluation.bad_videos import BadVideos, check_bad_videos
from utils.runtime.distributed import Runtime
from utils.runtime.precision import autocast
from utils.settings.groups import ReadSettings

SHOWN_NOTES = 3
logger = logging.getLogger(__name__)


class Gathered(NamedTuple):
    """Values computed for the clips of all ranks, in order, and the reasons why other clips are left out."""

    values: list[Any]
    skipped: list[str]


@torch.no_grad()
def over_clips(
    model: Any,
    batches: Iterable[AnyBatch],
    compute: Callable[[AnyBatch], Sequence[Any]],
    runtime: Runtime,
    settings: ReadSettings,
) -> Gathered:
    """Compute one value for each clip of this rank, and gather those of all ranks.

    Args:
        model: left in evaluation mode.
        batches: this rank's part of the clips, in order. `bad_video` (list of B) says why a clip cannot be read, or "".
        compute: from a batch on the device, under autocast, to a plain value (what JSON can hold) for each of its
            clips; those of clips that cannot be read are left out.

    Raises:
        BadVideos: a clip cannot be read and `on_bad_video` is "error", or none can be read.
    """
    model.eval()
    mine: list[Any] = []
    bad: list[str] = []
    notes: list[str] = []
    for batch in batches:
        with autocast(settings.precision, runtime.device):
            values = compute(to_device(batch, runtime.device))
        notes += [note for of_clip in cast(list[list[str]], batch.get("notes", [])) for note in of_clip]
        for value, reason in zip(values, batch["bad_video"], strict=True):
            if reason:
                bad.append(reason)
            else:
                mine.append(value)
    skipped = [reason for part in runtime.gather_json(bad) for reason in part]
    check_bad_videos(skipped, settings.on_bad_video)
    _say([note for part in runtime.gather_json(notes) for note in part], runtime)
    everyone = [value for part in runtime.gather_json(mine) for value in part]
    if not everyone:
        raise BadVideos("none of the clips can be read")
    return Gathered(everyone, skipped)


def _say(notes: list[str], runtime: Runtime) -> None:
    """Remarks on the reading of clips, counted, the first ones in words."""
    if notes and runtime.is_main:
        shown = "; ".join(notes[:SHOWN_NOTES]) + ("; ..." if len(notes) > SHOWN_NOTES else "")
        logger.warning("%d clips: %s", len(notes), shown)


def with_missing(missing: Iterable[str], skipped: Iterable[str]) -> list[str]:
    """Reasons of all clips that are left out: ids of videos that are not there, then those that cannot be read."""
    return [*(f"{video_id}: no such video" for video_id in missing), *skipped]
