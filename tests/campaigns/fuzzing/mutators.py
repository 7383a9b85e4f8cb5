"""Mutations of files of any form, and of text."""

from __future__ import annotations

from random import Random

from tests.campaigns.fuzzing.reader import Expected, Mutant, Mutator

MAGIC = (
    b"", b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80",
    b"\x80\x80\x80\x80\x01", b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x93NUMPY", b"RIFF", b"\xff\xd8\xff",
    b"\xef\xbb\xbf", b"\xff\xfe",
)  # fmt: skip
TEXTS = (
    "\ufeff", '"', '""', "'", ",", ";", "\t", "\n", "\r", "\r\n", "\0", "\x1b[2J", "\x07", "\x7f", "\x85", "\u2028",
    "\u202e", "é", "中", "😀", "\\ud800", "../", "/", ".", "..", "None", "nan", "NaN", "[", "{", "[..]", "1e999", "-1",
    str(2**64 + 3),
)  # fmt: skip
LONG = 140_000  # characters: more than a csv field may have


def damaged(content: bytes, draw: Random) -> Mutant:
    """One to four of the changes below, anywhere."""
    data, done = content, []
    for _ in range(draw.choice((1, 1, 2, 4))):
        change = draw.choice(CHANGES)
        data = change(data, draw)
        done.append(change.__name__.strip("_"))
    return Mutant(data, " ".join(done))


def _flip(data: bytes, draw: Random) -> bytes:
    place = draw.randrange(len(data) or 1)
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :] if data else b"\0"


def _cut(data: bytes, draw: Random) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _piece(data: bytes, draw: Random) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 4, 8, 16, 64, 1024)))


def _remove(data: bytes, draw: Random) -> bytes:
    start, end = _piece(data, draw)
    return data[:start] + data[end:]


def _insert(data: bytes, draw: Random) -> bytes:
    start, _ = _piece(data, draw)
    return data[:start] + draw.randbytes(draw.choice((1, 2, 4, 8, 64))) + data[start:]


def _repeat(data: bytes, draw: Random) -> bytes:
    start, end = _piece(data, draw)
    return data[:start] + data[start:end] * draw.choice((2, 3, 50)) + data[end:]


def _splice(data: bytes, draw: Random) -> bytes:
    return data[: _piece(data, draw)[0]] + data[_piece(data, draw)[0] :]


def _zeros(data: bytes, draw: Random) -> bytes:
    start, end = _piece(data, draw)
    return data[:start] + bytes(end - start) + data[end:]


def _magic(data: bytes, draw: Random) -> bytes:
    value = draw.choice(MAGIC)
    start = draw.choice((0, draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    return data[:start] + value + data[start + len(value) :]


CHANGES = (_flip, _flip, _cut, _remove, _insert, _repeat, _splice, _zeros, _magic)


def strange_text(content: bytes, draw: Random) -> Mutant:
    """Characters that readers of text stumble over, put in somewhere, or the whole in another encoding."""
    text = content.decode("utf-8")
    kind = draw.randrange(6)
    if kind == 0:
        encoding = draw.choice(("utf-16", "utf-16-be", "utf-32", "latin-1", "utf-8-sig", "utf-7"))
        return Mutant(text.encode(encoding, errors="replace"), encoding)
    place = draw.randrange(len(text) + 1)
    if kind == 1:
        return Mutant((text[:place] + draw.choice("a x\t0[") * LONG + text[place:]).encode(), "a long field")
    if kind == 2:
        raw = draw.choice((b"\xe9", b"\xed\xa0\x80", b"\xff", b"\xc0\x80", b"\xf4\x90\x80\x80"))
        return Mutant(text[:place].encode() + raw + text[place:].encode(), "no UTF-8")
    for _ in range(draw.choice((1, 1, 3))):
        place = draw.randrange(len(text) + 1)
        text = text[:place] + draw.choice(TEXTS) + text[place + draw.choice((0, 0, 1)) :]
    return Mutant(text.encode(), "strange characters")


def _byte_order_mark(content: bytes, draw: Random) -> Mutant:
    return Mutant(b"\xef\xbb\xbf" + content, "a byte order mark", Expected.SAME)


def _windows_lines(content: bytes, draw: Random) -> Mutant:
    return Mutant(content.replace(b"\n", b"\r\n"), "lines end as on Windows", Expected.SAME)


def _utf16(content: bytes, draw: Random) -> Mutant:
    return Mutant(content.decode().encode("utf-16"), "UTF-16", Expected.HARMLESS)


def _latin1(content: bytes, draw: Random) -> Mutant:
    letters = [place for place, letter in enumerate(content) if chr(letter).isalpha()]
    place = draw.choice(letters)
    return Mutant(content[:place] + b"\xe9" + content[place + 1 :], "Latin-1", Expected.REFUSED)


def _nul(content: bytes, draw: Random) -> Mutant:
    letters = [place for place, letter in enumerate(content) if chr(letter).isalpha()]
    place = draw.choice(letters)
    return Mutant(content[:place] + b"\0" + content[place + 1 :], "NUL", Expected.REFUSED)


# Of each text file: with a mark and Windows' line ends it means the same, in others it does not become something else.
KNOWN_TEXT: tuple[Mutator, ...] = (_byte_order_mark, _windows_lines, _utf16, _latin1, _nul)


def cut_short(share: float = 1.0) -> Mutator:
    """A file of which the end is missing, from somewhere in its first `share`, which must be seen."""

    def cut(content: bytes, draw: Random) -> Mutant:
        end = len(content.rstrip())
        return Mutant(content[: draw.randrange(max(1, int(share * end)))], "cut short", Expected.REFUSED)

    return cut


def flipped(expected: Expected) -> Mutator:
    """One bit of a file that has checksums."""
    return lambda content, draw: Mutant(_flip(content, draw), "a bit flipped", expected)
