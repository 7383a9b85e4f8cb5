"""Check one clip: its video, read as training reads it, and its object file against that video.

Free of PyTorch, so that worker processes start quickly and stay small.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import lmdb
import numpy as np
from tqdm import tqdm

from dataloaders.container_end import cut_short
from dataloaders.decoders import UnreadableVideo
from dataloaders.frames import Clip, FrameSettings, read_clip
from dataloaders.lmdb_files import value_as_file
from dataloaders.object_records import ObjectSettings, detected_frames, load_objects
from modules.utils_object_tractor import ObjectFileError, ObjectReport
from utils.checks.findings import Finding
from utils.preparation.video_workers import WorkerDied, WorkerPool

# Containers are off by a frame or two as a rule. Whether many frames too few are a fault cannot be told from their
# number (see dataloaders/container_end.py): without other evidence they are a note, and only from this share on.
FEW_FRAMES = 2
CLEAR_SHARE = 0.1
OBJECT_KINDS = {
    "missing_files": "missing_objects",
    "broken_files": "broken_objects",
    "wrong_frame_counts": "wrong_frame_count",
    "rect_order_files": "wrong_rect_order",
    "malformed_objects": "malformed_object",
    "unknown_classes": "unknown_class",
    "degenerate_boxes": "degenerate_box",
    "outside_boxes": "outside_box",
    "clipped_boxes": "clipped_box",
    "clips_without_objects": "no_objects",
}


@dataclass(frozen=True)
class ClipSettings:
    """The settings by which training reads videos and objects.

    max_frames, frames: see `dataloaders.frames.read_clip`. min_candidates: a video with fewer candidate frames is noted
    as short. objects: see `dataloaders.object_records.load_objects`; label_map: None without objects.
    has_original_boxes: boxes are in pixels of the video, so that those outside its frame can be told.
    """

    max_frames: int
    frames: FrameSettings
    min_candidates: int
    objects: ObjectSettings
    has_original_boxes: bool
    label_map: dict[str, Any] | None


class ClipTask(NamedTuple):
    """A clip to check: its video file, or the LMDB that holds it, or neither if it is missing; its object files."""

    video_id: str
    video: str | None
    lmdb: str | None
    objects: tuple[str, ...]

    def unreadable(self, reason: str) -> Finding:
        """The finding that no frame of the video can be had."""
        return Finding("unreadable_video", self.video_id, self.video or self.lmdb or "", reason)


class ClipResult(NamedTuple):
    """Findings on a clip, whether its video gives frames, its object files that are lists, and the boxes used."""

    findings: list[Finding]
    is_readable: bool
    object_files: int
    kept_boxes: int = 0


def check_clip(task: ClipTask, settings: ClipSettings) -> ClipResult:
    """Read a clip's video and object files; whatever is wrong with them is a finding."""
    findings: list[Finding] = []
    clip = None
    try:
        if task.video:
            clip = _check_video(task.video_id, Path(task.video), task.video, settings, findings)
        elif task.lmdb:
            with value_as_file(Path(task.lmdb), task.video_id) as path:
                clip = _check_video(task.video_id, path, f"{task.lmdb}, key {task.video_id!r}", settings, findings)
    except (OSError, KeyError, lmdb.Error) as error:
        findings.append(task.unreadable(str(error)))
    size = (clip.width, clip.height) if clip and settings.has_original_boxes else None
    reports = [check_objects(task.video_id, path, size, settings) for path in task.objects]
    for file, report in zip(task.objects, reports, strict=True):
        findings.extend(report.findings)
        if clip and report.is_usable:
            findings.extend(other_frames(task.video_id, file, clip.frame_indices.tolist()))
    files, kept = (sum(getattr(report, name) for report in reports) for name in ("files", "kept_boxes"))
    return ClipResult(findings, clip is not None, files, kept)


class CheckTask(Protocol):
    """One check of a worker process."""

    def unreadable(self, reason: str) -> Finding:
        """The finding that stands for the result when the process dies of it."""


Task = TypeVar("Task", bound=CheckTask)


