"""Reading of TFRecord files, without TensorFlow.

A file is a sequence of records: length (u64), its masked CRC32C (u32), payload, masked CRC32C of the payload (u32),
little-endian. The payload is a `tf.train.Example` in protobuf's wire format (dataloaders/stored_clips.py has what the
examples of clips hold).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from crc32c import crc32c

from dataloaders.decoders import UnusableClip

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
MAX_PAYLOAD = 2**31 - 1  # bytes of the largest protobuf message


Example = dict[str, "list[bytes] | np.ndarray"]


class DamagedRecord(UnusableClip):
    """A record is cut short, fails its checksum or is not what it should be; the message names shard and offset."""


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
        DamagedRecord: the record is cut short, too long for a message or fails a checksum.
    """
    place = f"{file.name}, offset {offset}"
    length = payload_length(file, offset)
    # Before memory is taken: a stated length may be anything.
    there = _size(file) - offset - HEADER.size
    if there < length + FOOTER.size:
        raise DamagedRecord(f"{place}: the file ends inside the record ({there} of {length + FOOTER.size} bytes)")
    if length > MAX_PAYLOAD:
        raise DamagedRecord(f"{place}: a record of {length} bytes, more than a tf.train.Example can have")
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
    is_inside = 0 <= offset <= _size(file) - HEADER.size
    header = _read_at(file, HEADER.size, offset) if is_inside else b""
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
        size, offset = _size(file), 0
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
    if position < len(message) and message[position] < 0x80:  # as most are: tags, and lengths of what is short
        return message[position], position + 1
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


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _read_at(file: BinaryIO, count: int, offset: int) -> bytes:
    """Read `count` bytes at `offset`, fewer only at the end of the file (one pread gives 2 GiB at most)."""
    data = os.pread(file.fileno(), count, offset)
    while len(data) < count:
        more = os.pread(file.fileno(), count - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
