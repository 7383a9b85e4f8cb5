"""Detection of video files that end before their container says, as an interrupted download or copy leaves them.

The number of frames that a container states is no proof of that: of files without a table of frames it is computed from
the duration, which may be that of the sound, and a clip cut without encoding it again states frames that are not shown.
The sizes in the headers are exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

TAIL = 4096  # bytes
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
MP4_FIRST = (b"ftyp", b"mdat", b"moov", b"free", b"skip", b"wide", b"styp")
MAX_BOXES = 100_000


def cut_short(path: str | Path) -> str | None:
    """Say why a file is incomplete: MP4 and MOV, AVI, Matroska and WebM by the sizes in their headers, any by its end.

    Args:
        path: the file.

    Returns:
        The reason, or None if nothing shows that a part is missing (also for other containers).

    Raises:
        OSError: it cannot be read.
    """
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[4:8] in MP4_FIRST:
            reason = _mp4(file, size)
        elif head[:4] == b"RIFF":
            reason = _riff(file, size)
        elif head[:4] == EBML:
            reason = _matroska(file, size)
        else:
            reason = None
        return reason or _zero_end(file, size)


def _mp4(file: BinaryIO, size: int) -> str | None:
    position, has_table = 0, False
    for _ in range(MAX_BOXES):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            break
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1 and len(header) == 16:
            length = int.from_bytes(header[8:], "big")
        has_table |= name in (b"moov", b"moof")
        if length < 8:  # 0: up to the end of the file; other values are no box
            break
        position += length
        if position > size:
            return _lacks(position, size)
    return None if has_table else "the file has no table of frames (moov): it was not written to its end"


def _riff(file: BinaryIO, size: int) -> str | None:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        header = file.read(8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):  # such sizes were never filled in
            break
        position += 8 + length + length % 2
        # Some writers count the header too.
        if position - 8 > size:
            return _lacks(position, size)
    return None


def _matroska(file: BinaryIO, size: int) -> str | None:
    file.seek(4)
    length = _ebml_number(file)
    if length is None:
        return None
    file.seek(length, 1)
    if file.read(4) != SEGMENT:
        return None
    length = _ebml_number(file)
    end = file.tell() + (length or 0)
    return _lacks(end, size) if end > size else None


def _ebml_number(file: BinaryIO) -> int | None:
    """Read a size of 1 to 8 bytes, as many as its first set bit says; None for "unknown" (all ones) or no size."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value


def _zero_end(file: BinaryIO, size: int) -> str | None:
    """Say so if a file ends in zeros: some download programs reserve the whole file first and fill it later."""
    file.seek(max(0, size - TAIL))
    tail = file.read()
    return f"the last {len(tail)} bytes of the file are zeros" if tail and not any(tail) else None


def _lacks(end: int, size: int) -> str:
    return f"the file has {size} bytes, its header promises {end}"
