"""TFRecords made by hand, without TensorFlow."""

from __future__ import annotations

import struct
from pathlib import Path

from dataloaders.tfrecord import masked_crc, record_length


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def encode(features: dict[str, list]) -> bytes:
    """A tf.train.Example by hand: lists of bytes, floats or ints, numbers packed."""
    entries = b""
    for name, values in features.items():
        if isinstance(values[0], bytes):
            feature = field(1, b"".join(field(1, value) for value in values))
        elif isinstance(values[0], float):
            feature = field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
        else:
            feature = field(3, field(1, b"".join(varint(value) for value in values)))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", masked_crc(length)) + payload + struct.pack("<I", masked_crc(payload))


def write_shard(path: Path, payloads: list[bytes]) -> list[int]:
    """Write a file of these records; where each starts, in bytes."""
    offsets = [0]
    for payload in payloads:
        offsets.append(offsets[-1] + record_length(len(payload)))
    path.write_bytes(b"".join(map(record, payloads)))
    assert path.stat().st_size == offsets[-1]
    return offsets[:-1]
