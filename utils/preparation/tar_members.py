"""Members of a tar file by their headers alone: only videos are copied out, and names are text and never places.

Archives are strangers' files: every size is held against that of the archive before anything is read.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dataloaders.files import file_stamp
from modules.foreign_text import OTHER_FILES

BLOCK = tarfile.BLOCKSIZE
MAX_NAME = 1 << 16  # bytes of a long name, or of a header of more fields
MAX_BEHIND = 1 << 20  # bytes behind the end that are looked at
MORE_FIELDS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
OF_NEXT = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE, *MORE_FIELDS)
COPY_AGAIN = "copy the archive again, or leave it out"


class BadTar(Exception):
    """A tar file cannot be read, or not as one of clips; the message names it."""


class Member(NamedTuple):
    """A member of a tar file, its content at `offset`; links, devices, folders and sparse files are not plain."""

    name: str
    is_plain: bool
    offset: int
    size: int


def iterate_members(file: BinaryIO, saw: Callable[[bytes], object] = len) -> Iterator[Member]:
    """Yield the members of an uncompressed tar file (POSIX, GNU or older) in their order.

    Args:
        file: open for buffered reading.
        saw: given each header, for a digest of the whole table of members.

    Raises:
        BadTar: it is none, is damaged, ends too soon, or goes on behind its end.
    """
    size, offset = os.fstat(file.fileno()).st_size, 0
    name, fields = "", dict[str, str]()
    while True:
        place = f"{file.name}, byte {offset}"
        block = _read(file, offset, BLOCK)
        if not any(block):
            if name or fields:
                raise BadTar(f"{place}: ends behind the name of a member; {COPY_AGAIN}")
            _check_end(file, block, offset, size)
            return
        saw(block)
        info = _header(block, place)
        start = offset + BLOCK
        has_content = info.isreg() or info.type in OF_NEXT or info.type not in tarfile.SUPPORTED_TYPES
        stated = info.size if info.type in OF_NEXT else int(fields.get("size", info.size))
        stored = stated if has_content else 0
        if not 0 <= stored <= size - start:
            raise BadTar(f"{place}: {stored} bytes of content are stated, {size - start} are there; {COPY_AGAIN}")
        offset = start + -(-stored // BLOCK) * BLOCK
        if info.type in OF_NEXT:
            if stored > MAX_NAME:
                raise BadTar(f"{place}: a header of {stored} bytes; {COPY_AGAIN}")
            content = _read(file, start, stored)
            saw(content)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = _text(content.split(b"\0")[0])
            elif info.type == tarfile.XGLTYPE:
                if {"path", "size"} & set(_fields(content, place)):
                    raise BadTar(f"{place}: one name or size for all members; {COPY_AGAIN}")
            elif info.type in MORE_FIELDS:
                fields = _fields(content, place)
        else:
            if info.type == tarfile.GNUTYPE_SPARSE:
                offset = _behind_sparse_headers(file, block, start) + offset - start
            is_plain = info.type in tarfile.REGULAR_TYPES and info.type != tarfile.GNUTYPE_SPARSE
            is_plain = is_plain and not any(key.startswith("GNU.sparse") for key in fields)
            full_name = fields.get("GNU.sparse.name") or fields.get("path") or name or info.name
            yield Member(full_name, is_plain, start, stored)
            name, fields = "", {}


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _header(block: bytes, place: str) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        kind = next((kind for start, kind in OTHER_FILES.items() if block.startswith(start)), None)
        is_first = place.endswith(", byte 0")
        if is_first and kind:
            raise BadTar(f"{place.removesuffix(', byte 0')}: no plain tar: {kind}") from error
        what = "no tar archive" if is_first else f"no header of a member; {COPY_AGAIN}"
        raise BadTar(f"{place}: {what} ({error})") from error


def _check_end(file: BinaryIO, block: bytes, offset: int, size: int) -> None:
    """A block of zeros ends an archive; what follows it would be lost without a word."""
    if len(block) < BLOCK:
        raise BadTar(f"{file.name}: ends after {size} bytes without the mark of its end; {COPY_AGAIN}")
    if any(_read(file, offset, min(MAX_BEHIND, size - offset))):
        raise BadTar(f"{file.name}: goes on behind its end at byte {offset}; give joined archives as single files")


def _fields(content: bytes, place: str) -> dict[str, str]:
    r"""Fields of a header of POSIX, each `LENGTH NAME=VALUE\n`."""
    fields, position = {}, 0
    while position < len(content):
        length, space, _ = content[position : position + 10].partition(b" ")
        end = position + int(length) if space and length.isdigit() else 0
        key, equals, value = content[position + len(length) + 1 : end].partition(b"=")
        if not equals or end > len(content) or value[-1:] != b"\n":
            raise BadTar(f"{place}: a damaged header at its byte {position}; {COPY_AGAIN}")
        fields[_text(key)] = _text(value[:-1])
        position = end
    stated = fields.get("size", "0")
    if not (stated.isascii() and stated.isdigit() and len(stated) < 20):
        raise BadTar(f"{place}: a size of {stated[:40]!r}; {COPY_AGAIN}")
    return fields


def _behind_sparse_headers(file: BinaryIO, block: bytes, offset: int) -> int:
    """Where the content of a sparse file of GNU's older kind starts."""
    is_more = block[482:483]
    while is_more not in (b"", b"\0"):
        is_more = _read(file, offset, BLOCK)[504:505]
        offset += BLOCK
    return offset


class TarVideo(NamedTuple):
    """A video inside a tar file, which has the stamp as long as it is the one that was looked through."""

    tar: str
    stamp: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}, {self.name}"


class CannotCopy(Exception):
    """A video cannot be had from its tar file for a reason that the next one would meet too."""


@contextmanager
def unpacked(video: TarVideo) -> Iterator[Path]:
    """A video as a file without a name, which is gone with the block, and with the process if that is killed.

    Raises:
        CannotCopy: the tar file has changed or cannot be read, or there is no room.
    """
    with ExitStack() as stack:
        try:
            tar = stack.enter_context(open(video.tar, "rb"))
            if file_stamp(video.tar) != video.stamp:
                raise CannotCopy(f"{video.tar}: was changed while it was read; run again when it is written")
            copy = stack.enter_context(tempfile.TemporaryFile(prefix="video-"))
            _copy(tar, copy, video)
        except OSError as error:
            advice = "once it can be read, and there is room for one video per worker in TMPDIR, run again to go on"
            raise CannotCopy(f"{video}: cannot be copied ({video.size} bytes): {error.strerror}; {advice}") from error
        # Decoders open files by their names.
        yield Path(f"/proc/self/fd/{copy.fileno()}")


def _copy(tar: BinaryIO, copy: BinaryIO, video: TarVideo) -> None:
    done = 0
    while done < video.size:
        count = os.sendfile(copy.fileno(), tar.fileno(), video.offset + done, video.size - done)
        if not count:
            raise CannotCopy(f"{video.tar}: was cut short while it was read; {COPY_AGAIN}")
        done += count
