"""Faults of shards, their index and their captions."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.stored_clips import Features
from dataloaders.tfrecord import iterate_records, parse_example
from tests.campaigns.planted_faults.faults import HARMLESS, Fault, stops
from tests.campaigns.planted_faults.text_faults import BOM, _entry, _json, _line, _lines, _text, _whole_file
from tests.campaigns.planted_faults.worlds import DataSet
from tests.tfrecords import encode, record

KIND, CLIP, INDEX, LABELS = "pretrain", "1000003", "path.index", "frozen_train_labels.json"
DAMAGED = ("damaged_record",)


def _place(data: DataSet) -> tuple[Path, int]:
    """Shard and offset of CLIP."""
    for line in (data.root / INDEX).read_text().splitlines():
        video_id, shard, offset = line.split("\t")
        if video_id == CLIP:
            return data.root / Path(shard).name, int(offset)
    raise KeyError(CLIP)


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[DataSet], object]:
    """The shard's content from the record of CLIP on changed."""

    def plant(data: DataSet) -> None:
        path, offset = _place(data)
        content = path.read_bytes()
        data.write(path, content[:offset] + change(content[offset:]))

    return plant


def _at(place: int, value: bytes) -> Callable[[DataSet], object]:
    return _bytes(lambda content: content[:place] + value + content[place + len(value) :])


def _features(**changed: Any) -> Callable[[DataSet], object]:
    """Features of CLIP's record changed, with right checksums; the clips behind it move in the index."""

    def change(features: dict[str, Any]) -> dict[str, Any]:
        for name, value in changed.items():
            old = features.get(name, [])
            features[name] = value(old) if callable(value) else value
        return features

    return lambda data: _rewrite(data, change)


def _rewrite(data: DataSet, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path, _ = _place(data)
    content, places = b"", {}
    for _, payload in list(iterate_records(path)):
        features = {
            name: list(values.tolist() if isinstance(values, np.ndarray) else values)
            for name, values in parse_example(payload).items()
        }
        video_id = features[Features.VIDEO_ID][0].decode()
        places[video_id] = len(content)
        if video_id == CLIP:
            features = change(features)
        content += record(encode({name: values for name, values in features.items() if values}))
    data.write(path, content)

    def move(lines: list[str]) -> list[str]:
        cells = [line.split("\t") for line in lines]
        return ["\t".join([cell[0], cell[1], str(places.get(cell[0], cell[2]))]) for cell in cells]

    data.edit_lines(INDEX, move)


def _offset(change: Callable[[int], object]) -> Callable[[DataSet], object]:
    """The offset of CLIP in the index changed."""

    def changed(lines: list[str]) -> list[str]:
        cells = [line.split("\t") for line in lines]
        return [
            "\t".join([*cell[:2], str(change(int(cell[2])))]) if cell[0] == CLIP else "\t".join(cell) for cell in cells
        ]

    return _lines(INDEX, changed)


def _bomb(images: list[bytes]) -> list[bytes]:
    """JPEGs whose header states 60,000 pixels each way."""
    out = []
    for image in images:
        place = image.index(b"\xff\xc0") + 5
        out.append(image[:place] + struct.pack(">HH", 60000, 60000) + image[place + 4 :])
    return out


RECORDS: list[tuple[str, tuple[str, ...], Callable[[DataSet], object]]] = [
    ("record's length of 2^60", DAMAGED, _at(0, struct.pack("<Q", 2**60))),
    ("record's length one off", DAMAGED, _at(0, b"\x01")),
    ("record's checksum of the length", DAMAGED, _at(8, b"\0\0\0\0")),
    (
        "record's payload one byte",
        DAMAGED,
        _bytes(lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:]),
    ),
    ("record zeroed", DAMAGED, _at(0, bytes(300))),
    ("record without frames", (*DAMAGED, "undecodable_frame"), _features(image=[])),
    ("record's frames damaged", ("undecodable_frame",), _features(image=lambda images: [b"no jpeg"] * len(images))),
    ("record's frames cut", ("undecodable_frame",), _features(image=lambda images: [image[:50] for image in images])),
    ("record's frames a bomb", ("undecodable_frame", *DAMAGED), _features(image=_bomb)),
    ("record's rate NaN", DAMAGED, _features(fps=[float("nan")])),
    ("record's rate 0", DAMAGED, _features(fps=[0.0])),
    ("record's rate -4", DAMAGED, _features(fps=[-4.0])),
    ("record's rate infinite", DAMAGED, _features(fps=[float("inf")])),
    ("record's frames per second NaN", DAMAGED, _features(feature_framerate=[float("nan")])),
    ("record's height 0", DAMAGED, _features(height=[0])),
    ("record's width -5", DAMAGED, _features(width=[-5])),
    ("record's height 2^40", DAMAGED, _features(height=[2**40])),
    ("record's stored height 0", DAMAGED, _features(stored_height=[0])),
    ("record's stored width of another size", (*DAMAGED, "undecodable_frame"), _features(stored_width=[500])),
    (
        "record's last frame 2e9",
        (*DAMAGED, "missing_rate"),
        _features(frame_indices=lambda old: [*old[:-1], 2 * 10**9]),
    ),
    ("record's frames negative", DAMAGED, _features(frame_indices=lambda old: [-1, *old[1:]])),
    ("record's frames falling", DAMAGED, _features(frame_indices=lambda old: old[::-1])),
    ("record's frames one too few", DAMAGED, _features(frame_indices=lambda old: old[:-1])),
    ("record's format unknown", DAMAGED, _features(format=[b"heic"])),
    ("record's format raw", (*DAMAGED, "undecodable_frame"), _features(format=[b"raw"])),
    ("record of another clip", ("other_clip",), _features(video_id=[b"9000000"])),
    ("record without an id, as in released shards", HARMLESS, _features(video_id=[])),
    ("record's id not UTF-8", (*DAMAGED, "other_clip"), _features(video_id=[b"\xff\xfe"])),
    ("record's rate a text", DAMAGED, _features(fps=[b"4"])),
    ("offset one off", DAMAGED, _offset(lambda offset: offset + 1)),
    ("offset beyond the end", ("outside_shard",), _offset(lambda _: 10**9)),
    ("offset of 10^18 - 1", ("outside_shard",), _offset(lambda _: 10**18 - 1)),
    ("offset of another clip", ("other_clip",), _offset(lambda _: 0)),
]
LINES: list[tuple[str, tuple[str, ...], str, Callable[[DataSet], object]]] = [
    (
        "index line of two fields",
        ("broken_index_line",),
        "",
        _lines(INDEX, _line(4, lambda line: line.rsplit("\t", 1)[0])),
    ),
    ("index line of four fields", ("broken_index_line",), "", _lines(INDEX, _line(4, lambda line: line + "\tx"))),
    ("index offset negative", ("broken_index_line",), "", _offset(lambda offset: -offset)),
    ("index offset a fraction", ("broken_index_line",), "", _offset(lambda offset: f"{offset}.0")),
    ("index offset of 30 digits", ("broken_index_line",), "", _offset(lambda _: 10**29)),
    ("index line twice", ("repeated_id",), CLIP, _lines(INDEX, lambda lines: [*lines, lines[3]])),
    ("index line dropped", ("no_clip",), CLIP, _lines(INDEX, lambda lines: lines[:3] + lines[4:])),
    ("caption twice", ("more_captions",), CLIP, _json(LABELS, lambda rows: [*rows, rows[3]])),
    ("caption of an unlisted clip", ("no_clip",), "77", _json(LABELS, _entry(3, "", video_id="77"))),
    ("caption of a listed clip missing", ("no_caption",), CLIP, _json(LABELS, lambda rows: rows[:3] + rows[4:])),
    ("caption empty", ("empty_caption",), CLIP, _json(LABELS, _entry(3, "", caption="  "))),
    ("caption of a lone surrogate", ("replaced_text",), "", _json(LABELS, _entry(3, "", caption="a \ud800 cat"))),
]


