"""A cache of finished frame crops of clips, on a disk that several processes and nodes share and fill at once.

Each process appends to a segment of its own and lists what it holds in an index of its own beside it, so nobody waits
for a lock; readers join all indexes of the folder. Whatever a killed process or a full disk leaves behind fails a
checksum or has no line in an index, and is read as a miss. `frame_segments` has the form of both. No PyTorch here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dataloaders.built_caches import CannotCache
from dataloaders.frame_segments import (
    FORMATS,
    INDEX,
    JPEG_QUALITY,
    MAX_FRAMES,
    MAX_SIDE,
    SEGMENT,
    Damaged,
    Entry,
    SegmentWriter,
    decode_jpegs,
    encode_jpeg,
    header_problem,
    read_entry,
    read_line,
    read_payload,
    texts,
)
from modules.config import check_settings, setting

logger = logging.getLogger(__name__)

RESCAN_SECONDS = 1.0
MAX_OPEN_SEGMENTS = 64
READ_BYTES = 16 << 20


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
        self._entries: dict[str, Entry | Unreadable] = {}
        self._older: dict[str, list[Entry | Unreadable]] = {}
        self._shared: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._offsets: dict[str, int] = {}
        self._scanned_at: float | None = None
        self._total = 0
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._writer: SegmentWriter | None = None
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
        while isinstance(entry := self._find(key), Entry):
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
            parts = [encode_jpeg(frame) for frame in distinct]
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

    def _find(self, key: str) -> Entry | Unreadable | None:
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
            problem = header_problem(lines.pop(0))
        if problem is None:
            return lines if end else None
        self._warn(name, f"{problem}; it is ignored")
        self._offsets[name] = sys.maxsize  # never read again
        return None

    def _take(self, line: bytes, name: str) -> None:
        try:
            record = read_line(line)
            key = texts([record.get("key")])[0]
            if not key.endswith(self._suffix):
                return
            if "reason" in record:
                entry: Entry | Unreadable = Unreadable(texts([record["reason"]])[0])
            else:
                entry = self._compact(read_entry(record, name.removesuffix(INDEX) + SEGMENT, self.format))
        except (ValueError, RecursionError) as error:
            self._warn(name, f"has a damaged line ({error}); such lines are ignored")
            return
        if key in self._entries:
            self._older.setdefault(key, []).append(self._entries[key])
        self._entries[key] = entry

    def _compact(self, entry: Entry) -> Entry:
        """Share the parts that most clips have in common: there may be millions of entries."""
        shape, which, size = (self._shared.setdefault(part, part) for part in (entry.shape, entry.which, entry.size))
        return entry._replace(shape=shape, which=which, size=size)

    def _load(self, entry: Entry) -> CachedClip | None:
        try:
            payload = read_payload(self._open_segment(entry.segment), entry)
            distinct = decode_jpegs(payload, entry) if entry.lengths else list(payload.reshape(entry.shape))
        except (OSError, Damaged) as error:
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
                writer = SegmentWriter(self.folder)  # after a fork: the inherited segment is the parent's
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
