"""From a detector's object files to the few boxes per frame and the trajectory list that the model reads.

Numpy only: the module is also used by processes that must not load PyTorch.
"""

from __future__ import annotations

import logging
import math
import os
import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from modules.boxes import (
    LAYOUTS,
    PADDING,
    RECT_ORDERS,
    RELATIVE,
    box_area,
    edges,
    iou_matrix,
    likely_formats,
    looks_relative,
    to_xyxy,
)
from modules.characters import printable
from modules.foreign_text import is_class_name, read_json, why_no_file

logger = logging.getLogger(__name__)

OBJECT_RULES = ("intended", "released")
OVERLAP_LIMIT = 0.5
ATTRIBUTE_CLASSES = 10
ATTRIBUTES_PER_CLASS = 2
# Detectors write edges a fraction of a pixel beyond the frame; only more than this is worth a line in the report.
BORDER_TOLERANCE = 1.0
MAX_CONFIDENCE = 1 + 1e-6  # scores in single precision may be rounded up
MAX_COORDINATE = 2.0**24  # pixels; far beyond all frames, and areas and sums of such boxes stay finite
MAX_SCORE = 1e6  # of an attribute; some detectors write logits
RELATIVE_SLACK = 0.01  # by which boxes in shares of the frame reach beyond its border
# Limits that keep a damaged or mistaken file from taking all memory.
MAX_FILE_BYTES, MAX_FRAMES, MAX_ATTRIBUTES = 64 << 20, 1 << 16, 1000
MAX_OBJECTS_OF_FRAME, MAX_OBJECTS = 10_000, 200_000  # of a frame and of a file; detectors give some hundred a frame
LARGE_FRAME = 512  # objects from which on overlaps are worked out for those that are kept only
EXTRACTION = "utils/extract_objects.py --detector precomputed"
LAYOUT_NAMES = {
    "xyxy": "x1, y1, x2, y2",
    "xxyy": "x1, x2, y1, y2",
    "xywh": "x, y, width, height",
    "cxcywh": "centre x, centre y, width, height",
}
COLOURS = frozenset(
    ("black", "white", "gray", "grey", "silver", "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown")
    + ("tan", "beige", "gold", "blonde", "maroon", "teal")
)

PROBLEMS = {
    "missing_files": "clips without an object file",
    "broken_files": "files that could not be read",
    "wrong_frame_counts": "files with a wrong number of frames",
    "rect_order_files": "files whose boxes make sense in another order or form only",
    "malformed_objects": "objects without a usable class, rect or conf, or with malformed attributes",
    "unknown_classes": "objects of a class that the label map does not have",
    "degenerate_boxes": "boxes without width or height, not finite or absurdly large",
    "outside_boxes": "boxes wholly outside the frame",
    "clipped_boxes": "boxes cut at the border of the frame",
    "clips_without_objects": "files without a single usable object",
}


