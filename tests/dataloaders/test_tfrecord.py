"""Records of TFRecord files, read without TensorFlow."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from dataloaders.tfrecord import DamagedRecord, iterate_records, masked_crc, parse_example, read_record
from tests.tfrecords import encode, field, varint, write_shard


def test_crc_of_the_standard():
    # RFC 3720, B.4: CRC32C of 32 zero bytes is 0x8a9136aa; masking is TFRecord's rotation and offset.
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == (((crc >> 15 | crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def test_records_by_offset_and_in_order(tmp_path: Path):
    payloads = [b"", b"abc", bytes(1000)]
    offsets = write_shard(tmp_path / "s", payloads)
    assert list(iterate_records(tmp_path / "s")) == list(zip(offsets, payloads, strict=True))
    with (tmp_path / "s").open("rb") as file:
        assert read_record(file, offsets[1]) == b"abc"
        assert file.tell() == 0


def test_numbers_packed_and_unpacked_and_negative():
    unpacked = field(3, b"".join(varint(1 << 3 | 0) + varint(value) for value in (5, -7, 2**40)))
    floats = field(2, b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in (0.5, -2.0)))
    entries = b"".join(
        field(1, field(1, name) + field(2, feature)) for name, feature in ((b"i", unpacked), (b"f", floats))
    )
    example = parse_example(field(1, entries))
    assert list(example["i"]) == [5, -7, 2**40]
    assert list(example["f"]) == [0.5, -2.0]
    packed = parse_example(encode({"i": [5, -7, 2**40], "f": [0.5, -2.0], "b": [b"x", b""]}))
    assert list(packed["i"]) == [5, -7, 2**40]
    assert np.asarray(packed["i"]).dtype == np.int64
    assert list(packed["f"]) == [0.5, -2.0]
    assert packed["b"] == [b"x", b""]
    assert parse_example(b"") == {}


@pytest.mark.parametrize("payload", [b"\xff" * 12, b"\x0a\x50abc", b"\x0a", b"\x0b", b"\x08\x01"])
def test_bytes_that_are_no_example_are_an_error(payload: bytes):
    with pytest.raises(ValueError, match="."):
        parse_example(payload)


def test_a_file_that_ends_inside_a_record_gives_the_records_before(tmp_path: Path):
    offsets = write_shard(tmp_path / "s", [b"abc", b"defg"])
    with (tmp_path / "s").open("r+b") as file:
        file.truncate(offsets[1] + 14)
    records = iterate_records(tmp_path / "s")
    assert next(records) == (0, b"abc")
    with pytest.raises(DamagedRecord, match=rf"s, offset {offsets[1]}: the file ends inside"):
        next(records)
