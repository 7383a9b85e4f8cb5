"""Readers of what pre-training's clips and captions come from: tables of them, and tar files."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.campaigns.fuzzing.forms import csv_mutators
from tests.campaigns.fuzzing.mutators import KNOWN_TEXT, damaged
from tests.campaigns.fuzzing.reader import Expected, Mutant, Mutator, Reader, Taken
from tests.utils.tars import sample, write_tar
from utils.preparation.caption_rows import open_table
from utils.preparation.tar_members import BadTar
from utils.preparation.tar_rows import TarSource
from utils.preparation.webvid_rows import BadCsv, Row

SHARDS = range(100)
TYPES = (b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"K", b"L", b"S", b"V", b"X", b"g", b"x")
SIZES = (b"77777777777\0", b"00000001000\0", b"0000000000x\0", b"-0000000001\0", b"\x80" + b"\xff" * 11, b"\xff" * 12)


def _taken(rows: list[Row]) -> Taken:
    usable = [(row.video_id, row.caption) for row in rows if not row.fault]
    return Taken(len(usable), len(rows) - len(usable), usable)


def _make_table(folder: Path) -> None:
    rows = [f"x/v{n // 2}.mp4,clip {n} of a dog,train" for n in range(6)]
    (folder / "captions.csv").write_text("\n".join(["video,caption,split", *rows]) + "\n")


def _read_table(folder: Path) -> Taken:
    return _taken(list(open_table(folder / "captions.csv").rows(4, SHARDS)))


def _make_tar(kind: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        members = [member for n in range(4) for member in sample(f"v{n}", b"video" * 200, f"clip {n}", n % 2 == 0)]
        long = [("d" * 90 + "/" + "n" * 60 + ending, b"a dog") for ending in (".mp4", ".txt")]
        write_tar(folder / "0.tar", [*members, *long], kind)

    return make


def _read_tar(folder: Path) -> Taken:
    size = (folder / "0.tar").stat().st_size
    rows = list(TarSource([str(folder / "0.tar")]).rows(4, SHARDS))
    for row in rows:
        video = row.video
        assert video is None or isinstance(video, tuple) and 0 <= video.offset <= size - video.size <= size
    return _taken(rows)


def _headers(content: bytes) -> list[int]:
    """Where the headers of an archive are, those of long names and more fields too."""
    places, offset = [], 0
    while any(block := content[offset : offset + tarfile.BLOCKSIZE]):
        places.append(offset)
        size = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size
        offset += tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))
    return places


def _summed(content: bytes, place: int, change: Callable[[bytearray], None]) -> bytes:
    """An archive with a changed header, and the checksum that it then has."""
    block = bytearray(content[place : place + tarfile.BLOCKSIZE])
    change(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return content[:place] + bytes(block) + content[place + tarfile.BLOCKSIZE :]


def _header(start: int, values: tuple[bytes, ...], what: str) -> Mutator:
    def mutate(content: bytes, draw: Random) -> Mutant:
        value = draw.choice(values)

        def change(block: bytearray) -> None:
            block[start : start + len(value)] = value

        return Mutant(_summed(content, draw.choice(_headers(content)), change), what)

    return mutate


def _any_byte(content: bytes, draw: Random) -> Mutant:
    places = _headers(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, value = draw.randrange(500), draw.randrange(256)
        content = _summed(content, draw.choice(places), lambda block, at=at, value=value: block.__setitem__(at, value))
    return Mutant(content, "bytes of headers with right checksums")


def _cut(content: bytes, draw: Random) -> Mutant:
    return Mutant(content[: draw.randrange(len(content.rstrip(b"\0")))], "cut short", Expected.REFUSED)


def _joined(content: bytes, draw: Random) -> Mutant:
    return Mutant(content + content, "two archives in one file", Expected.REFUSED)


def _flipped_header(content: bytes, draw: Random) -> Mutant:
    place = draw.choice(_headers(content)) + draw.choice((*range(148), *range(156, 500)))
    changed = bytes([content[place] ^ 1 << draw.randrange(8)])
    return Mutant(content[:place] + changed + content[place + 1 :], "a bit of a header flipped", Expected.REFUSED)


def _caption(content: bytes, draw: Random) -> Mutant:
    """No caption in a clip's json, where it has no text."""
    old = json.dumps("clip 1").encode()
    new = draw.choice((b"null", b'"None"', b'"  "', b"[]", b"3", b'"\\0"')).ljust(len(old))
    return Mutant(content.replace(b'"caption": ' + old, b'"caption": ' + new), "no caption", Expected.COUNTED)


TAR = (
    damaged,
    _any_byte,
    _any_byte,
    _header(156, TYPES, "another type"),
    _header(124, SIZES, "another size"),
    _cut,
    _joined,
    _flipped_header,
    _caption,
)
TABLE = (*KNOWN_TEXT, *csv_mutators("caption", "video", checked=("text",)))
READERS = (
    Reader("clips-csv", _make_table, {"captions.csv": TABLE}, _read_table, (BadCsv, ValueError)),
    *(
        Reader(f"clips-tar-{name}", _make_tar(kind), {"0.tar": TAR}, _read_tar, (BadTar,))
        for name, kind in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT))
    ),
)
