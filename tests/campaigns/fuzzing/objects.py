"""Readers of boxes: object files, detections made before, and the label maps that are made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from dataloaders.frames import Clip
from dataloaders.object_records import ObjectRules, ObjectSettings, pack_record, read_record
from modules.foreign_text import is_class_name
from modules.utils_object_tractor import ObjectFileError, ObjectReport, object_loader_confident
from tests.campaigns.fuzzing.annotation_files import LABEL_MAP
from tests.campaigns.fuzzing.forms import JSON, NAN, Form, drop, drop_any, known, put, rearranged, replace
from tests.campaigns.fuzzing.mutators import KNOWN_TEXT, cut_short
from tests.campaigns.fuzzing.reader import Expected, Mutator, Reader, Taken
from utils.preparation.detection_files import CocoDetections, PrecomputedDetections, VinVLDetections
from utils.preparation.label_maps import label_map_from_objects, label_map_from_vinvl

LABELS = {"label_to_idx": {"man": 1, "dog": 2}}
T = 3  # frames


def _objects() -> list[dict[str, Any]]:
    looks = {"attributes": ["red", "tall"], "attr_scores": [0.9, 0.1]}
    man = {"class": "man", "rect": [10, 20, 50, 90.5], "conf": 0.5, **looks}
    dog = {"class": "dog", "rect": [200, 20, 220, 40], "conf": 0.9, "attributes": ["red"], "attr_scores": [0.4]}
    return [{"objects": [dict(man), dict(dog)], "relations": None} for _ in range(T)]


def write_objects(folder: Path) -> None:
    """Write the object file of clip v."""
    (folder / "v.json").write_text(json.dumps(_objects()))


def _read_objects(trajectory: str) -> Callable[[Path], Taken]:
    settings = ObjectSettings(2, T, ObjectRules(trajectory=trajectory))

    def read(folder: Path) -> Taken:
        report = ObjectReport(max_examples=1)
        found = read_record(folder / "v.json", LABELS, settings, report)
        assert np.isfinite(found.boxes).all() and max(map(len, report.summary())) < 1000
        return Taken(report.kept_boxes, sum(report.problems().values()), pack_record(found))

    return read


def _confident(folder: Path) -> Taken:
    report = ObjectReport(max_examples=1)
    found = object_loader_confident([("v", folder / "v.json")], 2, LABELS, report=report, expected_frames=T)
    return Taken(report.kept_boxes, sum(report.problems().values()), repr(found))


def _one_object(name: str, values: Sequence[Any], what: str, expected: Expected = Expected.COUNTED) -> Mutator:
    return known(JSON, what, expected, lambda frames, draw: put(name, values)(draw.choice(frames)["objects"], draw))


def _relative(frames: Any, draw: Random) -> None:
    for frame in frames:
        for entry in frame["objects"]:
            entry["rect"] = [part / 1000 for part in entry["rect"]]


OBJECT_FILE = (
    rearranged(JSON),
    *KNOWN_TEXT[:1],
    cut_short(),
    known(JSON, "an object dropped", Expected.FEWER, lambda frames, draw: drop()(draw.choice(frames)["objects"], draw)),
    known(JSON, "a frame dropped", Expected.COUNTED, drop()),
    known(JSON, "a frame added", Expected.COUNTED, lambda frames, draw: frames.append(frames[0])),
    known(JSON, "relative boxes", Expected.COUNTED, _relative),
    _one_object("conf", (-3, 900, NAN, 1e308, None, "0.5", [0.5], True), "a value out of range"),
    _one_object(
        "rect",
        ([0, 0, 0, 0], [1, 2, 3], [NAN] * 4, [1e308, 0, 1e308, 1], "1 2 3 4", None, 5, [1, 2, 1, 2], [[1]] * 4),
        "a value out of range",
    ),
    _one_object("class", (None, 5, "", "cat", ["man"], {}), "a class that there is not"),
)


def _make_detections(folder: Path) -> None:
    (folder / "v.json").write_text(json.dumps([{**frame, "frame": n} for n, frame in enumerate(_objects())]))
    frames = {f"v_{n}": {"objects": frame["objects"]} for n, frame in enumerate(_objects())}
    (folder / "predictions.json").write_text(json.dumps(frames))
    (folder / "predictions.tsv").write_text("".join(f"{key}\t{json.dumps(value)}\n" for key, value in frames.items()))
    lists = [[_of_pipeline(entry) for entry in frame["objects"]] for frame in _objects()]
    (folder / "w.json").write_text(json.dumps(lists))
    images = [{"id": n, "file_name": f"v/{n}.jpg", "width": 320, "height": 240} for n in range(T)]
    numbers = {"man": 1, "dog": 18}
    described = {"images": images, "categories": [{"id": number, "name": name} for name, number in numbers.items()]}
    results = [
        {"image_id": n, "category_id": numbers[entry["class"]], "bbox": _with_sides(entry["rect"]), "score": 0.5}
        for n, frame in enumerate(_objects())
        for entry in frame["objects"]
    ]
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "images.json").write_text(json.dumps(described))


def _with_sides(rect: list[float]) -> list[float]:
    return [rect[0], rect[1], rect[2] - rect[0], rect[3] - rect[1]]


def _of_pipeline(entry: dict[str, Any]) -> dict[str, Any]:
    box = dict(zip(("xmin", "ymin", "xmax", "ymax"), entry["rect"], strict=True))
    return {"label": entry["class"], "score": entry["conf"], "box": box}


CLIP = cast(Clip, SimpleNamespace(frame_indices=np.arange(T), decoded_frames=T, width=320, height=240))


def _detected(read: Callable[[Path], Any], video_id: str = "v") -> Callable[[Path], Taken]:
    def taken(folder: Path) -> Taken:
        frames = read(folder).detect(video_id, CLIP)
        for entry in (entry for frame in frames for entry in frame):
            assert is_class_name(entry["class"]) and 0 <= entry["conf"] <= 1.01 and np.isfinite(entry["rect"]).all()
        return Taken(len(frames), 0, frames)

    return taken


TSV = Form(
    lambda content: [
        [key, json.loads(value)] for key, value in (line.split("\t") for line in content.decode().splitlines())
    ],
    lambda rows: "".join(f"{key}\t{json.dumps(value)}\n" for key, value in rows).encode(),
    JSON.values,
)


def _bad_key(value: Any, draw: Random) -> None:
    value[draw.choice(("v", "v_", "v_x", ""))] = []


KEYED = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    known(JSON, "a frame dropped", Expected.REFUSED, drop_any),
    known(JSON, "a bad id", Expected.REFUSED, _bad_key),
    known(
        JSON, "no list of objects", Expected.REFUSED, replace("objects", (None, 5, "x", {}), lambda value: value["v_1"])
    ),
)
KEYED_LINES = (
    *KNOWN_TEXT,
    rearranged(TSV),
    known(TSV, "a frame dropped", Expected.REFUSED, drop()),
    known(TSV, "a bad id", Expected.REFUSED, put(0, ("v", "v_", "v_x", ""))),
    known(TSV, "no list of objects", Expected.REFUSED, put(1, (None, 5, "x", {}))),
)
PRECOMPUTED = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    known(JSON, "a frame dropped", Expected.REFUSED, drop()),
    known(JSON, "no list of objects", Expected.REFUSED, put("objects", (None, 5, "x", {}))),
)
BAD_SCORES, BAD_NAMES = (-3, 900, None, "0.5", [0.5], True), (None, 5, "", "None", "null", ["man"], {})
BAD_BOXES = ([1, 2, 3], "1 2 3 4", None, 5, [[1]] * 4, {"xmin": 1}, [None] * 4, [1, 2, 3, True])
LISTS = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    known(JSON, "a frame dropped", Expected.REFUSED, drop()),
    *(
        known(
            JSON,
            f"a bad {name}",
            Expected.REFUSED,
            lambda frames, draw, name=name, values=values: put(name, values)(draw.choice(frames), draw),
        )
        for name, values in (("label", BAD_NAMES), ("score", BAD_SCORES), ("box", BAD_BOXES))
    ),
)
RESULTS = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    *(
        known(JSON, f"a bad {name}", Expected.REFUSED, put(name, values))
        for name, values in (
            ("image_id", (None, 7, "1", True, [1])),
            ("category_id", (None, 7, "1", True, [1])),
            ("bbox", BAD_BOXES),
            ("score", BAD_SCORES),
        )
    ),
)
DESCRIBED = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    known(JSON, "an image dropped", Expected.REFUSED, drop(lambda value: value["images"])),
    known(JSON, "a category dropped", Expected.REFUSED, drop(lambda value: value["categories"])),
    known(JSON, "a bad name", Expected.REFUSED, put("name", BAD_NAMES, lambda value: value["categories"])),
    known(JSON, "a bad key", Expected.REFUSED, put("file_name", (None, 5, "v", "v_x"), lambda value: value["images"])),
)


def _label_map(read: Callable[[Path], Any]) -> Callable[[Path], Taken]:
    def taken(folder: Path) -> Taken:
        content = read(folder)
        label_map, unreadable = content if isinstance(content, tuple) else (content, [])
        if unreadable:
            raise ValueError("; ".join(unreadable))
        return Taken(len(label_map["label_to_idx"]), 0, label_map)

    return taken


def _make_vinvl(folder: Path) -> None:
    labels = {"man": 1, "dog": 2, "red car": 3}
    (folder / "dicts.json").write_text(
        json.dumps({"label_to_idx": labels, "attribute_to_idx": {"red": 1}, "object_count": labels})
    )


ERRORS = (ValueError, FileNotFoundError)


def _objects_reader(name: str, read: Callable[[Path], Taken], **more: Any) -> Reader:
    return Reader(name, write_objects, {"v.json": OBJECT_FILE}, read, (ObjectFileError,), **more)


READERS = (
    # The error is the reason alone: the callers note the file beside it.
    _objects_reader("object-file", _read_objects("class"), names=("",)),
    _objects_reader("object-file-tracked", _read_objects("track"), names=("",)),
    _objects_reader("object-loader", _confident),
    Reader(
        "detections-folder",
        _make_detections,
        {"v.json": PRECOMPUTED},
        _detected(lambda folder: PrecomputedDetections(folder)),
        ERRORS,
    ),
    Reader(
        "detections-json",
        _make_detections,
        {"predictions.json": KEYED},
        _detected(lambda folder: VinVLDetections(folder / "predictions.json")),
        ERRORS,
    ),
    Reader(
        "detections-tsv",
        _make_detections,
        {"predictions.tsv": KEYED_LINES},
        _detected(lambda folder: VinVLDetections(folder / "predictions.tsv")),
        ERRORS,
    ),
    Reader(
        "detections-lists",
        _make_detections,
        {"w.json": LISTS},
        _detected(lambda folder: PrecomputedDetections(folder), "w"),
        ERRORS,
    ),
    Reader(
        "detections-coco",
        _make_detections,
        {"results.json": RESULTS, "images.json": DESCRIBED},
        _detected(lambda folder: CocoDetections(folder / "results.json", folder / "images.json")),
        ERRORS,
    ),
    Reader(
        "label-map-of-objects",
        write_objects,
        {"v.json": (rearranged(JSON), *KNOWN_TEXT, cut_short())},
        _label_map(label_map_from_objects),
        ERRORS,
        names=("*.json",),
    ),
    Reader(
        "label-map-of-vinvl",
        _make_vinvl,
        {"dicts.json": LABEL_MAP},
        _label_map(lambda folder: label_map_from_vinvl(folder / "dicts.json")),
        ERRORS,
    ),
)