@dataclass
class ObjectReport:
    """Counts of what was read from object files and of everything that was wrong with them, with the first examples.

    largest: the largest coordinate of all boxes.
    """

    files: int = 0
    boxes: int = 0
    kept_boxes: int = 0
    missing_files: int = 0
    broken_files: int = 0
    wrong_frame_counts: int = 0
    rect_order_files: int = 0
    malformed_objects: int = 0
    unknown_classes: int = 0
    degenerate_boxes: int = 0
    outside_boxes: int = 0
    clipped_boxes: int = 0
    clips_without_objects: int = 0
    largest: float = 0.0
    max_examples: int = 5
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, problem: str, where: str, detail: str = "") -> None:
        """Count one `problem` (a key of PROBLEMS), seen in the file or clip `where`."""
        setattr(self, problem, getattr(self, problem) + 1)
        shown = self.examples.setdefault(problem, [])
        if len(shown) < self.max_examples:
            shown.append(printable(f"{where}: {detail}" if detail else where))

    def merge(self, other: ObjectReport) -> None:
        """Add the counts of `other` and as many of its examples as there is room for."""
        for name in ("files", "boxes", "kept_boxes", *PROBLEMS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.largest = max(self.largest, other.largest)
        for problem, shown in other.examples.items():
            mine = self.examples.setdefault(problem, [])
            mine.extend(shown[: self.max_examples - len(mine)])

    def problems(self) -> dict[str, int]:
        """Return the counts that are not 0, by the names of PROBLEMS."""
        return {name: getattr(self, name) for name in PROBLEMS if getattr(self, name)}

    def summary(self) -> list[str]:
        """Return lines for a log: totals first, then one line per kind of problem with its first examples."""
        lines = [f"{self.files} readable object files, {self.boxes} boxes, {self.kept_boxes} kept"]
        for name, count in self.problems().items():
            shown = self.examples.get(name, [])
            more = f" and {count - len(shown)} more" if count > len(shown) else ""
            lines.append(f"{count} {PROBLEMS[name]}: {'; '.join(shown)}{more}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return asdict(self)


class ObjectFileError(Exception):
    """An object file that gives no objects at all; `problem` is a key of PROBLEMS, the message names the reason."""

    def __init__(self, problem: str, message: str) -> None:
        super().__init__(printable(message))
        self.problem = problem


class Detections(NamedTuple):
    """Detections of one clip, M of them, in the order of the file."""

    frames: np.ndarray  # (M,) int64, frame of each, never falling
    boxes: np.ndarray  # (M, 4) float64 x1, y1, x2, y2, original pixels
    classes: np.ndarray  # (M,) int64, label map indices
    confidences: np.ndarray  # (M,) float64
    entries: list[dict[str, Any]]  # as written in the file

    def select(self, rows: np.ndarray) -> Detections:
        """Return the detections with these row numbers."""
        entries = [self.entries[row] for row in rows]
        return Detections(self.frames[rows], self.boxes[rows], self.classes[rows], self.confidences[rows], entries)


def object_loader_confident(
    vid_path_list: Iterable[tuple[str, str | Path]],
    object_count: int,
    label_map: Mapping[str, Any],
    *,
    rule: str = "intended",
    rect_order: str = "xyxy",
    frame_sizes: Mapping[str, tuple[int, int]] | None = None,
    expected_frames: int | None = None,
    report: ObjectReport | None = None,
) -> dict[str, dict[str, Any]]:
    """Read object files and choose the boxes of each frame.

    Rule "released" is the released code's: in file order an object is taken if its class is new in the frame and it
    overlaps no taken one by IoU 0.5 or more, until there are 2 * object_count. Rule "intended": the most confident box
    wins an overlap, whatever is listed first, and several instances of a class are kept. Both then keep the 2 *
    object_count most confident and of these the object_count largest, in order of area.

    Args:
        vid_path_list: pairs of video id and path of its JSON file.
        object_count: boxes per frame, O.
        label_map: dictionary with "label_to_idx", class name -> index from 1.
        rule: "intended" or "released".
        rect_order: order of the four numbers in the files, "xyxy" or "xxyy" (see `modules.boxes`).
        frame_sizes: video id -> (width, height); without it only negative coordinates can be told to be outside the
            frame.
        expected_frames: number of frames every file must have, T; None accepts any.
        report: counts and examples are added to it; without one the summary is logged as a warning.

    Returns:
        video id -> {"objects": float32 (T, O, 4) original pixels, -1 padded, "obj_cls": int64 (T, O) 0 padded,
        "attr_sentence": str such as "red man, young dog", "conf_set": class index -> summed confidence in the order of
        first appearance, "confidences": float64 (T, O) 0 padded, "attributes": (name, score) pairs of each kept box,
        by frame and slot}. A clip whose file is unusable is in the report and not in the result.
    """
    _check_settings(object_count, rule, rect_order)
    own_report = report is None
    report = ObjectReport() if report is None else report
    result = {}
    for video_id, path in vid_path_list:
        frame_size = frame_sizes.get(video_id) if frame_sizes else None
        try:
            result[video_id] = load_object_file(
                path, object_count, label_map, report, rule, rect_order, frame_size, expected_frames
            )
        except ObjectFileError as error:
            report.note(error.problem, str(path), str(error))
    if own_report and report.problems():
        logger.warning("object files: %s", "\n  ".join(report.summary()))
    return result


def trajectory_ids(conf_set: Mapping[int, float], object_count: int, rule: str = "intended") -> np.ndarray:
    """Return the clip's trajectories: the first 2 * object_count classes, (2 * O,) int64, 0 padded at the end.

    Rule "intended" lists classes by falling summed confidence; "released" cuts the order of first appearance, which
    loses what is only seen late in the clip.
    """
    _check_settings(object_count, rule, "xyxy")
    classes = list(conf_set)
    if rule == "intended":
        classes.sort(key=lambda index: -conf_set[index])
    ids = np.zeros(2 * object_count, dtype=np.int64)
    classes = classes[: 2 * object_count]
    ids[: len(classes)] = classes
    return ids


def load_object_file(
    path: str | Path,
    object_count: int,
    label_map: Mapping[str, Any],
    report: ObjectReport,
    rule: str = "intended",
    rect_order: str = "xyxy",
    frame_size: tuple[int, int] | None = None,
    expected_frames: int | None = None,
) -> dict[str, Any]:
    """Read one object file; arguments and the returned dictionary as in `object_loader_confident`.

    Raises:
        ObjectFileError: if the file gives no objects: broken, wrong number of frames, with relative boxes, or in the
            other rect order. It is not yet counted in `report`.
    """
    raw_frames = _read_frames(path)
    return choose_of_frames(
        raw_frames, str(path), object_count, label_map, report, rule, rect_order, frame_size, expected_frames
    )


def choose_of_frames(
    raw_frames: list[Any],
    where: str,
    object_count: int,
    label_map: Mapping[str, Any],
    report: ObjectReport,
    rule: str = "intended",
    rect_order: str = "xyxy",
    frame_size: tuple[int, int] | None = None,
    expected_frames: int | None = None,
) -> dict[str, Any]:
    """As `load_object_file`, of what such a file holds: a list with {"objects": [...]} per frame.

    Args:
        where: names them in the report.
    """
    report.files += 1
    if expected_frames is not None and len(raw_frames) != expected_frames:
        raise ObjectFileError(
            "wrong_frame_counts", f"has objects for {len(raw_frames)} frames, {expected_frames} frames are sampled"
        )
    usable = usable_objects(raw_frames, label_map["label_to_idx"], where, report, rect_order, frame_size)
    objects = np.full((len(raw_frames), object_count, 4), PADDING, dtype=np.float32)
    classes = np.zeros((len(raw_frames), object_count), dtype=np.int64)
    conf_set: dict[int, float] = {}
    confidences = np.zeros(classes.shape)
    described: list[list[list[tuple[str, float]]]] = []
    attributes: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    bounds = np.searchsorted(usable.frames, np.arange(len(raw_frames) + 1))
    for frame, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        own = slice(start, end)
        chosen = choose_objects(usable.boxes[own], usable.classes[own], usable.confidences[own], object_count, rule)
        objects[frame, : len(chosen)] = usable.boxes[own][chosen]
        classes[frame, : len(chosen)] = usable.classes[own][chosen]
        confidences[frame, : len(chosen)] = usable.confidences[own][chosen]
        described.append([_attributes(usable.entries[start + place]) for place in chosen])
        report.kept_boxes += len(chosen)
        for slot, pairs in enumerate(described[frame]):
            class_index = int(classes[frame, slot])
            conf_set[class_index] = conf_set.get(class_index, 0.0) + float(confidences[frame, slot])
            for name, score in pairs:
                attributes[class_index][name] += score
    if not conf_set:
        report.note("clips_without_objects", where)
    names = {index: name for name, index in label_map["label_to_idx"].items() if index in conf_set}
    sentence = _attribute_sentence([(names[index], attributes[index]) for index in conf_set])
    found = {"objects": objects, "obj_cls": classes, "attr_sentence": sentence, "conf_set": conf_set}
    return {**found, "confidences": confidences, "attributes": described}


def usable_objects(
    raw_frames: list[Any],
    label_to_idx: Mapping[str, int],
    where: str,
    report: ObjectReport,
    rect_order: str = "xyxy",
    frame_size: tuple[int, int] | None = None,
) -> Detections:
    """Return what can be used of an object file's entries, in x1, y1, x2, y2 cut at the frame's border.

    Args:
        raw_frames: the list with an entry per frame.
        label_to_idx: class name -> index from 1.
        where: what is read, for the report, in which all else is counted.
        rect_order, frame_size: as in `load_object_file`.

    Raises:
        ObjectFileError: too many objects, relative boxes, or boxes in another order or form.
    """
    _check_counts(raw_frames)
    listed = _listed_objects(raw_frames, label_to_idx, where, report)
    listed = _in_stated_order(listed, rect_order, where, report)
    report.largest = max(report.largest, float(listed.boxes.max(initial=0.0)))
    return _cut_at_border(listed, frame_size, where, report)


def choose_objects(
    boxes: np.ndarray, classes: np.ndarray, confidences: np.ndarray, object_count: int, rule: str
) -> list[int]:
    """Return the row numbers of the at most `object_count` objects of a frame that are kept, largest first.

    Args:
        boxes, classes, confidences: (M, 4), (M,) and (M,) of one frame, in file order.
        object_count, rule: as in `object_loader_confident`.
    """
    scores, names, areas = confidences.tolist(), classes.tolist(), box_area(boxes).tolist()
    order = list(range(len(scores)))
    if rule == "intended":
        order.sort(key=lambda row: -scores[row])
    overlaps = iou_matrix(boxes, boxes) if len(scores) <= LARGE_FRAME else None
    is_covered = np.zeros(len(scores), dtype=bool)
    kept: list[int] = []
    seen: set[int] = set()
    for row in order:
        if is_covered[row] or (rule == "released" and names[row] in seen):
            continue
        kept.append(row)
        seen.add(names[row])
        own = iou_matrix(boxes[row], boxes)[0] if overlaps is None else overlaps[row]
        is_covered |= own >= OVERLAP_LIMIT
        if len(kept) == 2 * object_count:
            break
    # At most 2 * object_count were taken, so the cut by confidence has happened; the order still breaks ties of area.
    kept.sort(key=lambda row: -scores[row])
    kept.sort(key=lambda row: -areas[row])
    return kept[:object_count]


def _check_settings(object_count: int, rule: str, rect_order: str) -> None:
    if object_count < 1:
        raise ValueError(f"object_count is {object_count}; it must be at least 1")
    if rule not in OBJECT_RULES:
        raise ValueError(f"object rule {rule!r} is unknown; it must be one of {', '.join(OBJECT_RULES)}")
    to_xyxy(np.zeros((0, 4)), rect_order)


def _read_frames(path: str | Path) -> list[Any]:
    path = Path(path)
    if reason := why_no_file(path):
        raise ObjectFileError("broken_files" if os.path.lexists(path) else "missing_files", reason)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ObjectFileError("broken_files", f"has {size} bytes, more than {MAX_FILE_BYTES}")
        frames = read_json(path, any_number=True)
    except (OSError, ValueError) as error:
        raise ObjectFileError("broken_files", f"cannot be read: {str(error).replace(str(path), 'it')}") from error
    if not isinstance(frames, list):
        raise ObjectFileError("broken_files", "is not a list with one entry per frame")
    return frames


def _check_counts(frames: list[Any]) -> None:
    """Raise ObjectFileError for more frames or objects than any detector gives."""
    if len(frames) > MAX_FRAMES:
        raise ObjectFileError("broken_files", f"has {len(frames)} frames, more than {MAX_FRAMES}")
    listed = [frame.get("objects") for frame in frames if isinstance(frame, dict)]
    counts = [len(objects) for objects in listed if isinstance(objects, list)]
    if max(counts, default=0) > MAX_OBJECTS_OF_FRAME or sum(counts) > MAX_OBJECTS:
        raise ObjectFileError(
            "broken_files",
            f"has {max(counts):,} objects in a frame and {sum(counts):,} in all, more than {MAX_OBJECTS_OF_FRAME:,} or "
            f"{MAX_OBJECTS:,}; keep the most confident ones",
        )


def _listed_objects(
    raw_frames: list[Any], label_to_idx: Mapping[str, int], where: str, report: ObjectReport
) -> Detections:
    """Return the objects of all frames as written, less those without a known class, four numbers or a confidence."""
    frames, entries = [], []
    for number, frame in enumerate(raw_frames):
        listed = frame.get("objects") if isinstance(frame, dict) else frame
        if listed is None and isinstance(frame, dict):
            continue
        if not isinstance(listed, list) or not isinstance(frame, dict):
            report.note("malformed_objects", where, f"frame {number} is not a dictionary with a list 'objects'")
            continue
        report.boxes += len(listed)
        for entry in listed:
            reason = _malformation(entry)
            if reason:
                report.note("malformed_objects", where, reason)
            elif entry["class"] not in label_to_idx:
                report.note("unknown_classes", where, _shown(entry["class"]))
            else:
                frames.append(number)
                entries.append(entry)
    return Detections(
        np.array(frames, dtype=np.int64),
        np.array([entry["rect"] for entry in entries], dtype=np.float64).reshape(-1, 4),
        np.array([label_to_idx[entry["class"]] for entry in entries], dtype=np.int64),
        np.array([entry["conf"] for entry in entries], dtype=np.float64),
        entries,
    )


def _malformation(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "an object is not a dictionary"
    name = entry.get("class")
    if not is_class_name(name):
        return "an object has no class name" if name is None else f"class {_shown(name)} is no name"
    rect = entry.get("rect")
    if not (isinstance(rect, list) and len(rect) == 4 and all(_is_number(x) and math.isfinite(x) for x in rect)):
        return f"rect of {_shown(name)} is {_shown(rect)}, not four numbers"
    conf = entry.get("conf")
    if not (_is_number(conf) and 0 <= conf <= MAX_CONFIDENCE):
        return f"conf of {_shown(name)} is {_shown(conf)}, not a number from 0 to 1"
    attributes, scores = entry.get("attributes"), entry.get("attr_scores")
    if not _is_list_of(attributes, _is_name):
        return f"attributes of {_shown(name)} are {_shown(attributes)}, not a list of names"
    if not _is_list_of(scores, _is_number):
        return f"attr_scores of {_shown(name)} are {_shown(scores)}, not a list of numbers"
    if scores and len(scores) != len(attributes or []):
        return f"{_shown(name)} has {len(attributes or [])} attributes, but {len(scores)} attr_scores"
    return ""


def _is_list_of(values: Any, is_item: Callable[[Any], bool]) -> bool:
    """Whether a part that may be absent is a list of such items."""
    return values is None or (isinstance(values, list) and len(values) <= MAX_ATTRIBUTES and all(map(is_item, values)))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) or _is_number(value)


def _is_number(value: Any) -> TypeGuard[float]:
    if isinstance(value, float):
        return True
    # JSON allows integers that no float holds.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _shown(value: Any) -> str:
    """A value of a file for a message, cut where it is long or deep."""
    return _short.repr(value)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def _in_stated_order(listed: Detections, rect_order: str, where: str, report: ObjectReport) -> Detections:
    """Drop rects that are not finite or absurdly large and return the others as x1, y1, x2, y2."""
    is_sane = (np.abs(listed.boxes) <= MAX_COORDINATE).all(axis=1)
    for row in np.flatnonzero(~is_sane):
        report.note("degenerate_boxes", where, f"rect {listed.boxes[row].tolist()}")
    listed = listed.select(np.flatnonzero(is_sane))
    is_relative = looks_relative(listed.boxes)
    if len(is_relative) and is_relative.all():
        raise ObjectFileError("broken_files", f"its boxes {_convention(listed.boxes)}")
    for row in np.flatnonzero(is_relative):
        report.note("degenerate_boxes", where, f"rect {listed.boxes[row].tolist()} looks relative (0 to 1)")
    listed = listed.select(np.flatnonzero(~is_relative))
    if likely := likely_formats(listed.boxes, rect_order):
        remedies = [f"try --rect_order {name}" for name in likely if name in RECT_ORDERS]
        others = [name for name in likely if name not in RECT_ORDERS]
        if others:
            remedies.append(f"make the files anew with {EXTRACTION} --box_format {' or '.join(others)}")
        raise ObjectFileError(
            "rect_order_files",
            f"its boxes make sense as {' or '.join(likely)}, not as {rect_order}; {', or '.join(remedies)}",
        )
    return listed._replace(boxes=to_xyxy(listed.boxes, rect_order))


def _convention(rects: np.ndarray) -> str:
    """Say of relative boxes in which orders of the four numbers all of them are boxes inside the frame."""
    fitting = {}
    for layout in LAYOUTS:
        boxes = edges(rects, layout)
        low, high = boxes[:, :2], boxes[:, 2:]
        # Nothing tells y, x, y, x from x, y, x, y there.
        is_inside = (low >= -RELATIVE_SLACK) & (high <= 1 + RELATIVE_SLACK) & (layout != "yxyx")
        if (is_inside & (high > low)).all():
            fitting[layout] = LAYOUT_NAMES[layout]
    order = f", as {' or '.join(fitting.values())}" if fitting else ""
    layout = next(iter(fitting), "xyxy")
    return (
        f"look relative (0 to 1{order}); boxes in pixels are expected: multiply by the frame's width and height, or "
        f"make the files anew with {EXTRACTION} --box_format {RELATIVE}{layout}"
    )


def _cut_at_border(
    listed: Detections, frame_size: tuple[int, int] | None, where: str, report: ObjectReport
) -> Detections:
    """Cut boxes at the border of the frame and drop those of which nothing is left; both are reported."""
    boxes = listed.boxes
    cut = np.clip(boxes, 0.0, np.array(frame_size * 2 if frame_size else [np.inf] * 4, dtype=np.float64))
    is_degenerate = box_area(boxes) <= 0
    is_outside = ~is_degenerate & (box_area(cut) <= 0)
    is_usable = ~is_degenerate & ~is_outside
    is_clipped = is_usable & (np.abs(cut - boxes) > BORDER_TOLERANCE).any(axis=1)
    size = f" of a frame of {frame_size[0]}x{frame_size[1]}" if frame_size else ""
    problems = {"degenerate_boxes": is_degenerate, "outside_boxes": is_outside, "clipped_boxes": is_clipped}
    for problem, is_found in problems.items():
        for row in np.flatnonzero(is_found):
            report.note(problem, where, f"box {boxes[row].tolist()}{size}")
    return listed._replace(boxes=cut).select(np.flatnonzero(is_usable))


def _attributes(entry: dict[str, Any]) -> list[tuple[str, float]]:
    names = entry.get("attributes") or []
    scores = entry.get("attr_scores") or [1.0] * len(names)
    return [(str(name), float(score)) for name, score in zip(names, scores, strict=False) if abs(score) <= MAX_SCORE]


def _attribute_sentence(described: list[tuple[str, dict[str, float]]]) -> str:
    """Return "red man, young dog": the first classes, each with its best attributes and at most one colour."""
    phrases = []
    for name, scores in described[:ATTRIBUTE_CLASSES]:
        words: list[str] = []
        for attribute in sorted(scores, key=lambda attribute: -scores[attribute]):
            has_colour = any(word in COLOURS for word in words)
            if len(words) < ATTRIBUTES_PER_CLASS and not (has_colour and attribute in COLOURS):
                words.append(attribute)
        phrases.append(" ".join([*words, name]))
    return ", ".join(phrases)