def _cut_shard(data: DataSet) -> None:
    path, offset = _place(data)
    data.write(path, path.read_bytes()[: offset + 40])


def _one_shard(change: Callable[[DataSet, Path], object]) -> Callable[[DataSet], object]:
    return lambda data: change(data, data.shards[1])


def faults() -> Iterator[Fault]:
    """All of them."""
    follow = ("no_caption", "no_clip", "orphan_objects", "missing_objects")
    for name, kinds, plant in RECORDS:
        yield Fault(name, KIND, plant, kinds, CLIP)
    for name, kinds, video_id, plant in LINES:
        also = () if name == "caption of a listed clip missing" else follow
        yield Fault(name, KIND, plant, kinds, video_id, also=also)
    yield Fault("shard cut", KIND, _cut_shard, ("truncated_shard",), CLIP)
    missing = ("missing_shard", "cannot_start")
    for name, change in SHARDS:
        yield Fault(name, KIND, _one_shard(change), missing, words=("path-00001",), also=missing)
    yield Fault("shard empty", KIND, _one_shard(lambda data, path: data.write(path, b"")),
                ("truncated_shard", "outside_shard"), also=("outside_shard",))  # fmt: skip
    yield Fault("every shard text", KIND, _every_shard_text, ("cannot_start",),
                also=("damaged_record", "outside_shard", "truncated_shard"))  # fmt: skip
    for name, value in {"None": None, "a number": 3, "a list": ["a"], "NaN": float("nan")}.items():
        yield stops(f"caption {name}", KIND, _json(LABELS, _entry(3, "", caption=value)), LABELS, "row 3")
    yield stops("caption's id None", KIND, _json(LABELS, _entry(3, "", video_id=None)), LABELS, "row 3")
    yield stops("caption's id a list", KIND, _json(LABELS, _entry(3, "", video_id=["a"])), LABELS, "row 3")
    yield stops("caption's id with ../", KIND, _json(LABELS, _entry(3, "", video_id="../a")), LABELS, "row 3")
    yield stops("captions a dictionary", KIND, _json(LABELS, lambda rows: {"a": rows}), LABELS)
    yield stops("captions none", KIND, _json(LABELS, lambda _: []))
    yield stops("captions cut", KIND, _text(LABELS, lambda text: text[:-200]), LABELS)
    yield stops("captions nested deeply", KIND, _text(LABELS, lambda text: text[:-1] + "," + "[" * 100_000), LABELS)
    yield Fault("byte order mark, captions", KIND, _text(LABELS, lambda text: BOM + text), HARMLESS)
    yield Fault("line ends of Windows, index", KIND, _text(INDEX, lambda text: text.replace("\n", "\r\n")), HARMLESS)
    yield Fault("byte order mark, index", KIND, _text(INDEX, lambda text: BOM + text), HARMLESS)
    for name in (INDEX, LABELS):
        yield from _whole_file(KIND, name)


SHARDS: list[tuple[str, Callable[[DataSet, Path], object]]] = [
    ("shard missing", lambda _, path: path.unlink()),
    ("shard is a folder", lambda _, path: (path.unlink(), path.mkdir())),
    ("shard is a named pipe", lambda _, path: (path.unlink(), os.mkfifo(path))),
    ("shard dangling link", lambda _, path: (path.unlink(), path.symlink_to("gone"))),
]


def _every_shard_text(data: DataSet) -> None:
    for path in data.shards:
        data.write(path, b"no records" * (path.stat().st_size // 10))
