"""Objects of one clip: the detector's file they are read from, which of its boxes are kept, and their stored form.

The stored form is a fixed header (magic, kind, O, T) and raw little-endian arrays; nothing is unpickled to read it.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from modules.boxes import RECT_ORDERS
from modules.config import check_settings, setting
from modules.tracking import TRAJECTORY_RULES, attribute_vectors, summed_by_track, track_boxes
from modules.utils_object_tractor import (
    OBJECT_RULES,
    ObjectReport,
    choose_of_frames,
    load_object_file,
    trajectory_ids,
)

HEADER = struct.Struct("<4sBxHi")
MAGIC = b"OBJ2"
OBJECTS, PROBLEM, OBJECTS_OF_FRAMES = 0, 1, 2
JSON_FOLDERS = ("", "tsv_files")
REPORT_FOLDER = "extraction"  # of utils/extract_objects.py, beside the files
MAX_REPORT_BYTES = 1 << 20
RELEASED_SPLIT_FOLDER = "inference/vinvl_vg_x152c4"


@dataclass(frozen=True)
class ObjectRules:
    """Which boxes of the object files are read, and which of them are one trajectory."""

    object_rule: str = setting(
        "intended", "which boxes are kept of a frame's detections", choices=OBJECT_RULES, seen=True
    )
    trajectory: str = setting(
        "class", "boxes of one trajectory: all of a class, or tracked over frames", choices=TRAJECTORY_RULES, seen=True
    )
    rect_order: str = setting("xyxy", "order of a box's numbers in the files", choices=RECT_ORDERS, seen=True)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class ObjectSettings:
    """The settings that a store's content depends on, beside the object files.

    object_count: boxes per frame, O. frames: number of frames that every file must have, T; None accepts any.
    """

    object_count: int
    frames: int | None = None
    rules: ObjectRules = ObjectRules()

    def stored(self) -> dict[str, Any]:
        """The settings as plain values by the names that a store's files use."""
        rules = self.rules
        return {
            "object_count": self.object_count,
            "rule": rules.object_rule,
            "rect_order": rules.rect_order,
            "frames": self.frames,
            "trajectory": rules.trajectory,
        }

    @classmethod
    def from_stored(cls, values: Mapping[str, Any]) -> ObjectSettings:
        """The settings that `stored` gave as plain values."""
        rules = ObjectRules(values["rule"], values["trajectory"], values["rect_order"])
        return cls(values["object_count"], values["frames"], rules)


class ObjectRecord(NamedTuple):
    """Objects of one clip: T frames, O boxes per frame."""

    boxes: np.ndarray  # (T, O, 4) float32 x1, y1, x2, y2 in original pixels, -1 padding
    classes: np.ndarray  # (T, O) int64 label map indices, 0 padding
    tracks: np.ndarray  # (T, O) int64 trajectory of each box, 0 padding; equal to `classes` under the class rule
    trajectory_ids: np.ndarray  # (2 * O,) int64, 0 padded at the end
    frame_indices: np.ndarray | None = None  # (T,) int64 numbers of the frames in the video, where they are known

    def named_trajectories(self, names: Sequence[str]) -> dict[int, str]:
        """Class name by trajectory, from the names by index; all boxes of a trajectory are of one class."""
        pairs = zip(self.tracks.flat, self.classes.flat, strict=True)
        return {int(track): names[int(label)] for track, label in pairs if track}


def split_object_folder(object_path: str | Path, split: str) -> Path:
    """Return the folder of a split's object files, as `object_path` of `build_object_store`.

    The released layout of LSMDC and DiDeMo is {object_path}/{split}/inference/vinvl_vg_x152c4/tsv_files/*.json; without
    it {object_path}/{split} is taken, and without that `object_path`, which then serves all splits.
    """
    folder = Path(object_path, split)
    for candidate in (folder / RELEASED_SPLIT_FOLDER, folder):
        if candidate.is_dir():
            return candidate
    return Path(object_path)


def find_object_file(object_path: str | Path, video_id: str) -> Path | None:
    """Return the object file of a clip, {video_id}.json in `object_path` or its folder tsv_files; None when absent.

    Where there is no file of the name but a folder, or a link to nowhere, that is returned, so that reading it says so.
    """
    paths = [Path(object_path, folder, f"{video_id}.json") for folder in JSON_FOLDERS]
    for exists in (os.path.isfile, os.path.lexists):
        for path in paths:
            if exists(path):
                return path
    return None


def object_file_ids(object_path: Path) -> Iterator[str]:
    """Yield the names, without .json, of all object files of a folder, in no order, whether they can be read or not."""
    for folder in JSON_FOLDERS:
        place = object_path / folder
        if not place.is_dir():
            continue
        with os.scandir(place) as entries:
            for entry in entries:
                is_first = not folder or not os.path.lexists(object_path / entry.name)
                if entry.name.endswith(".json") and is_first:
                    yield entry.name[: -len(".json")]


def read_record(
    path: Path,
    label_map: Mapping[str, Any],
    settings: ObjectSettings,
    report: ObjectReport,
    frame_size: tuple[int, int] | None = None,
) -> ObjectRecord:
    """Return the objects in a clip's file; arguments and errors as `load_objects`."""
    loaded = load_objects(path, label_map, settings, report, frame_size)
    return _record(loaded, settings, detected_frames(path, len(loaded["objects"])))


