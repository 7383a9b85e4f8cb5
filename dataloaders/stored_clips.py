"""Clips in TFRecord shards: what a record holds, and reading it by the place that path.index names.

Two kinds of records are read:

- released: one feature `image` with one value, uint8 (n, 256, 256, 3) BGR, one frame per second;
- ours (utils/webvid_to_tfrecord.py): `image` with one JPEG file per frame, or raw frames as above, and beside it the
  clip's original size, frame rate and frame numbers (`Features` below).
"""

from __future__ import annotations

import math
import os
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dataloaders.decoders import MAX_PIXELS
from dataloaders.opencv import cv2
from dataloaders.tfrecord import DamagedRecord, Example, parse_example, read_record
from modules.foreign_text import why_no_file

RELEASED_RAW_SIZE = 256
RAW, JPEG = "raw", "jpeg"  # how frames are stored
MAX_ASPECT = 100  # long side over short side: the short one becomes the model's, and the picture grows with it
MIN_RATE, MAX_RATE = 1e-4, 1e6  # frames per second
MAX_FRAME_NUMBER = 2**31 - 1
MAX_SECONDS = 1e7  # of a video, by the number of its last frame
SPACING_ROUNDING = 2  # frames by which the distances of rounded frame numbers may differ
# Markers of a JPEG file, the byte after 0xff: those that state the size, those without content, those before which the
# size must have been stated (start of file, end, start of the picture's data).
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_BARE = frozenset((0x01, *range(0xD0, 0xD8)))
JPEG_ENDS = frozenset((0xD8, 0xD9, 0xDA))
JPEG_FRAME_HEADER = struct.Struct(">HBHH")  # length, precision, height, width


class Features:
    """Names of the features of one record."""

    IMAGE = "image"
    FORMAT = "format"  # b"jpeg" or b"raw"
    VIDEO_ID = "video_id"
    WIDTH = "width"
    HEIGHT = "height"
    STORED_WIDTH = "stored_width"
    STORED_HEIGHT = "stored_height"
    FPS = "fps"
    FRAME_INDICES = "frame_indices"
    FRAME_RULE = "frame_rule"  # version of the rule that chose the frames; absent in shards of earlier versions
    FEATURE_FRAMERATE = "feature_framerate"


class WrongClip(DamagedRecord):
    """A sound record, but of another video than the index says."""


class MissingShard(DamagedRecord, FileNotFoundError):
    """A shard is not there, or not one that can be opened."""


@dataclass
class StoredClip:
    """One clip of a shard; its frames stay encoded until they are asked for.

    Attributes:
        place: shard, offset and id, for messages.
        num_frames: candidates stored, n.
        stored_width, stored_height: size of the stored frames, in pixels.
        width, height: size of the video as shown, in pixels; None in released shards.
        fps: frame rate of the video; None in released shards.
        frame_indices: int64 (n,), number of each stored frame in the video; None in released shards.
        feature_framerate: frames per second that were kept, by time; None in shards that were written by number.
    """

    place: str
    num_frames: int
    stored_width: int
    stored_height: int
    width: int | None
    height: int | None
    fps: float | None
    frame_indices: np.ndarray | None
    feature_framerate: float | None
    _images: list[bytes] | np.ndarray

    def decode(self, positions: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """Decode the frames at these positions (see `dataloaders.frames.pick_positions`), each distinct one once.

        Returns:
            T images, uint8 (stored_height, stored_width, 3), RGB.

        Raises:
            DamagedRecord: a frame does not decode.
        """
        wanted = [int(position) for position in positions]
        decoded = {position: self._decode_one(position) for position in sorted(set(wanted))}
        return [decoded[position] for position in wanted]

    def _decode_one(self, position: int) -> np.ndarray:
        image: np.ndarray | None
        try:
            stored = self._images[position]
            image = stored if isinstance(stored, np.ndarray) else self._decode_jpeg(stored)
        except (ValueError, cv2.error) as error:
            raise self._undecodable(position, str(error)) from error
        if image is None or image.shape != (self.stored_height, self.stored_width, 3):
            raise self._undecodable(position, "no picture of the stored size")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def _decode_jpeg(self, data: bytes) -> np.ndarray | None:
        """The picture as stored, BGR; ValueError before memory is taken if it is of another size."""
        size = jpeg_size(data)
        if size != (self.stored_width, self.stored_height):
            stored = f"{self.stored_width}x{self.stored_height}"
            raise ValueError(f"its header states {size[0]}x{size[1]} pixels, the record {stored}")
        # Stored frames are upright already: a camera's orientation tag must not turn them again.
        return cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)

    def _undecodable(self, position: int, reason: str) -> DamagedRecord:
        return DamagedRecord(f"{self.place}: frame {position} of {self.num_frames} does not decode: {reason}")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(width, height) that the header of a JPEG file states, looked for as libjpeg does.

    Raises:
        ValueError: the bytes are no JPEG file, or it states no size.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("no JPEG file")
    position = 2
    while True:
        position = data.find(b"\xff", position)
        while 0 <= position < len(data) and data[position] == 0xFF:
            position += 1
        if not 0 <= position < len(data) or data[position] in JPEG_ENDS:
            raise ValueError("a JPEG file whose header states no size")
        marker, position = data[position], position + 1
        if marker == 0 or marker in JPEG_BARE:
            continue
        header = data[position : position + JPEG_FRAME_HEADER.size]
        length = int.from_bytes(header[:2], "big")
        if length < 2 or (marker in JPEG_FRAMES and len(header) < JPEG_FRAME_HEADER.size):
            raise ValueError("a JPEG file with a damaged header")
        if marker in JPEG_FRAMES:
            _, _, height, width = JPEG_FRAME_HEADER.unpack(header)
            return width, height
        position += length


