"""Detections as programs write them, a record per object, made into the entries of object files."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dataloaders.frames import Clip
from modules.boxes import RELATIVE, fitting, likely_formats, to_pixels
from modules.foreign_text import is_class_name
from modules.utils_object_tractor import MAX_CONFIDENCE, MAX_COORDINATE
from utils.preparation.detectors import Frame

# The fields of an object's name, box and confidence: of object files, and of transformers' pipelines.
OWN_FIELDS, PIPELINE_FIELDS = ("class", "rect", "conf"), ("label", "box", "score")
EDGES = ("xmin", "ymin", "xmax", "ymax")
WITH_EDGES = ("xyxy", f"{RELATIVE}xyxy")


def read_objects(value: Any, where: str, box_format: str = "xyxy") -> Frame:
    """The objects of a frame, a list of records or {"objects": [...]}; each as by `read_record`.

    Raises:
        ValueError: no such list, or a record that is none.
    """
    objects = value.get("objects") if isinstance(value, dict) else value
    if not isinstance(objects, list):
        raise ValueError(f"{where}: no list 'objects'")
    return [read_record(entry, f"{where}: object {place}", box_format) for place, entry in enumerate(objects)]


def read_record(
    entry: Any, where: str, box_format: str = "xyxy", fields: Sequence[str] | None = None
) -> dict[str, Any]:
    """An object under the names of object files, with all else that is in its record; its box is as it was written.

    Args:
        entry: the record.
        where: it stands, for messages.
        box_format: that the boxes are in; those that name their edges can be in two only.
        fields: its names of class, box and confidence; None: those of object files or of transformers' pipelines.

    Raises:
        ValueError: a field is missing, or is not what it is to be; names record and field.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {_shown(entry)}, not a record with {_listed(OWN_FIELDS)}")
    if fields is None:
        is_pipelines = not any(name in entry for name in OWN_FIELDS) and any(name in entry for name in PIPELINE_FIELDS)
        fields = PIPELINE_FIELDS if is_pipelines else OWN_FIELDS
    label, box, score = fields
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        label: (is_class_name, "a name"),
        box: (lambda value: isinstance(value, dict) or _are_numbers(value), "four finite numbers"),
        score: (_is_share, "a number from 0 to 1"),
    }
    for name, (is_good, wanted) in checks.items():
        if name not in entry:
            raise ValueError(f'{where} is {_shown(entry)}, without "{name}"; records have {_listed(fields)}')
        if not is_good(entry[name]):
            raise ValueError(f'{where}: "{name}" is {_shown(entry[name])}, not {wanted}')
    rect = _edges(entry[box], f'{where}: "{box}"', box_format) if isinstance(entry[box], dict) else entry[box]
    rest = {name: value for name, value in entry.items() if name not in fields}
    return {"class": entry[label], "rect": rect, "conf": entry[score], **rest}


def _edges(box: Mapping[str, Any], where: str, box_format: str) -> list[float]:
    values = [box[name] for name in EDGES] if set(box) == set(EDGES) else []
    if not _are_numbers(values):
        raise ValueError(f"{where} is {_shown(box)}, not four finite numbers under {', '.join(EDGES)}")
    if box_format not in WITH_EDGES:
        raise ValueError(f"{where} names its edges, so it is not {box_format}; try --box_format {WITH_EDGES[0]}")
    return values


def in_pixels(frames: Sequence[Frame], box_format: str, clip: Clip, where: str) -> list[Frame]:
    """The frames of a clip with rects x1, y1, x2, y2 in pixels of the video.

    Raises:
        ValueError: the boxes make sense in another format only, or most of them in none.
    """
    rects = np.array([entry["rect"] for frame in frames for entry in frame], dtype=np.float64).reshape(-1, 4)
    size = (clip.width, clip.height)
    if likely := likely_formats(rects, box_format, size):
        # Of several formats the wrong one may pass; only who made the boxes knows.
        remedy = f"try --box_format {likely[0]}" if len(likely) == 1 else "say with --box_format which was written"
        raise ValueError(f"{where}: its boxes make sense as {' or '.join(likely)}, not as {box_format}; {remedy}")
    _, misfits = fitting(rects, box_format, size)
    if 2 * misfits.sum() > len(rects):
        raise ValueError(
            f"{where}: {misfits.sum()} of {len(rects)} boxes do not lie in a frame of {size[0]}x{size[1]}, as "
            f"{box_format} or in another --box_format; for example {rects[misfits][0].tolist()}. Were they found in "
            "frames of another size?"
        )
    if box_format == "xyxy":
        return list(frames)
    converted = iter(np.round(to_pixels(rects, box_format, size), 2).tolist())
    return [[{**entry, "rect": next(converted)} for entry in frame] for frame in frames]


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 4 and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -MAX_COORDINATE <= value <= MAX_COORDINATE


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= MAX_CONFIDENCE


def _listed(fields: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in fields)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def _shown(value: Any) -> str:
    """A value of a file for a message, cut where it is long or deep."""
    return _short.repr(value)
