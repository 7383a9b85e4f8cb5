"""A cache of finished frame crops of clips, on a disk that several processes and nodes share and fill at once.

Each process appends to a segment of its own and lists what it holds in an index of its own beside it, so nobody waits
for a lock; readers join all indexes of the folder. Whatever a killed process or a full disk leaves behind fails a
checksum or has no line in an index, and is read as a miss.

An index has one JSON object per line: the version, then one entry per line with its own checksum. No PyTorch here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import secrets
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from crc32c import crc32c

from dataloaders.built_caches import CannotCache
from dataloaders.opencv import cv2
from modules.config import check_settings, setting

logger = logging.getLogger(__name__)

VERSION = 1
FORMATS = ("raw", "jpeg")
JPEG_QUALITY = 95
RESCAN_SECONDS = 1.0
MAX_FRAMES = 4096
MAX_SIDE = 4096
MAX_OPEN_SEGMENTS = 64
READ_BYTES = 16 << 20
SEGMENT, INDEX = ".frames", ".index"
CHECK = b', "check": '


@dataclass(frozen=True)
class FrameCacheSettings:
    """Whether finished frames of video files are kept, and how."""

    frame_cache: str | None = setting(
        None,
        "folder that keeps the finished frames of video files, so that each is decoded once; default: none is kept",
    )
    frame_cache_format: str = setting("raw", "raw: the same batches bit for bit; jpeg: a tenth of it", choices=FORMATS)
    frame_cache_gb: float | None = setting(
        None,
        "size of the cache, in 10^9 bytes, beyond which videos are read without storing; default: no limit",
        above=0,
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def open(self) -> FrameCache | None:
        """The cache, opened, so that loader workers have its index; None if there is none.

        Raises:
            OSError: the folder cannot be made or read.
        """
        if self.frame_cache is None:
            return None
        cache = FrameCache(self.frame_cache, self.frame_cache_format, self.frame_cache_gb)
        cache.open()
        return cache


class CachedClip(NamedTuple):
    """The frames of a clip as training takes them: T positions, R pixels to a side."""

    frames: list[np.ndarray]  # T arrays uint8 (R, R, 3) RGB; a frame picked twice is the same array twice
    original_size: tuple[int, int]  # width, height
    frame_indices: list[int]  # T numbers in the video
    notes: list[str]  # what is to be said of the reading, usually nothing


class Unreadable(NamedTuple):
    """A clip without frames."""

    reason: str


class _Entry(NamedTuple):
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


class _Damaged(Exception):
    """What an index says is in a segment is not there."""


class FrameCache:
    """Clips by key in a folder; opened on first use in each process, pickled as its settings.

    A process forked after `open` has the index already. Not for several threads at once.

    Args:
        folder: made when absent.
        format: "raw", or "jpeg" for less space, frames that are close but not equal, and slower reading.
        limit_gb: size of all segments together, in 10^9 bytes, beyond which nothing more is stored; None: no limit.
    """

    def __init__(self, folder: str | Path, format: str = "raw", limit_gb: float | None = None) -> None:
        if format not in FORMATS:
            raise ValueError(f"format {format!r} of the frame cache: choose from {', '.join(FORMATS)}")
        self.folder = Path(folder).absolute()
        self.format = format
        self.limit_gb = limit_gb
        self._suffix = ".raw" if format == "raw" else f".jpeg{JPEG_QUALITY}"
        self._entries: dict[str, _Entry | Unreadable] = {}
        self._older: dict[str, list[_Entry | Unreadable]] = {}
        self._shared: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._offsets: dict[str, int] = {}
        self._scanned_at: float | None = None
        self._total = 0
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._writer: _Writer | None = None
        self._is_stopped = False
        self._told: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.format, self.limit_gb)

    def open(self) -> None:
        """Make the folder and read the indexes in it; done on first use unless it was called before.

        Raises:
            OSError: the folder cannot be made or read.
        """
        if self._scanned_at is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._scan()
        except OSError as error:
            raise CannotCache(f"--frame_cache {self.folder}: not a folder that can be used: {error}") from error

    def get(self, key: str) -> CachedClip | Unreadable | None:
        """Return what is stored of a clip; None if nothing sound is.

        Args:
            key: hex digest of all that the frames depend on; the format is added here.

        Returns:
            A clip whose frames may be written to, or why it has none.

        Raises:
            OSError: on first use, as `open`.
        """
        key += self._suffix
        while isinstance(entry := self._find(key), _Entry):
            clip = self._load(entry)
            if clip is not None:
                return clip
            self._drop(key)
        return entry

    def put(self, key: str, clip: CachedClip) -> None:
        """Store a clip unless its key is known or storing has stopped; a full disk is a warning, not an error.

        Raises:
            OSError: on first use, as `open`.
            ValueError: frames that are not 1 to 4096 uint8 arrays of one shape (R, R, 3).
        """
        key += self._suffix
        if self._find(key) is not None or self._is_stopped:
            return
        distinct, which = _distinct_frames(clip.frames)
        record: dict[str, Any] = {
            "key": key,
            "shape": [len(distinct), *distinct[0].shape],
            "which": which,
            "size": [int(side) for side in clip.original_size],
            "indices": [int(index) for index in clip.frame_indices],
            "notes": list(clip.notes),
        }
        if self.format == "jpeg":
            parts = [_encode(frame) for frame in distinct]
            record["lengths"] = [len(part) for part in parts]
        else:
            parts = [frame.tobytes() for frame in distinct]
        self._store(b"".join(parts), record)

    def put_unreadable(self, key: str, reason: str) -> None:
        """Remember why a clip has no frames; when and errors as `put`."""
        key += self._suffix
        if self._find(key) is None and not self._is_stopped:
            self._store(b"", {"key": key, "reason": reason})

    def __len__(self) -> int:
        """Number of clips of this format that the folder lists now, unreadable ones included."""
        self._rescan(0)
        return len(self._entries)

    def size(self) -> int:
        """Bytes of all segments in the folder, of both formats."""
        self._rescan(0)
        return self._total

    def _find(self, key: str) -> _Entry | Unreadable | None:
        if key not in self._entries:
            self._rescan(RESCAN_SECONDS)
        return self._entries.get(key)

    def _rescan(self, seconds: float) -> None:
        """Read what is new in the folder if it was last looked at so long ago."""
        if self._scanned_at is None:
            self.open()
        elif time.monotonic() - self._scanned_at >= seconds:
            try:
                self._scan()
            except OSError as error:
                self._warn(self.folder.name, f"cannot be listed ({error}); what is known of it is used")

    def _scan(self) -> None:
        total, grown = 0, []
        with os.scandir(self.folder) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # its writer removed it
                    if file.name.endswith(SEGMENT):
                        total += file.stat().st_size
                    elif file.name.endswith(INDEX) and file.stat().st_size > self._offsets.get(file.name, 0):
                        grown.append(file.name)
        for name in sorted(grown):
            self._read_index(name)
        self._total = total
        self._scanned_at = time.monotonic()

    def _read_index(self, name: str) -> None:
        """Take the complete lines of an index that were not read yet."""
        try:
            with open(self.folder / name, "rb", buffering=0) as file:
                while (lines := self._next_lines(file, name)) is not None:
                    for line in lines:
                        self._take(line, name)
        except FileNotFoundError:
            return  # its writer removed it
        except OSError as error:
            self._warn(name, f"cannot be read ({error}); its clips are read anew")

    def _next_lines(self, file: BinaryIO, name: str) -> list[bytes] | None:
        """Complete lines from where reading stopped, 16 MiB of them at most; None if there are none."""
        start = self._offsets.get(name, 0)
        data = os.pread(file.fileno(), READ_BYTES, start)
        end = data.rfind(b"\n") + 1
        lines = data[:end].split(b"\n")[:-1]
        self._offsets[name] = start + end
        problem = "has a line that does not end" if not lines and len(data) == READ_BYTES else None
        if start == 0 and lines:
            problem = _header_problem(lines.pop(0))
        if problem is None:
            return lines if end else None
        self._warn(name, f"{problem}; it is ignored")
        self._offsets[name] = sys.maxsize  # never read again
        return None

    def _take(self, line: bytes, name: str) -> None:
        try:
            record = _read_line(line)
            key = _texts([record.get("key")])[0]
            if not key.endswith(self._suffix):
                return
            if "reason" in record:
                entry: _Entry | Unreadable = Unreadable(_texts([record["reason"]])[0])
            else:
                entry = self._compact(_read_entry(record, name.removesuffix(INDEX) + SEGMENT, self.format))
        except (ValueError, RecursionError) as error:
            self._warn(name, f"has a damaged line ({error}); such lines are ignored")
            return
        if key in self._entries:
            self._older.setdefault(key, []).append(self._entries[key])
        self._entries[key] = entry

    def _compact(self, entry: _Entry) -> _Entry:
        """Share the parts that most clips have in common: there may be millions of entries."""
        shape, which, size = (self._shared.setdefault(part, part) for part in (entry.shape, entry.which, entry.size))
        return entry._replace(shape=shape, which=which, size=size)

    def _load(self, entry: _Entry) -> CachedClip | None:
        try:
            payload = _read_payload(self._open_segment(entry.segment), entry)
            distinct = _decode(payload, entry) if entry.lengths else list(payload.reshape(entry.shape))
        except (OSError, _Damaged) as error:
            self._warn(entry.segment, f"is damaged ({error}); clips that it has lost are read anew")
            return None
        width, height = entry.size
        frames = [distinct[number] for number in entry.which]
        return CachedClip(frames, (width, height), list(entry.indices), list(entry.notes))

    def _open_segment(self, name: str) -> BinaryIO:
        if name in self._files:
            self._files.move_to_end(name)
            return self._files[name]
        file = (self.folder / name).open("rb", buffering=0)
        self._files[name] = file
        while len(self._files) > MAX_OPEN_SEGMENTS:
            self._files.popitem(last=False)[1].close()
        return file

    def _drop(self, key: str) -> None:
        """Forget a damaged entry; an earlier one of the same key, if there is any, takes its place."""
        older = self._older.get(key)
        if older:
            self._entries[key] = older.pop()
        else:
            del self._entries[key]

    def _store(self, payload: bytes, record: dict[str, Any]) -> None:
        if self.limit_gb is not None and self._total + len(payload) > self.limit_gb * 1e9:
            self._stop(f"the limit of {self.limit_gb:g} GB is reached")
            return
        try:
            writer, self._writer = self._writer, None  # not used again if this fails
            if writer is None or writer.process != os.getpid():
                writer = _Writer(self.folder)  # after a fork: the inherited segment is the parent's
            writer.append(payload, record)
            self._writer = writer
        except OSError as error:
            self._stop(str(error))
            return
        self._total += len(payload)
        self._read_index(writer.stem + INDEX)

    def _stop(self, reason: str) -> None:
        self._is_stopped = True
        logger.warning("--frame_cache %s: %s: reading goes on without storing", self.folder, reason)

    def _warn(self, name: str, message: str) -> None:
        """Say the first problem of a file, not each one."""
        if name not in self._told:
            self._told.add(name)
            logger.warning("frame cache: %s of %s %s", name, self.folder, message)


class _Writer:
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


def _header_problem(line: bytes) -> str | None:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    version = header.get("version") if isinstance(header, dict) else None
    if version is None:
        return "has a damaged first line"
    return None if version == VERSION else f"is of version {version}, not {VERSION}"


def _read_line(line: bytes) -> dict[str, Any]:
    """The entry of a line that `index_line` made, without its line end; ValueError if it is not one."""
    body, _, check = line.rpartition(CHECK)
    if not body or check != b"%d}" % crc32c(body):
        raise ValueError("checksum differs")
    record = json.loads(body + b"}")
    if not isinstance(record, dict):
        raise ValueError("not an entry")
    return record


def _read_entry(record: dict[str, Any], segment: str, format: str) -> _Entry:
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
    return _Entry(segment, offset, length, crc, shape, which, size, indices, _texts(record.get("notes")), lengths)


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("not a list of counts")
    return tuple(values)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("not a list of texts")
    return tuple(values)


def _read_payload(file: BinaryIO, entry: _Entry) -> np.ndarray:
    """Bytes of an entry, uint8 (length,); _Damaged unless they are all there with the right checksum."""
    place = f"offset {entry.offset}"
    if entry.offset + entry.length > os.fstat(file.fileno()).st_size:
        raise _Damaged(f"{place}: the file ends before {entry.length} bytes")
    payload = np.empty(entry.length, np.uint8)
    view, done = payload.data, 0
    while done < entry.length:  # one call gives 2 GiB at most
        count = os.preadv(file.fileno(), [view[done:]], entry.offset + done)
        if count == 0:
            raise _Damaged(f"{place}: the file ends before {entry.length} bytes")
        done += count
    if crc32c(view) != entry.crc:
        raise _Damaged(f"{place}: checksum differs")
    return payload


def _distinct_frames(frames: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """D distinct arrays, uint8 (R, R, 3), of T and for each of T the number of its own; ValueError as `put`."""
    if not 0 < len(frames) <= MAX_FRAMES:
        raise ValueError(f"a clip of {len(frames)} frames cannot be cached; 1 to {MAX_FRAMES} can")
    side = len(frames[0])
    distinct: dict[int, np.ndarray] = {}
    for frame in frames:
        if frame.dtype != np.uint8 or frame.shape != (side, side, 3) or not 0 < side <= MAX_SIDE:
            raise ValueError(f"a frame {frame.dtype} {frame.shape} of a clip of {side} pixels cannot be cached")
        distinct.setdefault(id(frame), frame)
    numbers = {identity: number for number, identity in enumerate(distinct)}
    return list(distinct.values()), [numbers[id(frame)] for frame in frames]


def _encode(frame: np.ndarray) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, content = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), settings)
    return content.tobytes()


def _decode(payload: np.ndarray, entry: _Entry) -> list[np.ndarray]:
    """The D distinct frames, uint8 (R, R, 3), of JPEGs one after the other; _Damaged if one does not decode."""
    frames, end = [], 0
    for length in entry.lengths:
        start, end = end, end + length
        image = cv2.imdecode(payload[start:end], cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None or image.shape != entry.shape[1:]:
            raise _Damaged(f"offset {entry.offset + start}: no JPEG of shape {entry.shape[1:]}")
        frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return frames
