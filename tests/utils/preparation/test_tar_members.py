"""Tar files of strangers: what is read of their headers, and what is refused."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pytest

from dataloaders.files import file_stamp
from tests.utils.tars import write_tar
from utils.preparation.tar_members import BadTar, CannotCopy, Member, TarVideo, iterate_members, unpacked

KINDS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def members(path: Path) -> list[Member]:
    with path.open("rb") as file:
        return list(iterate_members(file))


def content(path: Path, member: Member) -> bytes:
    return path.read_bytes()[member.offset : member.offset + member.size]


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_those_of_tarfile(tmp_path: Path, kind: str):
    long = "d" * 90 + "/" + "n" * 90 + ".mp4"  # a prefix, a GNU long name, a header of fields
    files = [("./a.mp4", b"x" * 1000), (long, b"y" * 512), ("ü.txt", b""), ("b.json", b"{}")]
    path = write_tar(tmp_path / "a.tar", files, KINDS[kind])
    found = members(path)
    assert [(member.name, content(path, member)) for member in found] == files
    with tarfile.open(path) as tar:
        assert [(info.name, info.offset_data) for info in tar] == [(member.name, member.offset) for member in found]
    assert all(member.is_plain for member in found)


def test_links_devices_and_sparse_files_are_not_plain(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in {
            "l": tarfile.SYMTYPE,
            "h": tarfile.LNKTYPE,
            "c": tarfile.CHRTYPE,
            "f": tarfile.FIFOTYPE,
        }.items():
            info = tarfile.TarInfo(f"{name}.mp4")
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0
            tar.addfile(info)
        info = tarfile.TarInfo("real.mp4")
        tar.addfile(info)
        info = tarfile.TarInfo("sparse.mp4")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "other.mp4"}
        tar.addfile(info)
    found = {member.name: member.is_plain for member in members(tmp_path / "a.tar")}
    plain = {name for name, is_plain in found.items() if is_plain}
    assert plain == {"real.mp4"} and {"l.mp4", "h.mp4", "c.mp4", "f.mp4", "other.mp4"} < set(found)


def header(name: str = "a.mp4", size: int = 0, kind: bytes = tarfile.REGTYPE, more: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT) + more


def sparse_header() -> bytes:
    """GNU's older kind, whose map goes on in one more block."""
    block = bytearray(header("s.mp4", 512, tarfile.GNUTYPE_SPARSE))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + bytes(512) + b"z" * 512


END = bytes(1024)


def test_what_follows_a_sparse_file_is_found(tmp_path: Path):
    path = tmp_path / "a.tar"
    path.write_bytes(sparse_header() + header("b.mp4", 3, more=b"abc".ljust(512, b"\0")) + END)
    first, second = members(path)
    assert not first.is_plain and second.name == "b.mp4" and content(path, second) == b"abc"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "without the mark of its end"),
        (header(size=512, more=b"x" * 512), "ends after 1024 bytes without the mark"),
        (header(size=512, more=b"x" * 100), "512 bytes of content are stated, 100 are there"),
        (header(size=10**15) + END, "1000000000000000 bytes of content are stated"),
        (header(size=-5) + END, "-5 bytes of content"),
        (header() + b"x" * 512 + END, "no header of a member"),
        (header() + END + header("b.mp4") + END, "goes on behind its end"),
        (header() + bytes(512) + header("b.mp4") + END, "goes on behind its end"),
        (header("L", 1 << 17, tarfile.GNUTYPE_LONGNAME, b"n" * (1 << 17)) + END, "a header of 131072 bytes"),
        (header("x", 9, tarfile.XHDTYPE, b"99 path=a".ljust(512, b"\0")) + END, "a damaged header"),
        (header("x", 9, tarfile.XHDTYPE, b"xx path=a".ljust(512, b"\0")) + END, "a damaged header"),
        (header("x", 9, tarfile.XHDTYPE, b"0 path=a\n".ljust(512, b"\0")) + END, "a damaged header"),
        (header("x", 11, tarfile.XHDTYPE, b"11 size=-5\n".ljust(512, b"\0")) + END, "a size of '-5'"),
        (header("x", 10, tarfile.XHDTYPE, b"10 path=a\n".ljust(512, b"\0")) + END, "ends behind the name of a member"),
        (header("g", 10, tarfile.XGLTYPE, b"10 path=a\n".ljust(512, b"\0")) + END, "one name or size for all"),
        (b"no tar at all" * 100, "no tar archive"),
        (gzip.compress(header() + END), "no plain tar: compressed with gzip; unpack it first"),
        (b"PK\3\4" + bytes(1000), "no plain tar: a zip archive"),
    ],
    ids=[
        *("empty", "no end", "cut short", "huge", "negative", "damaged header", "joined", "joined by a block"),
        *("long name", "field too long", "field without length", "field of no length"),
        *("negative size", "name alone", "global name"),
        *("text", "gzip", "zip"),
    ],
)  # fmt: skip
def test_what_is_no_sound_tar_is_refused(tmp_path: Path, data: bytes, message: str):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(BadTar, match=message) as error:
        members(tmp_path / "a.tar")
    assert "a.tar" in str(error.value)


def test_a_file_of_holes_takes_no_memory(tmp_path: Path):
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(header("L", 1 << 40, tarfile.GNUTYPE_LONGNAME))
        file.truncate(1 << 41)
    with pytest.raises(BadTar, match="a header of 1099511627776 bytes"):
        members(tmp_path / "a.tar")


def video_in(path: Path) -> TarVideo:
    [member] = members(path)
    return TarVideo(str(path), file_stamp(path), member.name, member.offset, member.size)


def test_a_video_is_a_file_for_the_block_and_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "room"))
    (tmp_path / "room").mkdir()
    data = os.urandom(3_000_001)
    video = video_in(write_tar(tmp_path / "a.tar", [("../../a.mp4", data)]))
    with unpacked(video) as path:
        assert path.read_bytes() == data and path.stat().st_size == len(data)
        assert not list((tmp_path / "room").iterdir()), "a killed process would leave it"
    assert not path.exists() and sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tar", "room"]


def test_what_would_fail_of_every_video_is_no_fault_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_tar(tmp_path / "a.tar", [("a.mp4", b"x" * 5000)])
    video = video_in(path)
    with pytest.raises(CannotCopy, match="was changed"), unpacked(video._replace(stamp="1:1")):
        pass
    with pytest.raises(CannotCopy, match="cut short"), unpacked(video._replace(size=1 << 20)):
        pass
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(CannotCopy, match=r"a\.tar, a\.mp4: cannot be copied \(5000 bytes\): No such file.* in TMPDIR"):
        unpacked(video).__enter__()
    path.unlink()
    with pytest.raises(CannotCopy, match="once it can be read"):
        unpacked(video).__enter__()