def parse_clip(payload: bytes, place: str, video_id: str | None = None) -> StoredClip:
    """Make a clip of a record's payload.

    Args:
        payload: a serialised `tf.train.Example`.
        place: where it comes from, for messages.
        video_id: if given and the record says another one, that is an error (the index belongs to other shards).

    Raises:
        DamagedRecord: the payload is no clip, or (WrongClip) that of another video.
    """
    try:
        example = parse_example(payload)
    except ValueError as error:
        raise DamagedRecord(f"{place}: not a tf.train.Example: {error}") from error
    try:
        return _clip(example, place, video_id)
    except ValueError as error:
        raise DamagedRecord(f"{place}: {error}") from error


def _clip(example: Example, place: str, video_id: str | None) -> StoredClip:
    """The clip of an example; ValueError with the reason if it is none."""
    images = example.get(Features.IMAGE)
    if not isinstance(images, list) or not images or not all(images):
        raise ValueError(f"the record has no feature `{Features.IMAGE}` with frames")
    found = _text(example, Features.VIDEO_ID)
    if video_id is not None and found not in (None, video_id):
        raise WrongClip(f"{place}: the record is of video {found}: path.index is of other shards")
    width, height = _pixels(example, Features.WIDTH, Features.HEIGHT)
    stored_width, stored_height = _pixels(example, Features.STORED_WIDTH, Features.STORED_HEIGHT, RELEASED_RAW_SIZE)
    assert stored_width is not None and stored_height is not None
    frames: list[bytes] | np.ndarray = images
    stored_as = _text(example, Features.FORMAT) or RAW
    if stored_as not in (RAW, JPEG):
        raise ValueError(f"its frames are stored as {stored_as!r}, neither {RAW} nor {JPEG}")
    if stored_as == RAW:
        frames = _raw_frames(images, stored_width, stored_height)
    fps, rate = _rate(example, Features.FPS), _rate(example, Features.FEATURE_FRAMERATE)
    by_time = None if _number(example, Features.FRAME_RULE) is None else rate
    return StoredClip(
        place=place,
        num_frames=len(frames),
        stored_width=stored_width,
        stored_height=stored_height,
        width=width,
        height=height,
        fps=fps,
        feature_framerate=by_time,
        frame_indices=_frame_numbers(example, len(frames), fps, by_time is not None),
        _images=frames,
    )


def _raw_frames(images: list[bytes], width: int, height: int) -> np.ndarray:
    pixels = np.frombuffer(images[0], dtype=np.uint8)
    if len(images) != 1 or pixels.size % (width * height * 3):
        raise ValueError(f"{pixels.size} bytes are no whole number of raw frames of {width}x{height}")
    return pixels.reshape(-1, height, width, 3)


def _frame_numbers(example: Example, frames: int, fps: float | None, is_by_time: bool) -> np.ndarray | None:
    """Numbers of the frames in the video, never falling; None if the record has none."""
    numbers = _numbers(example, Features.FRAME_INDICES)
    if numbers is None:
        return None
    name = Features.FRAME_INDICES
    if len(numbers) != frames:
        raise ValueError(f"{frames} frames but {len(numbers)} frame numbers")
    if numbers.dtype != np.int64 or numbers.min() < 0 or numbers.max() > MAX_FRAME_NUMBER:
        raise ValueError(f"`{name}` from {numbers.min()} to {numbers.max()} are no numbers of frames")
    steps = np.diff(numbers)
    if (steps < 0).any():
        raise ValueError(f"`{name}` are not in order")
    if fps is None:
        return numbers
    if numbers[-1] / fps > MAX_SECONDS:
        raise ValueError(f"frame {numbers[-1]} of a video of {fps:g} frames per second: longer than any video")
    if not is_by_time and len(steps) and steps.max() - steps.min() > SPACING_ROUNDING:
        raise ValueError(f"`{name}` are not evenly spaced: {steps.min()} to {steps.max()} apart")
    return numbers


