"""The demo world on disk: annotations, rendered clips and truth in the formats of all data sets."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dataloaders.files import atomic_write_text
from utils.demo import formats
from utils.demo.clips import DATASETS, ClipRecord, ClipSettings, is_in, make_clip
from utils.demo.detections import label_map
from utils.demo.world import SPLITS, WORLD_VERSION, SceneClip, plan_clips

MARKER = "demo.json"


def write_world(settings: ClipSettings, choices: dict[str, Any], workers: int) -> str | None:
    """Render the world and write it in all formats; lines for people, None when it is there already.

    Args:
        settings: what all clips have in common.
        choices: all that the files depend on: the arguments of `plan_clips`, and what `settings` holds.

    Raises:
        OSError, ValueError: the folder has other content or cannot be written, or there are too few scenes.
    """
    started = time.perf_counter()
    choices = {**choices, "world_version": WORLD_VERSION}
    folder = settings.output_dir
    if not _prepare_folder(folder, choices):
        return None
    counts = (choices[name] for name in ("train_clips", "val_clips", "test_clips", "reserve"))
    clips = plan_clips(settings.seed, *counts, same_shape=choices["same_shape"])
    _write_annotations(clips, settings)
    records = _render_all(clips, settings, workers)
    if settings.didemo_clips:
        formats.pack_didemo(folder / "didemo")
    _write_records(records, folder)
    seconds = time.perf_counter() - started
    _mark(folder, {"complete": True, "settings": choices})
    return _summary(clips, records, seconds)


def _prepare_folder(folder: Path, settings: dict[str, Any]) -> bool:
    """Empty what an earlier run wrote; False when it is complete and has the same settings.

    Raises:
        ValueError: the folder has other content.
    """
    marker = folder / MARKER
    if marker.exists():
        if json.loads(marker.read_text(encoding="utf-8")) == {"complete": True, "settings": settings}:
            return False
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and was not written by this command; give another --output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    _mark(folder, {"complete": False, "settings": settings})
    for name in DATASETS:
        shutil.rmtree(folder / name, ignore_errors=True)
    return True


def _mark(folder: Path, state: dict[str, Any]) -> None:
    atomic_write_text(folder / MARKER, json.dumps(state))


def _write_annotations(clips: list[SceneClip], settings: ClipSettings) -> None:
    writers: dict[str, Callable[[Path, list[SceneClip], int], None]] = {
        "webvid": partial(formats.write_webvid, seconds=settings.seconds),
        "msrvtt": formats.write_msrvtt,
        "msvd": partial(formats.write_msvd, seconds=settings.seconds),
        "lsmdc": partial(formats.write_lsmdc, seconds=settings.seconds),
        "didemo": formats.write_didemo,
    }
    for dataset in DATASETS:
        chosen = [clip for clip in clips if is_in(dataset, clip, settings)]
        if chosen:
            writers[dataset](settings.output_dir / dataset, chosen, settings.seed)


def _render_all(clips: list[SceneClip], settings: ClipSettings, workers: int) -> list[ClipRecord]:
    work = partial(make_clip, settings=settings)
    if workers == 1:
        return [work(clip) for clip in clips]
    # Spawned, not forked: OpenCV's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return pool.map(work, clips, chunksize=16)


def _write_records(records: list[ClipRecord], folder: Path) -> None:
    for dataset in DATASETS:
        truths = {record.ids[dataset]: record.truth for record in records if dataset in record.ids}
        if truths:
            formats.write_truth(folder / dataset / "truth.json", truths)
    classes: Counter[str] = sum((record.classes for record in records), Counter())
    attributes: Counter[str] = sum((record.attributes for record in records), Counter())
    (folder / "label_map.json").write_text(json.dumps(label_map(classes, attributes)), encoding="utf-8")


def _summary(clips: list[SceneClip], records: list[ClipRecord], seconds: float) -> str:
    lines = []
    for split in SPLITS:
        counts = Counter(len(clip.scene) for clip in clips if clip.split == split)
        parts = ", ".join(f"{counts[number]} with {number}" for number in (1, 2, 3))
        lines.append(f"{split:6} {sum(counts.values()):5} clips ({parts} things)")
    for dataset in DATASETS:
        lines.append(f"{dataset:6} {sum(dataset in record.ids for record in records):5} videos")
    lines.append(f"{seconds:.1f} s, {1000 * seconds / len(clips):.0f} ms per clip")
    return "\n".join(lines)