def record_of_frames(
    frames: Sequence[Mapping[str, Any]],
    where: str,
    label_map: Mapping[str, Any],
    settings: ObjectSettings,
    report: ObjectReport,
    frame_indices: np.ndarray,
) -> ObjectRecord:
    """As `read_record`, of what an object file would hold; `where` names it, `frame_indices` (T,) are its frames."""
    count, rules = settings.object_count, settings.rules
    loaded = choose_of_frames(
        list(frames), where, count, label_map, report, rules.object_rule, rules.rect_order, None, settings.frames
    )
    return _record(loaded, settings, frame_indices)


def _record(loaded: dict[str, Any], settings: ObjectSettings, indices: np.ndarray | None) -> ObjectRecord:
    tracks, sums = _trajectories(loaded, settings)
    listed = trajectory_ids(sums, settings.object_count, settings.rules.object_rule)
    return ObjectRecord(loaded["objects"], loaded["obj_cls"], tracks, listed, indices)


def detected_frames(path: Path, frames: int) -> np.ndarray | None:
    """Numbers of the frames that an object file's boxes are of, (T,) int64, by the report of utils/extract_objects.py.

    None for files of other detectors, and for a report that does not fit the file.
    """
    report = path.parent / REPORT_FOLDER / path.name
    try:
        if not report.is_file() or report.stat().st_size > MAX_REPORT_BYTES:
            return None
        indices = json.loads(report.read_bytes())["frame_indices"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_list = isinstance(indices, list) and all(type(index) is int and 0 <= index < 2**31 for index in indices)
    return np.array(indices, dtype=np.int64) if is_list and len(indices) == frames else None


def load_objects(
    path: str | Path,
    label_map: Mapping[str, Any],
    settings: ObjectSettings,
    report: ObjectReport,
    frame_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Read a clip's file by a store's settings; what is returned and raised is `load_object_file`'s."""
    rules = settings.rules
    return load_object_file(
        path,
        settings.object_count,
        label_map,
        report,
        rules.object_rule,
        rules.rect_order,
        frame_size,
        settings.frames,
    )


def _trajectories(loaded: dict[str, Any], settings: ObjectSettings) -> tuple[np.ndarray, Mapping[int, float]]:
    """(T, O) trajectory of each box, and trajectory -> summed confidence in order of first appearance."""
    if settings.rules.trajectory == "class":
        return loaded["obj_cls"], loaded["conf_set"]
    looks = attribute_vectors(loaded["attributes"], settings.object_count)
    tracks = track_boxes(loaded["objects"], loaded["obj_cls"], looks)
    return tracks, summed_by_track(tracks, loaded["confidences"])


def pack_record(record: ObjectRecord) -> bytes:
    """Return the stored form of a record."""
    frames, object_count = record.classes.shape
    parts = [record.classes, record.tracks, record.trajectory_ids]
    if record.frame_indices is not None:
        parts.append(record.frame_indices)
    integers = (part.astype("<i4").tobytes() for part in parts)
    kind = OBJECTS if record.frame_indices is None else OBJECTS_OF_FRAMES
    header = HEADER.pack(MAGIC, kind, object_count, frames)
    return b"".join((header, record.boxes.astype("<f4").tobytes(), *integers))


def unpack_record(value: bytes) -> ObjectRecord | str:
    """Return the record in a stored value, or the text of the problem that its file had.

    Raises:
        ValueError: if the value is not one that `pack_record` or the builder wrote.
    """
    if len(value) < HEADER.size or value[: len(MAGIC)] != MAGIC:
        raise ValueError("value is not an object record")
    _, kind, object_count, frames = HEADER.unpack_from(value)
    if kind not in (OBJECTS, PROBLEM, OBJECTS_OF_FRAMES):
        raise ValueError(f"object record of an unknown kind, {kind}")
    if kind == PROBLEM:
        return value[HEADER.size :].decode()
    slots, numbered = frames * object_count, frames if kind == OBJECTS_OF_FRAMES else 0
    if object_count < 1 or frames < 0 or len(value) != HEADER.size + 4 * (6 * slots + 2 * object_count + numbered):
        raise ValueError(f"object record of {len(value)} bytes does not fit {frames} frames of {object_count} boxes")
    boxes = np.frombuffer(value, "<f4", 4 * slots, HEADER.size)
    integers = np.frombuffer(value, "<i4", offset=HEADER.size + 16 * slots).astype(np.int64)
    shape = (frames, object_count)
    classes, tracks = integers[: 2 * slots].reshape(2, *shape)
    listed, indices = integers[2 * slots :][: 2 * object_count], integers[2 * slots + 2 * object_count :]
    return ObjectRecord(boxes.reshape(*shape, 4).copy(), classes, tracks, listed, indices if numbered else None)


def pack_problem(message: str) -> bytes:
    """Return the stored form of a clip whose file gives no objects."""
    return HEADER.pack(MAGIC, PROBLEM, 0, 0) + message.encode(errors="backslashreplace")