def _pixels(
    example: Example, width_name: str, height_name: str, default: int | None = None
) -> tuple[int | None, int | None]:
    """Width and height, whole and of a picture that fits in memory; `default` where the record has none."""
    sides: list[int | None] = []
    for name in (width_name, height_name):
        side = _number(example, name)
        if side is not None and not (1 <= side <= MAX_PIXELS and side == math.floor(side)):
            raise ValueError(f"`{name}` is {side:g}, not a number of pixels")
        sides.append(default if side is None else int(side))
    width, height = sides
    if width is not None and height is not None:
        if width * height > MAX_PIXELS:
            raise ValueError(f"`{width_name}` and `{height_name}` are {width}x{height}, more than {MAX_PIXELS} pixels")
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ValueError(f"`{width_name}` and `{height_name}` are {width}x{height}, no shape of a video")
    return width, height


def _rate(example: Example, name: str) -> float | None:
    rate = _number(example, name)
    if rate is not None and not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(f"`{name}` is {rate:g}, not a frame rate")
    return rate


def _text(example: Example, name: str) -> str | None:
    values = example.get(name)
    if isinstance(values, np.ndarray):
        raise ValueError(f"`{name}` holds numbers where text belongs")
    try:
        return str(values[0], "utf-8") if values else None
    except UnicodeDecodeError as error:
        raise ValueError(f"`{name}` is not UTF-8: {error}") from error


def _number(example: Example, name: str) -> float | None:
    values = _numbers(example, name)
    return None if values is None or not len(values) else float(values[0])


def _numbers(example: Example, name: str) -> np.ndarray | None:
    values = example.get(name)
    if isinstance(values, list):
        if values:
            raise ValueError(f"`{name}` holds bytes where numbers belong")
        return None
    return values


def resolve_shard(shard_path: str, index_dir: str | Path) -> str:
    """Return the full path of a shard named in `path.index`: as written if that is in the index folder, else beside it.

    An index may have been written on another machine, or by a stranger: it opens no file outside of its folder, which
    may hold links. A shard found nowhere is returned as it would be in the folder, for the reader's error to name.
    """
    folder = os.path.abspath(index_dir)
    written = os.path.abspath(os.path.join(folder, shard_path))  # joining with an absolute path gives that path
    beside = os.path.join(folder, os.path.basename(written))
    is_inside = written.startswith(os.path.join(folder, ""))
    return written if is_inside and (os.path.isfile(written) or not os.path.isfile(beside)) else beside


class ShardReader:
    """Reads clips at (shard, offset), as `path.index` lists them.

    Shards are opened when first needed and the least recently used ones are closed again; an instance may be used in
    forked workers and pickled for spawned ones.

    Args:
        index_folder: folder of `path.index`; relative shard paths start there.
        check_payload: verify each record's checksum.
        max_open_files: shards kept open.
    """

    def __init__(self, index_folder: str | os.PathLike[str], check_payload: bool = True, max_open_files: int = 64):
        self.index_folder = Path(index_folder)
        self.check_payload = check_payload
        self.max_open_files = max_open_files
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()

    def read(self, shard_path: str, offset: int, video_id: str | None = None) -> StoredClip:
        """Read one clip.

        Raises:
            DamagedRecord: no sound record of this video is there; (MissingShard) the shard is in none of the places
                looked in.
        """
        place = f"{shard_path}, offset {offset}" + (f", video {video_id}" if video_id else "")
        try:
            payload = read_record(self._open(shard_path), offset, self.check_payload)
        except MissingShard:
            raise
        except DamagedRecord as error:
            raise DamagedRecord(f"{error} (video {video_id})" if video_id else str(error)) from None
        except OSError as error:
            raise MissingShard(f"shard {shard_path} cannot be read: {error.strerror or error}") from error
        return parse_clip(payload, place, video_id)

    def locate(self, shard_path: str) -> Path:
        """The shard's file, where `resolve_shard` has it.

        Raises:
            MissingShard: it is not there.
        """
        path = Path(resolve_shard(shard_path, self.index_folder))
        if reason := why_no_file(path):
            raise MissingShard(f"shard {shard_path} of path.index not found; looked at {path} ({reason})")
        return path

    def _open(self, shard_path: str) -> BinaryIO:
        if shard_path in self._files:
            self._files.move_to_end(shard_path)
            return self._files[shard_path]
        file = self.locate(shard_path).open("rb", buffering=0)
        self._files[shard_path] = file
        while len(self._files) > self.max_open_files:
            self._files.popitem(last=False)[1].close()
        return file

    def close(self) -> None:
        """Close the shards that are open; reading opens them again."""
        while self._files:
            self._files.popitem()[1].close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": OrderedDict()}
