"""Check the shards that pre-training reads: index, captions, records and object files.

Of millions of clips only ids, places and counts are held, as preparing them for training does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dataloaders.id_lists import read_frame_sizes
from dataloaders.object_records import object_file_ids
from dataloaders.pretrain_index import Clips, Note, captioned_clips, clip_places, require_inputs
from dataloaders.samples import MAX_BAD_CLIPS
from dataloaders.stored_clips import ShardReader, resolve_shard
from dataloaders.tfrecord import HEADER, DamagedRecord, payload_length, record_length
from modules.tokenizer import split_words
from utils.checks.clips import check_all
from utils.checks.findings import Finding, Report, compact, first_ids, in_order, stop
from utils.checks.objects import misfits, no_object_files, nothing_kept, orphans, read_label_map, wrong_order
from utils.checks.records import RecordSettings, RecordTask, check_record
from utils.checks.setup import CheckArguments, clip_settings
from utils.data.pretraining import find_shards
from utils.preparation.webvid_rows import EMPTY_CAPTION, REPEATED_ID

# What reading index and captions leaves out (counters of IndexReport): kind of finding, and what its number means.
LEFT_OUT = {
    "broken_index_lines": ("broken_index_line", "{example}"),
    "repeated_clips": (REPEATED_ID, "{times} times in the index"),
    "captions_without_clip": ("no_clip", "{count} captions"),
    "empty_captions": (EMPTY_CAPTION, "{count} captions"),
    "repeated_caption_ids": ("more_captions", "{times} captions"),
}
OF_INDEX = ("broken_index_lines", "repeated_clips")
# Kinds of findings at which training stops with an error where most clips have them (dataloaders/samples.py).
STOPS = {
    "unknown_size": "no size is known of {count} clips with objects, which boxes are mapped by (released shards keep "
    "none): give --frame_sizes FILE, or --box_coordinates crop if the boxes are in crop pixels",
    "missing_rate": "the records of {count} clips lack frames for --feature_framerate {rate:g}: use the rate that they "
    "were written with",
}


class _ClipSet(NamedTuple):
    """A set of C clips in shards and its S samples.

    samples: (S,) int64, row in `clips` of each caption that holds a word, in the order of training's samples.
    """

    index_dir: Path
    clips: Clips
    shards: list[str]
    samples: np.ndarray


@dataclass
class _Fate:
    """What becomes of the clips in training, by their row: (C,) bool each.

    is_missing: their shard is not there, and training does not start. is_lost: training leaves them out. stops: how
    many samples' clips have a finding of a kind of STOPS.
    """

    is_missing: np.ndarray
    is_lost: np.ndarray
    stops: Counter[str] = field(default_factory=Counter)


def check_shards(args: CheckArguments) -> Report:
    """Check a pre-training set; raises CannotStart if no worker process starts."""
    findings: list[Finding] = []
    label_map = read_label_map(args, findings)
    sizes = _frame_sizes(args, findings)
    clip_set = _read_set(args, findings)
    if clip_set is None:
        return Report(in_order(findings), {}, 0, 0)
    rows = clip_set.clips.rows
    folder = _object_folder(args, rows, findings) if label_map else None
    needs_size = args.model.need_object and args.samples.box_coordinates == "original" and sizes is not None
    settings = RecordSettings(clip_settings(args, label_map), folder, needs_size)
    check = partial(check_record, settings=settings, reader=ShardReader(clip_set.index_dir))
    fate = _Fate(np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool))
    is_sample = np.zeros(len(rows), dtype=bool)
    is_sample[clip_set.samples] = True
    records = object_files = kept_boxes = 0
    tasks = _tasks(clip_set, sizes or {}, fate, findings)
    for task, result in check_all(check, tasks, len(rows), args.workers):
        findings += map(compact, result.findings)
        fate.is_lost[task.row] = not result.is_readable
        if is_sample[task.row]:
            fate.stops.update(finding.kind for finding in result.findings if finding.kind in STOPS)
        records += 1
        object_files += result.object_files
        kept_boxes += result.kept_boxes
    findings += _stops(args, clip_set, fate)
    findings += wrong_order(args, findings, object_files)
    if folder:
        findings += nothing_kept(args, findings, kept_boxes)
        findings += list(misfits(args, findings, rows))
    return Report(in_order(findings), {"train": len(rows)}, records, object_files)


def _frame_sizes(args: CheckArguments, findings: list[Finding]) -> Mapping[str, tuple[int, int]] | None:
    """Sizes of --frame_sizes, empty without it; None, with a finding, if the file cannot be read."""
    try:
        return read_frame_sizes(args.frame_sizes) if args.frame_sizes else {}
    except (OSError, ValueError) as error:
        findings.append(stop(error))
        return None


def _object_folder(args: CheckArguments, listed: Container[str], findings: list[Finding]) -> Path | None:
    folder = Path(args.object_path)
    if next(object_file_ids(folder), None) is None:
        findings += no_object_files(args, folder)
        return None
    findings += orphans(args, folder, object_file_ids(folder), listed)
    return folder


# -- index and captions


def _read_set(args: CheckArguments, findings: list[Finding]) -> _ClipSet | None:
    """Read index and captions as preparing them does, without tagging; None, with a finding, if training cannot."""
    noted: Counter[tuple[str, str]] = Counter()

    def note(name: str, example: str) -> None:
        noted[name, example] += 1

    captions = Path(args.data_path)
    try:
        index_dir = find_shards(args)
        index = require_inputs(captions, index_dir)
        clips, shards = clip_places(index, note)
        has_caption = bytearray(len(clips.offsets))
        samples = np.fromiter(_samples(captions, clips, has_caption, note), dtype=np.int64)
    except (OSError, ValueError) as error:
        findings.append(stop(error))
        return None
    if not len(samples):  # what is wrong with each of them is one thing
        findings.append(stop(f"no caption of {captions} belongs to a clip of {index}"))
        return None
    for (name, example), count in noted.items():
        kind, detail = LEFT_OUT[name]
        file = str(index if name in OF_INDEX else captions)
        video_id = "" if kind == "broken_index_line" else example
        findings.append(Finding(kind, video_id, file, detail.format(example=example, count=count, times=count + 1)))
    without = (video_id for video_id, row in clips.rows.items() if not has_caption[row])
    findings += [Finding("no_caption", video_id, str(captions), "") for video_id in without]
    return _ClipSet(index_dir, clips, shards, samples)


def _samples(path: Path, clips: Clips, has_caption: bytearray, note: Note) -> Iterator[int]:
    """Yield the clip's row of each caption that holds a word."""
    captioned = captioned_clips(path, clips, has_caption, note)
    for video_id, row, caption in tqdm(captioned, unit=" captions", disable=None):
        if split_words(caption):
            yield row
        else:
            note("empty_captions", video_id)


