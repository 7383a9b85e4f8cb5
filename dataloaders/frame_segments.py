"""A segment of the frame cache and its index: frames of clips one after the other, and where each clip lies.

An index has one JSON object per line: the version, then one entry per line with its own checksum. No PyTorch here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import socket
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from crc32c import crc32c

from dataloaders.opencv import cv2

VERSION = 1
FORMATS = ("raw", "jpeg")
JPEG_QUALITY = 95
MAX_FRAMES = 4096
MAX_SIDE = 4096
SEGMENT, INDEX = ".frames", ".index"
CHECK = b', "check": '


class Entry(NamedTuple):
    """Where a clip lies: D distinct frames, R pixels to a side."""

    segment: str
    offset: int
    length: int
    crc: int
    shape: tuple[int, ...]  # D, R, R, 3
    which: tuple[int, ...]  # for each of T positions the number of its distinct frame
    size: tuple[int, ...]  # width, height
    indices: tuple[int, ...]  # T numbers in the video
    notes: tuple[str, ...]
    lengths: tuple[int, ...]  # bytes of each of D JPEGs; empty for raw frames


class Damaged(Exception):
    """What an index says is in a segment is not there."""


class SegmentWriter:
    """The segment of this process and its index; no other process writes to them.

    Raises:
        OSError: they cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.process = os.getpid()
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        self.stem = f"{host}-{self.process}-{secrets.token_hex(8)}"
        self._segment = (folder / f"{self.stem}{SEGMENT}").open("ab", buffering=0)
        self._index = (folder / f"{self.stem}{INDEX}").open("ab", buffering=0)

    def append(self, payload: bytes, record: dict[str, Any]) -> None:
        """Write a payload, then its line; both files are as they were when that fails.

        Raises:
            OSError: no room, or another problem of the disk.
        """
        start, index_start = (os.fstat(file.fileno()).st_size for file in (self._segment, self._index))
        if payload:
            record = {**record, "offset": start, "length": len(payload), "crc": crc32c(payload)}
        header = b"" if index_start else json.dumps({"version": VERSION}).encode() + b"\n"
        line = header + index_line(record)
        try:
            view = memoryview(payload)
            while view:
                view = view[os.write(self._segment.fileno(), view) :]
            if os.write(self._index.fileno(), line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._index.name)
        except BaseException:  # an interrupt as well
            _truncate(self._index, index_start)
            _truncate(self._segment, start)
            raise


def index_line(record: dict[str, Any]) -> bytes:
    """Return the line of an index for an entry: its JSON with a checksum of the text before it as last field."""
    body = json.dumps(record).encode()[:-1]
    return b"%s%s%d}\n" % (body, CHECK, crc32c(body))


def _truncate(file: BinaryIO, size: int) -> None:
    """Cut a file back; a file that would be empty goes."""
    with contextlib.suppress(OSError):  # what stays is in no index or fails its checksum
        os.ftruncate(file.fileno(), size)
        if size == 0:
            os.unlink(file.name)


def header_problem(line: bytes) -> str | None:
    """What is wrong with the first line of an index; None if it is of this version."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    version = header.get("version") if isinstance(header, dict) else None
    if version is None:
        return "has a damaged first line"
    return None if version == VERSION else f"is of version {version}, not {VERSION}"


def read_line(line: bytes) -> dict[str, Any]:
    """The entry of a line that `index_line` made, without its line end; ValueError if it is not one."""
    body, _, check = line.rpartition(CHECK)
    if not body or check != b"%d}" % crc32c(body):
        raise ValueError("checksum differs")
    record = json.loads(body + b"}")
    if not isinstance(record, dict):
        raise ValueError("not an entry")
    return record


def read_entry(record: dict[str, Any], segment: str, format: str) -> Entry:
    """The entry in a record; ValueError if its numbers do not fit each other. Nothing of their size is allocated."""
    offset, length, crc = _numbers([record.get(name) for name in ("offset", "length", "crc")])
    shape, which, size, indices = (_numbers(record.get(name)) for name in ("shape", "which", "size", "indices"))
    lengths = _numbers(record.get("lengths")) if format == "jpeg" else ()
    if len(shape) != 4 or shape[1:] != (shape[1], shape[1], 3) or len(size) != 2:
        raise ValueError(f"frames of shape {shape}, clip of size {size}")
    distinct, side = shape[:2]
    if not (0 < distinct <= MAX_FRAMES and 0 < side <= MAX_SIDE and 0 < len(which) <= MAX_FRAMES):
        raise ValueError(f"{len(which)} frames, distinct ones of shape {shape}")
    if len(indices) != len(which):
        raise ValueError(f"numbers of {len(indices)} frames for {len(which)}")
    if max(which) >= distinct:
        raise ValueError(f"frame {max(which)} of {distinct}")
    if format == "jpeg" and (len(lengths) != distinct or min(lengths) == 0):
        raise ValueError(f"{distinct} frames in {len(lengths)} JPEGs")
    if length != (sum(lengths) if format == "jpeg" else distinct * side * side * 3):
        raise ValueError(f"{length} bytes for frames of shape {shape}")
    return Entry(segment, offset, length, crc, shape, which, size, indices, texts(record.get("notes")), lengths)


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("not a list of counts")
    return tuple(values)


def texts(values: Any) -> tuple[str, ...]:
    """A list of an entry, which is to be one of texts; ValueError if it is not."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("not a list of texts")
    return tuple(values)


def read_payload(file: BinaryIO, entry: Entry) -> np.ndarray:
    """Bytes of an entry, uint8 (length,); Damaged unless they are all there with the right checksum."""
    place = f"offset {entry.offset}"
    if entry.offset + entry.length > os.fstat(file.fileno()).st_size:
        raise Damaged(f"{place}: the file ends before {entry.length} bytes")
    payload = np.empty(entry.length, np.uint8)
    view, done = payload.data, 0
    while done < entry.length:  # one call gives 2 GiB at most
        count = os.preadv(file.fileno(), [view[done:]], entry.offset + done)
        if count == 0:
            raise Damaged(f"{place}: the file ends before {entry.length} bytes")
        done += count
    if crc32c(view) != entry.crc:
        raise Damaged(f"{place}: checksum differs")
    return payload


def encode_jpeg(frame: np.ndarray) -> bytes:
    """The JPEG of a frame, uint8 (R, R, 3) RGB."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, content = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), settings)
    return content.tobytes()


def decode_jpegs(payload: np.ndarray, entry: Entry) -> list[np.ndarray]:
    """The D distinct frames, uint8 (R, R, 3), of JPEGs one after the other; Damaged if one does not decode."""
    frames, end = [], 0
    for length in entry.lengths:
        start, end = end, end + length
        image = cv2.imdecode(payload[start:end], cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None or image.shape != entry.shape[1:]:
            raise Damaged(f"offset {entry.offset + start}: no JPEG of shape {entry.shape[1:]}")
        frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return frames