def check_all(
    check: Callable[[Task], ClipResult], tasks: Iterable[Task], total: int, workers: int
) -> Iterator[tuple[Task, ClipResult]]:
    """Yield the `total` tasks and their results in order, holding few; a decoder that crashes costs one clip.

    Raises:
        CannotStart: no worker process starts.
    """
    with WorkerPool(partial(_guarded, check), min(workers, max(1, total))) as pool:
        for task, result in tqdm(pool.map(tasks), total=total, unit="clip", disable=None):
            if isinstance(result, WorkerDied):
                yield task, ClipResult([task.unreadable(result.reason)], False, 0)
            else:
                yield task, result


def _guarded(check: Callable[[Task], ClipResult], task: Task) -> ClipResult:
    """The result of a check; an error that no reader expects ends the check of one clip and not the whole."""
    try:
        return check(task)
    except Exception as error:
        return ClipResult([task.unreadable(f"{type(error).__name__}: {error}")], False, 0)


def _check_video(video_id: str, path: Path, name: str, settings: ClipSettings, findings: list[Finding]) -> Clip | None:
    def find(kind: str, detail: str) -> None:
        findings.append(Finding(kind, video_id, name, detail))

    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        find("unreadable_video", "is no file but a folder, a pipe or a device")
        return None
    if status.st_size == 0:
        find("empty_video", "zero bytes")
        return None
    reason = cut_short(path)
    try:
        clip = read_clip(path, settings.max_frames, settings.frames, _nothing)
    except UnreadableVideo as error:
        message = str(error).removeprefix(f"{path}: ")
        find("truncated_video" if reason else "unreadable_video", f"{message}; {reason}" if reason else message)
        return None
    decoded, stated = clip.decoded_frames, clip.stated_frames
    frames = f"{decoded} of {stated or 'an unknown number of'} frames decode"
    lacking = stated - decoded
    if reason and (not stated or lacking > FEW_FRAMES):
        find("truncated_video", f"{frames}; {reason}")
    elif lacking > max(FEW_FRAMES, CLEAR_SHARE * stated):
        find("fewer_frames", f"{frames}: a damaged file, or one cut or joined without encoding it again")
    for note in clip.notes:
        find("no_time_stamps" if "time stamps" in note else "other_decoder", note.removeprefix(f"{path}: "))
    candidates = clip.num_candidates
    if candidates < settings.min_candidates:
        find("short_video", f"{candidates} candidate frames in {clip.seconds:.1f} s, fewer than "
             f"{settings.min_candidates}")  # fmt: skip
    return clip


def other_frames(video_id: str, path: str, read: list[int]) -> Iterator[Finding]:
    """The finding that boxes are of other frames than are `read`, where their file says of which."""
    detected = detected_frames(Path(path), len(read))
    if detected is not None and detected.tolist() != read:
        detail = f"of the frames {detected.tolist()}, and {read} are read: run utils/extract_objects.py again"
        yield Finding("other_frames", video_id, path, detail)


def _nothing(image: np.ndarray) -> np.ndarray:
    """Keep no pictures: only whether they can be had matters."""
    return image[:1, :1].copy()


class ObjectResult(NamedTuple):
    """Findings on an object file, whether training gets objects from it, 1 if it is a JSON list, and its boxes used.

    path: of the file; "" where there is none.
    """

    findings: list[Finding]
    is_usable: bool
    files: int
    kept_boxes: int = 0
    path: str = ""


def check_objects(video_id: str, path: str, frame_size: tuple[int, int] | None, settings: ClipSettings) -> ObjectResult:
    """Read an object file as the object store does; `frame_size` is (width, height) in its boxes' pixels, if known."""
    assert settings.label_map is not None
    report = ObjectReport(max_examples=1)
    is_usable = True
    try:
        load_objects(path, settings.label_map, settings.objects, report, frame_size)
    except ObjectFileError as error:
        report.note(error.problem, path, str(error))
        is_usable = False
    findings = []
    for problem, count in report.problems().items():
        example = report.examples[problem][0].removeprefix(path).removeprefix(": ")
        more = f" (and {count - 1} more)" if count > 1 else ""
        findings.append(Finding(OBJECT_KINDS[problem], video_id, path, example + more))
    return ObjectResult(findings, is_usable, report.files, report.kept_boxes, path)
