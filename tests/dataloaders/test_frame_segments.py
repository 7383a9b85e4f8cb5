"""Segments of the frame cache: what is written is found by its line, and no changed line passes for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders.frame_segments import (
    INDEX,
    SEGMENT,
    Damaged,
    Entry,
    SegmentWriter,
    decode_jpegs,
    encode_jpeg,
    header_problem,
    index_line,
    read_entry,
    read_line,
    read_payload,
)

FRAMES = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
RECORD: dict[str, Any] = {
    "key": "0f.raw",
    "shape": [2, 8, 8, 3],
    "which": [0, 1, 1],
    "size": [320, 240],
    "indices": [0, 10, 20],
    "notes": ["größer als der Rand"],
}


def written(folder: Path, *payloads: bytes) -> tuple[Path, list[bytes]]:
    """The segment of clips of such bytes, and the lines of its index."""
    writer = SegmentWriter(folder)
    for payload in payloads:
        writer.append(payload, RECORD)
    return folder / (writer.stem + SEGMENT), (folder / (writer.stem + INDEX)).read_bytes().splitlines()


def test_a_clip_lies_where_its_line_says(tmp_path: Path):
    segment, (header, *lines) = written(tmp_path, FRAMES.tobytes(), FRAMES[::-1].tobytes())
    assert header_problem(header) is None
    entries = [read_entry(read_line(line), segment.name, "raw") for line in lines]
    assert [(entry.offset, entry.length) for entry in entries] == [(0, 384), (384, 384)]
    assert entries[0][4:] == ((2, 8, 8, 3), (0, 1, 1), (320, 240), (0, 10, 20), ("größer als der Rand",), ())
    with segment.open("rb") as file:
        found = [read_payload(file, entry).reshape(entry.shape) for entry in entries]
    np.testing.assert_array_equal(found, [FRAMES, FRAMES[::-1]])


def test_a_clip_that_changed_on_disk_is_damaged(tmp_path: Path):
    segment, (_, line) = written(tmp_path, FRAMES.tobytes())
    entry = read_entry(read_line(line), segment.name, "raw")
    content = segment.read_bytes()
    for damaged, reason in ((content[:-1], "ends before 384 bytes"), (b"\xff" + content[1:], "checksum differs")):
        segment.write_bytes(damaged)
        with segment.open("rb") as file, pytest.raises(Damaged, match=f"offset 0: .*{reason}"):
            read_payload(file, entry)


def test_no_changed_byte_of_a_line_goes_unnoticed():
    line = index_line({**RECORD, "offset": 0, "length": 384, "crc": 7}).rstrip(b"\n")
    assert read_line(line)["indices"] == [0, 10, 20]
    for place in range(len(line)):
        with pytest.raises(ValueError, match="checksum differs"):
            read_line(line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"version": 1}', None),
        (b'{"version": 2}', "is of version 2, not 1"),
        (b"{}", "has a damaged first line"),
        (b"[1]", "has a damaged first line"),
        (b"[" * 10**5, "has a damaged first line"),
    ],
    ids=str,
)
def test_the_first_line_says_the_version(line: bytes, problem: str | None):
    assert header_problem(line) == problem


def test_jpegs_come_back_one_by_one_and_none_of_another_shape():
    smooth = [np.full((8, 8, 3), colour, np.uint8) for colour in ((200, 40, 40), (40, 40, 200))]
    parts = [encode_jpeg(frame) for frame in smooth]
    payload = np.frombuffer(b"".join(parts), np.uint8)
    lengths = tuple(map(len, parts))
    entry = Entry("s", 0, len(payload), 0, (2, 8, 8, 3), (0, 1), (8, 8), (0, 1), (), lengths)
    for decoded, frame in zip(decode_jpegs(payload, entry), smooth, strict=True):
        np.testing.assert_allclose(decoded, frame, atol=4)
    with pytest.raises(Damaged, match="offset 0: no JPEG of shape"):
        decode_jpegs(payload, entry._replace(shape=(2, 16, 16, 3)))