# -- shards


def _tasks(
    clip_set: _ClipSet, sizes: Mapping[str, tuple[int, int]], fate: _Fate, findings: list[Finding]
) -> Iterator[RecordTask]:
    """Yield the clips whose place is in a shard, shard by shard from front to back; the others are findings."""
    clips, reader = clip_set.clips, ShardReader(clip_set.index_dir)
    names = list(clips.rows)
    order = np.lexsort((clips.offsets, clips.shards))
    bounds = np.searchsorted(clips.shards[order], np.arange(len(clip_set.shards) + 1))
    for shard, (start, end) in zip(clip_set.shards, pairwise(bounds), strict=True):
        rows = order[start:end]
        path = resolve_shard(shard, clip_set.index_dir)
        try:
            inside = _clips_inside(reader.locate(path), clips.offsets[rows])
        except OSError as error:
            fate.is_missing[rows] = True
            ids = first_ids([names[row] for row in rows])
            findings.append(Finding("missing_shard", shard, path, f"{len(rows)} clips ({ids}): {error}"))
            continue
        beyond = rows[inside.clips :]
        fate.is_lost[beyond] = True
        if len(beyond) and inside.is_cut:
            ids = first_ids([names[row] for row in beyond])
            detail = f"{len(beyond)} of {len(rows)} clips lie beyond its end, byte {inside.size}: {ids}"
            findings.append(Finding("truncated_shard", shard, path, detail))
        else:
            findings += [
                Finding("outside_shard", names[row], path, f"offset {clips.offsets[row]} of {inside.size} bytes")
                for row in beyond
            ]
        for row in rows[: inside.clips]:
            video_id = names[row]
            yield RecordTask(video_id, int(row), path, int(clips.offsets[row]), sizes.get(video_id))


class _Inside(NamedTuple):
    """The first `clips` clips may be whole in a shard of `size` bytes; the rest is cut off, or the index is wrong."""

    clips: int
    is_cut: bool
    size: int


def _clips_inside(path: Path, offsets: np.ndarray) -> _Inside:
    """Tell how many of the clips at `offsets` (rising) a shard holds; OSError if it cannot be opened.

    A shard was cut short if a listed record has only its beginning there, or should start exactly where the file ends.
    """
    size = path.stat().st_size
    count = int(np.searchsorted(offsets, size))
    with path.open("rb") as file:
        if count:
            last = int(offsets[count - 1])
            try:
                is_cut = last + HEADER.size > size or last + record_length(payload_length(file, last)) > size
            except DamagedRecord:
                is_cut = False  # no record starts there, which reading it as a clip reports
            if is_cut:
                return _Inside(int(np.searchsorted(offsets, last)), True, size)
    return _Inside(count, bool(count < len(offsets) and offsets[count] == size), size)


def _stops(args: CheckArguments, clip_set: _ClipSet, fate: _Fate) -> Iterator[Finding]:
    """Reasons why training does not start, or stops on the way."""
    samples = clip_set.samples
    missing = int(fate.is_missing[samples].sum())
    if missing:
        yield stop(f"{missing} of {len(samples)} captions belong to clips of shards that are not there")
    for kind, count in fate.stops.items():
        if 2 * count > len(samples):
            yield stop(STOPS[kind].format(count=count, rate=args.frames.feature_framerate))
            return
    run, limit = longest_run(fate.is_lost[samples]), min(MAX_BAD_CLIPS, len(samples))
    if run >= limit:
        yield stop(f"{run} samples in a row, of {len(samples)}, cannot be read: training gives up after {limit}")


def longest_run(is_lost: np.ndarray) -> int:
    """Longest run of True in (S,) bool, whose end is followed by its beginning."""
    kept = np.flatnonzero(~is_lost)
    if not len(kept):
        return len(is_lost)
    return int(np.diff(kept, append=kept[0] + len(is_lost)).max()) - 1
