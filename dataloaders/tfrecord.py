"""Reading of TFRecord shards of clips, without TensorFlow.

A shard is a sequence of records: length (u64), its masked CRC32C (u32), payload, masked CRC32C of the payload (u32),
little-endian. The payload is a `tf.train.Example` in protobuf's wire format. Two kinds of records are read:

- released: one feature `image` with one value, uint8 (n, 256, 256, 3) BGR, one frame per second;
- ours (utils/webvid_to_tfrecord.py): `image` with one JPEG file per frame, or raw frames as above, and beside it the
  clip's original size, frame rate and frame numbers (`Features` below).
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from crc32c import crc32c

from dataloaders.opencv import cv2

RELEASED_RAW_SIZE = 256
HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")

Example = dict[str, "list[bytes] | np.ndarray"]


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


class DamagedRecord(Exception):
    """A record is cut short, fails its checksum or is not what it should be; the message names shard and offset."""


class WrongClip(DamagedRecord):
    """A sound record, but of another video than the index says."""


def masked_crc(data: bytes | memoryview) -> int:
    """CRC32C of `data`, rotated and offset as TFRecord stores it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record_length(payload_length: int) -> int:
    """Bytes that a record takes in the file."""
    return HEADER.size + payload_length + FOOTER.size


def read_record(file: BinaryIO, offset: int, check_payload: bool = True) -> bytes:
    """Read the payload of the record that starts at a byte offset.

    The file's own position is neither used nor moved, so forked workers may share an open file.

    Args:
        file: a shard, opened in binary mode.
        offset: where the record starts, in bytes.
        check_payload: verify the payload's checksum (that of its length always is).

    Raises:
        DamagedRecord: the record is cut short or fails a checksum.
    """
    place = f"{file.name}, offset {offset}"
    length = payload_length(file, offset)
    body = _read_at(file, length + FOOTER.size, offset + HEADER.size)
    if len(body) < length + FOOTER.size:
        raise DamagedRecord(f"{place}: the file ends inside the record ({len(body)} of {length + FOOTER.size} bytes)")
    payload = body[:length]
    if check_payload and masked_crc(payload) != FOOTER.unpack(body[length:])[0]:
        raise DamagedRecord(f"{place}: the record's content fails its checksum")
    return payload


def payload_length(file: BinaryIO, offset: int) -> int:
    """Length in bytes that the header of the record at a byte offset states; arguments and errors as `read_record`."""
    place = f"{file.name}, offset {offset}"
    header = _read_at(file, HEADER.size, offset)
    if len(header) < HEADER.size:
        raise DamagedRecord(f"{place}: the file ends before or inside the record's header")
    length, length_crc = HEADER.unpack(header)
    if masked_crc(header[:8]) != length_crc:
        raise DamagedRecord(f"{place}: no record starts here (checksum of the length differs)")
    return length


def iterate_records(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Yield (byte offset, payload) for each record of a shard, checksums verified.

    Raises:
        DamagedRecord: at the first record that is cut short or fails a checksum.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            payload = read_record(file, offset)
            yield offset, payload
            offset += record_length(len(payload))


def parse_example(payload: bytes) -> Example:
    """Parse a serialised `tf.train.Example`.

    Returns:
        feature name -> list of bytes, or float32 (n,), or int64 (n,).

    Raises:
        ValueError: the bytes are not a `tf.train.Example`.
    """
    features: Example = {}
    for field, value in _fields(memoryview(payload)):
        if field == 1:  # Example.features
            for inner, entry in _fields(_bytes(value)):
                if inner == 1:  # one entry of the map Features.feature
                    name, feature = _parse_entry(_bytes(entry))
                    features[name] = feature
    return features


def _parse_entry(entry: memoryview) -> tuple[str, list[bytes] | np.ndarray]:
    name, feature = "", memoryview(b"")
    for field, value in _fields(entry):
        if field == 1:
            name = str(_bytes(value), "utf-8")
        elif field == 2:
            feature = _bytes(value)
    parsed: list[bytes] | np.ndarray = []
    for kind, values in _fields(feature):
        items = [item for field, item in _fields(_bytes(values)) if field == 1]
        if kind == 1:
            parsed = [bytes(_bytes(item)) for item in items]
        elif kind == 2:
            parsed = np.frombuffer(b"".join(_bytes(item) for item in items), dtype="<f4")
        elif kind == 3:
            numbers = [number for item in items for number in _integers(item)]
            parsed = np.array(numbers, dtype=np.uint64).astype(np.int64)
    return name, parsed


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield (field number, value) of a protobuf message; a value is an integer (varint) or bytes (everything else)."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire_type = tag & 7
        if wire_type == 0:
            number, position = _varint(message, position)
            yield tag >> 3, number
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position} does not occur in a tf.train.Example")
        if position + length > len(message):
            raise ValueError(f"a field of {length} bytes at byte {position} exceeds its message")
        yield tag >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("the message ends inside a number")
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, position
    raise ValueError(f"a number of more than 10 bytes ends at byte {position}")


