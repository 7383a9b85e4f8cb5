"""Check one clip of a shard: its record, read as pre-training reads it, and its object file.

Free of PyTorch, as utils/checks/clips.py is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataloaders.frames import pick_positions
from dataloaders.object_records import find_object_file
from dataloaders.stored_clips import ShardReader, StoredClip, WrongClip
from dataloaders.stored_frames import stored_candidates
from dataloaders.tfrecord import DamagedRecord
from utils.checks.clips import ClipResult, ClipSettings, ObjectResult, check_objects, other_frames
from utils.checks.findings import Finding


@dataclass(frozen=True)
class RecordSettings:
    """The settings by which pre-training reads records and objects.

    clip: the frame rule and how objects are read. object_folder: folder of the object files, None if none are checked.
    needs_size: the size of the original video is needed wherever there are objects, to map their boxes.
    """

    clip: ClipSettings
    object_folder: Path | None
    needs_size: bool


class RecordTask(NamedTuple):
    """A clip to check: row in the index, path of its shard, offset of its record, (width, height) of --frame_sizes."""

    video_id: str
    row: int
    shard: str
    offset: int
    frame_size: tuple[int, int] | None

    def unreadable(self, reason: str) -> Finding:
        """The finding that the record cannot be read."""
        return Finding("damaged_record", self.video_id, self.shard, reason)


def check_record(task: RecordTask, settings: RecordSettings, reader: ShardReader) -> ClipResult:
    """Read a clip's record and object file; whatever is wrong with them is a finding.

    The result counts as readable unless training leaves the clip out.
    """
    findings: list[Finding] = []
    clip, picked, is_lost = None, None, False
    try:
        clip = reader.read(task.shard, task.offset, task.video_id)
        picked = _check_frames(clip, task, settings.clip, findings)
        is_lost = picked is None
    except WrongClip as error:
        findings.append(Finding("other_clip", task.video_id, task.shard, _detail(error, task)))
        is_lost = True
    except DamagedRecord as error:
        # A record that was read has lost only frames; one that was not may be anything.
        kind = "undecodable_frame" if clip else "damaged_record"
        findings.append(Finding(kind, task.video_id, task.shard, _detail(error, task)))
        is_lost = True
    size = _size(clip, task)
    objects = _check_objects(task, size, settings)
    findings += objects.findings
    if clip and not is_lost and settings.needs_size and objects.is_usable and size is None:
        findings.append(Finding("unknown_size", task.video_id, task.shard, "neither in the shard nor in --frame_sizes"))
        is_lost = True
    if clip and picked is not None and objects.is_usable and clip.frame_indices is not None and objects.path:
        findings += other_frames(task.video_id, objects.path, clip.frame_indices[picked].tolist())
    return ClipResult(findings, not is_lost, objects.files, objects.kept_boxes)


def _check_frames(
    clip: StoredClip, task: RecordTask, settings: ClipSettings, findings: list[Finding]
) -> np.ndarray | None:
    """Decode the frames that training picks, by their places; None if the record lacks them.

    Raises:
        DamagedRecord: one of them does not decode.
    """
    try:
        candidates = stored_candidates(clip, settings.frames.feature_framerate, task.video_id)
    except ValueError as error:
        findings.append(Finding("missing_rate", task.video_id, task.shard, _detail(error, task)))
        return None
    picked = candidates[pick_positions(len(candidates), settings.max_frames, settings.frames.slice_framepos)]
    clip.decode(picked)
    if len(candidates) < settings.min_candidates:
        detail = f"{len(candidates)} candidate frames, fewer than {settings.min_candidates}"
        findings.append(Finding("short_video", task.video_id, task.shard, detail))
    return picked


def _size(clip: StoredClip | None, task: RecordTask) -> tuple[int, int] | None:
    if clip and clip.width is not None and clip.height is not None:
        return clip.width, clip.height
    return task.frame_size


def _check_objects(task: RecordTask, size: tuple[int, int] | None, settings: RecordSettings) -> ObjectResult:
    folder = settings.object_folder
    if folder is None:
        return ObjectResult([], True, 0)  # training may still have a store of them
    path = find_object_file(folder, task.video_id)
    if path is None:
        missing = Finding("missing_objects", task.video_id, str(folder), f"no {task.video_id}.json")
        return ObjectResult([missing], False, 0)
    frame_size = size if settings.clip.has_original_boxes else None
    return check_objects(task.video_id, str(path), frame_size, settings.clip)


def _detail(error: Exception, task: RecordTask) -> str:
    """An error's message without what other columns say."""
    return str(error).removeprefix(f"{task.shard}, ").removeprefix(f"{task.video_id}: ")
