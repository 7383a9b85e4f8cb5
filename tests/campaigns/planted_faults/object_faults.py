"""Faults of object files, of the label map, and of a frame cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dataloaders.frame_cache import FrameCache
from dataloaders.frames import FrameSettings
from dataloaders.samples import SampleSettings
from tests.campaigns.planted_faults.faults import HARMLESS, Fault, stops
from tests.campaigns.planted_faults.worlds import FRAMES, RATE, SIZES, DataSet
from utils.preparation.frame_caching import Filler, list_tasks

PLACES = {"msrvtt_retrieval": "video4", "msrvtt_qa": "video6", "webvid": "1000009", "pretrain": "1000012"}
Change = Callable[[Any], Any]


def _added(**fields: Any) -> Change:
    """The frames with one more object in the first."""
    box = {"class": "circle", "conf": 0.9, "rect": [2, 2, 30, 30], **fields}
    return lambda frames: [{**frames[0], "objects": [*frames[0]["objects"], box]}, *frames[1:]]


def _boxes(change: Callable[[list[float]], list[Any]]) -> Change:
    def changed(frames: list[Any]) -> list[Any]:
        for frame in frames:
            for entry in frame["objects"]:
                entry["rect"] = change(entry["rect"])
        return frames

    return changed


def _first(name: str, value: Any) -> Change:
    def changed(frames: list[Any]) -> list[Any]:
        frames[0]["objects"][0][name] = value
        return frames

    return changed


MALFORMED, BROKEN = ("malformed_object",), ("broken_objects",)
VALUES: list[tuple[str, tuple[str, ...], Change]] = [
    ("object frames missing", ("wrong_frame_count",), lambda frames: frames[1:]),
    ("object frames too many", ("wrong_frame_count",), lambda frames: [*frames, frames[0]]),
    ("object file empty list", ("wrong_frame_count",), lambda _: []),
    ("object file is a dictionary", BROKEN, lambda frames: {"frames": frames}),
    ("object file is a number", BROKEN, lambda _: 7),
    ("object file nothing detected", ("no_objects",), lambda frames: [{"objects": []} for _ in frames]),
    ("object frames are lists", MALFORMED, lambda frames: [frame["objects"] for frame in frames]),
    ("object frames are text", MALFORMED, lambda frames: ["x" for _ in frames]),
    ("objects not a list", MALFORMED, lambda frames: [{"objects": 3}, *frames[1:]]),
    ("object is text", MALFORMED, lambda frames: [{"objects": ["circle"]}, *frames[1:]]),
    ("boxes as x y width height", ("wrong_rect_order", "outside_box", "degenerate_box"),
     _boxes(lambda box: [box[0], box[1], box[2] - box[0], box[3] - box[1]])),
    ("boxes as x1 x2 y1 y2", ("wrong_rect_order",), _boxes(lambda box: [box[0], box[2], box[1], box[3]])),
    ("boxes in shares of the frame", BROKEN, _boxes(lambda box: [round(value / 64, 4) for value in box])),
    ("boxes of another resolution", ("outside_box", "clipped_box"), _boxes(lambda box: [20 * value for value in box])),
    ("box of three numbers", MALFORMED, _added(rect=[1, 2, 3])),
    ("box of text", MALFORMED, _added(rect=["1", "2", "30", "30"])),
    ("box missing", MALFORMED, _added(rect=None)),
    ("box without area", ("degenerate_box",), _added(rect=[5, 5, 5, 30])),
    ("box outside", ("outside_box",), _added(rect=[500, 5, 600, 30])),
    ("box beyond the border", ("clipped_box",), _added(rect=[5, 5, 600, 30])),
    ("box left of the frame", ("clipped_box", "outside_box"), _added(rect=[-50, 5, 30, 30])),
    ("box of 1e308", ("degenerate_box",), _added(rect=[0, 0, 1e308, 1e308])),
    ("box NaN", MALFORMED, _added(rect=[float("nan"), 0, 9, 9])),
    ("box infinite", MALFORMED, _added(rect=[0, 0, float("inf"), 9])),
    ("box of 2^80", MALFORMED, _added(rect=[0, 0, 2**80, 9])),
    ("conf 900", MALFORMED, _added(conf=900)),
    ("conf -3", MALFORMED, _added(conf=-3)),
    ("conf NaN", MALFORMED, _added(conf=float("nan"))),
    ("conf text", MALFORMED, _added(conf="0.9")),
    ("conf missing", MALFORMED, _added(conf=None)),
    ("attributes a number", MALFORMED, _added(attributes=3)),
    ("attr_scores a number", MALFORMED, _added(attributes=["red"], attr_scores=0.5)),
    ("attr_scores text", MALFORMED, _added(attributes=["red"], attr_scores=["high"])),
    ("class unknown", ("unknown_class",), _added(**{"class": "unicorn"})),
    ("class a number", MALFORMED, _added(**{"class": 4})),
    ("class of one object missing", MALFORMED, _first("class", None)),
]  # fmt: skip
BYTES: list[tuple[str, tuple[str, ...], Callable[[bytes], bytes]]] = [
    ("object file cut", BROKEN, lambda content: content[: len(content) // 2]),
    ("object file of zero bytes", BROKEN, lambda _: b""),
    ("object file Latin-1", BROKEN, lambda content: content.replace(b'"class": "', b'"class": "\xe9', 1)),
    ("object file nested deeply", BROKEN, lambda _: b"[" * 100_000 + b"]" * 100_000),
    ("object file is not JSON", BROKEN, lambda _: b"PK\x03\x04 no json"),
]


def _moved(data: DataSet, path: Path) -> None:
    path.rename(path.with_name("stray.json"))


FILES: list[tuple[str, tuple[str, ...], Callable[[DataSet, Path], object]]] = [
    ("object file missing", ("missing_objects",), lambda _, path: path.unlink()),
    ("object file of another name", ("missing_objects",), _moved),
    ("object file dangling link", BROKEN, lambda _, path: (path.unlink(), path.symlink_to("gone/a.json"))),
    ("object file is a folder", BROKEN, lambda _, path: (path.unlink(), path.mkdir())),
    ("object file is a named pipe", BROKEN, lambda _, path: (path.unlink(), os.mkfifo(path))),
]


def _labels(change: Callable[[dict[str, Any]], Any]) -> Callable[[DataSet], object]:
    def plant(data: DataSet) -> None:
        def changed(content: dict[str, Any]) -> dict[str, Any]:
            return {**content, "label_to_idx": change(content["label_to_idx"])}

        data.edit_json(data.label_map, changed)

    return plant


def _map_bytes(change: Callable[[bytes], bytes]) -> Callable[[DataSet], object]:
    return lambda data: data.write(data.label_map, change(data.label_map.read_bytes()))


LABEL_MAPS: list[tuple[str, Callable[[DataSet], object], tuple[str, ...]]] = [
    ("label index 2^32+3", _labels(lambda map: {**map, "circle": 2**32 + 3}), ("circle",)),
    ("label index 2^70", _labels(lambda map: {**map, "circle": 2**70}), ("circle",)),
    ("label index -1", _labels(lambda map: {**map, "circle": -1}), ("circle",)),
    ("label index 0", _labels(lambda map: {**map, "circle": 0}), ("circle",)),
    ("label index true", _labels(lambda map: {**map, "circle": True}), ("circle",)),
    ("label index text", _labels(lambda map: {**map, "circle": "1"}), ("circle",)),
    ("label index 1.5", _labels(lambda map: {**map, "circle": 1.5}), ("circle",)),
    ("label index twice", _labels(lambda map: {**map, "circle": map["cross"]}), ("share",)),
    ("label map without classes", _labels(lambda _: {}), ("label_to_idx",)),
    ("label map a list", _map_bytes(lambda _: b"[1, 2]"), ("label_to_idx",)),
    ("label map cut", _map_bytes(lambda content: content[:-30]), ()),
    ("label map empty", _map_bytes(lambda _: b""), ()),
    ("label map UTF-16", _map_bytes(lambda content: content.decode().encode("utf-16")), ("UTF-16",)),
    ("label map nested deeply", _map_bytes(lambda _: b"[" * 100_000), ("deep",)),
    ("label map missing", lambda data: data.label_map.unlink(), ()),
    ("label map is a folder", lambda data: (data.label_map.unlink(), data.label_map.mkdir()), ()),
]


def _other_classes(data: DataSet) -> None:
    data.write(data.label_map, json.dumps({"label_to_idx": {"dog": 1, "cat": 2}}))


def _one_class_missing(data: DataSet) -> None:
    """Objects of it are then of an unknown class."""
    data.edit_json(data.label_map, lambda content: {
        **content, "label_to_idx": {name: at for name, at in content["label_to_idx"].items() if name != "star"}
    })  # fmt: skip


def _all_objects(change: Change) -> Callable[[DataSet], object]:
    def plant(data: DataSet) -> None:
        for path in list((data.root / "objects").iterdir()):
            data.edit_json(path, change)

    return plant


def _object_folder_gone(data: DataSet) -> None:
    (data.root / "objects").rename(data.root / "detections")


def _detected(data: DataSet, video_ids: list[str]) -> None:
    """Reports of an extraction that took other frames."""
    folder = data.root / "objects" / "extraction"
    folder.mkdir()
    for video_id in video_ids:
        (folder / f"{video_id}.json").write_text(json.dumps({"frame_indices": [7, 8, 9, 10]}))


def _cache(damage: Callable[[Path, FrameCache, list[Any], SampleSettings], object]) -> Callable[[DataSet], object]:
    def plant(data: DataSet) -> None:
        settings = SampleSettings(SIZES.image_resolution, FRAMES, frames=FrameSettings(feature_framerate=float(RATE)))
        folder = data.folder / "cache"
        cache, tasks = FrameCache(folder), list_tasks([str(data.root / "videos")])
        for task in tasks[1:]:
            Filler(cache, settings)(task)
        damage(folder, cache, tasks, settings)

    return plant


def _halve(folder: Path, suffix: str) -> None:
    path = next(path for path in sorted(folder.iterdir()) if path.name.endswith(suffix))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def faults() -> Iterator[Fault]:
    """All of them."""
    for number, (datatype, video_id) in enumerate(PLACES.items()):
        step = 1 if number == 0 else 4
        also = ("no_objects", "clipped_box", "outside_box", "degenerate_box")
        for name, kinds, change in VALUES[::step]:
            yield Fault(name, datatype, _json_at(video_id, change), kinds, video_id, also=also)
        for name, kinds, edit in BYTES[::step]:
            yield Fault(name, datatype, _bytes_at(video_id, edit), kinds, video_id)
        for name, kinds, move in FILES[:: 1 if number == 0 else 2]:
            yield Fault(name, datatype, _file_at(video_id, move), kinds, video_id, also=("orphan_objects",))
    kind = "msrvtt_retrieval"
    for name, plant, words in LABEL_MAPS:
        yield Fault(name, kind, plant, ("cannot_start",), words=("label_map.json", *words))
    for name, plant, words in LABEL_MAPS[:2]:
        yield Fault(name, "pretrain", plant, ("cannot_start",), words=("label_map.json", *words))
    objects = ("unknown_class", "no_objects", "wrong_frame_count", "broken_objects", "wrong_rect_order")
    for datatype in (kind, "pretrain"):
        yield Fault("label map of other classes", datatype, _other_classes, ("cannot_start",),
                    words=("--labelmap_path",), also=objects)  # fmt: skip
        yield Fault("every object file of other frames", datatype, _all_objects(lambda frames: frames[:-1]),
                    ("cannot_start",), words=("--max_frames",), also=objects)  # fmt: skip
        yield Fault("every object file in shares of the frame", datatype,
                    _all_objects(_boxes(lambda box: [value / 64 for value in box])),
                    ("cannot_start",), also=objects)  # fmt: skip
        yield Fault("every object file in another rect order", datatype,
                    _all_objects(_boxes(lambda box: [box[0], box[2], box[1], box[3]])),
                    ("cannot_start",), words=("--rect_order",), also=objects)  # fmt: skip
        yield Fault(
            "every object file of another resolution",
            datatype,
            _all_objects(_boxes(lambda box: [20 * value for value in box])),
            ("cannot_start",),
            also=(*objects, "outside_box", "clipped_box"),
        )
        yield stops("no folder of objects", datatype, _object_folder_gone, "--object_path")
    yield Fault(
        "object file of other frames", kind, lambda data: _detected(data, ["video4"]), ("other_frames",), "video4"
    )
    videos = [f"video{number}" for number in range(50)]
    yield Fault("most object files of other frames", kind, lambda data: _detected(data, videos), ("cannot_start",),
                words=("other frames",), also=("other_frames",))  # fmt: skip
    yield Fault("label map without one class", kind, _one_class_missing, ("unknown_class",), also=("no_objects",))
    yield Fault(
        "label map with a byte order mark", kind, _map_bytes(lambda content: b"\xef\xbb\xbf" + content), HARMLESS
    )
    for name, kinds, video_id, damage in CACHES:
        flags = ("--frame_cache", "{folder}/cache")
        yield Fault(name, kind, _cache(damage), kinds, video_id, flags=flags)


CACHES: list[tuple[str, tuple[str, ...], str, Callable[[Path, FrameCache, list[Any], SampleSettings], object]]] = [
    ("cache that remembers a sound video as unreadable", ("wrongly_unreadable",), "video0",
     lambda _, cache, tasks, settings: cache.put_unreadable(tasks[0].key(settings), "of an old decoder")),
    ("cache index damaged", ("damaged_cache",), "",
     lambda folder, *_: (folder / "other.index").write_text("damaged\n")),
    ("cache data cut", ("damaged_cache",), "", lambda folder, *_: _halve(folder, ".frames")),
    ("cache index cut", HARMLESS, "", lambda folder, *_: _halve(folder, ".index")),
]  # fmt: skip


def _json_at(video_id: str, change: Change) -> Callable[[DataSet], object]:
    return lambda data: data.edit_json(data.object_file(video_id), change)


def _bytes_at(video_id: str, change: Callable[[bytes], bytes]) -> Callable[[DataSet], object]:
    return lambda data: data.write(data.object_file(video_id), change(data.object_file(video_id).read_bytes()))


def _file_at(video_id: str, move: Callable[[DataSet, Path], object]) -> Callable[[DataSet], object]:
    return lambda data: move(data, data.object_file(video_id))