def _integers(item: memoryview | int) -> list[int]:
    """The numbers of one int64 field, packed (bytes) or not."""
    if isinstance(item, int):
        return [item]
    numbers, position = [], 0
    while position < len(item):
        number, position = _varint(item, position)
        numbers.append(number)
    return numbers


def _bytes(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a message or a string should")
    return value


def _read_at(file: BinaryIO, count: int, offset: int) -> bytes:
    """Read `count` bytes at `offset`, fewer only at the end of the file (one pread gives 2 GiB at most)."""
    data = os.pread(file.fileno(), count, offset)
    while len(data) < count:
        more = os.pread(file.fileno(), count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


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
        if isinstance(self._images, np.ndarray):
            image = self._images[position]
        else:
            # Stored frames are upright already: a camera's orientation tag must not turn them again.
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(self._images[position], dtype=np.uint8), flags)
        if image is None or image.shape != (self.stored_height, self.stored_width, 3):
            raise DamagedRecord(f"{self.place}: frame {position} of {self.num_frames} does not decode")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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
    images = example.get(Features.IMAGE)
    if not isinstance(images, list) or not images or not all(images):
        raise DamagedRecord(f"{place}: the record has no feature `{Features.IMAGE}` with frames")
    found = _text(example, Features.VIDEO_ID)
    if video_id is not None and found not in (None, video_id):
        raise WrongClip(f"{place}: the record is of video {found}: path.index is of other shards")
    width, height = _number(example, Features.STORED_WIDTH), _number(example, Features.STORED_HEIGHT)
    stored_width, stored_height = int(width or RELEASED_RAW_SIZE), int(height or RELEASED_RAW_SIZE)
    frames: list[bytes] | np.ndarray = images
    if _text(example, Features.FORMAT) in (None, "raw"):
        pixels = np.frombuffer(images[0], dtype=np.uint8)
        if len(images) != 1 or pixels.size % (stored_width * stored_height * 3):
            size = f"{stored_width}x{stored_height}"
            raise DamagedRecord(f"{place}: {pixels.size} bytes are no whole number of raw frames of {size}")
        frames = pixels.reshape(-1, stored_height, stored_width, 3)
    indices = example.get(Features.FRAME_INDICES)
    if isinstance(indices, np.ndarray) and len(indices) != len(frames):
        raise DamagedRecord(f"{place}: {len(frames)} frames but {len(indices)} frame numbers")
    return StoredClip(
        place=place,
        num_frames=len(frames),
        stored_width=stored_width,
        stored_height=stored_height,
        width=_whole(_number(example, Features.WIDTH)),
        height=_whole(_number(example, Features.HEIGHT)),
        fps=_number(example, Features.FPS),
        feature_framerate=_number(example, Features.FEATURE_FRAMERATE) if Features.FRAME_RULE in example else None,
        frame_indices=indices if isinstance(indices, np.ndarray) else None,
        _images=frames,
    )


def _text(example: Example, name: str) -> str | None:
    values = example.get(name)
    return str(values[0], "utf-8", "replace") if isinstance(values, list) and values else None


def _number(example: Example, name: str) -> float | None:
    values = example.get(name)
    return float(values[0]) if isinstance(values, np.ndarray) and len(values) else None


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


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
            FileNotFoundError: the shard is in none of the places looked in.
            DamagedRecord: no sound record of this video is there.
        """
        place = f"{shard_path}, offset {offset}" + (f", video {video_id}" if video_id else "")
        try:
            payload = read_record(self._open(shard_path), offset, self.check_payload)
        except DamagedRecord as error:
            raise DamagedRecord(f"{error} (video {video_id})" if video_id else str(error)) from None
        return parse_clip(payload, place, video_id)

    def locate(self, shard_path: str) -> Path:
        """The shard's file: as written if absolute, else in the index folder, else by its bare name there.

        An index that was written on another machine names folders that do not exist here.
        """
        # Joining with an absolute path gives that path.
        places = list(dict.fromkeys([self.index_folder / shard_path, self.index_folder / Path(shard_path).name]))
        for place in places:
            if place.is_file():
                return place
        raise FileNotFoundError(f"shard {shard_path} of path.index not found; looked at {', '.join(map(str, places))}")

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
