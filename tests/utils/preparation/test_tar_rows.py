"""Clips in tar files: which files a pattern names, and what of their keys can be used."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pytest

from tests.utils.tars import sample, write_tar
from utils.preparation.tar_members import BadTar, TarVideo
from utils.preparation.tar_rows import TarSource, expand_tars
from utils.preparation.webvid_rows import BAD_ID, EMPTY_CAPTION, Row


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["{00008..00010}.tar"], ["00008.tar", "00009.tar", "00010.tar"]),
        (["{00010..00009}.tar"], ["00010.tar", "00009.tar"]),
        (["{8..10}.tar"], ["8.tar", "9.tar", "10.tar"]),
        (["{a,b}-{0..1}.tar"], ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        (["0000*.tar"], ["00008.tar", "00009.tar"]),
        (["b/{x,y}*.tar", "a-0.tar"], ["b/x1.tar", "b/y1.tar", "a-0.tar"]),
        (["{0..1}.tar", "{z}.tar", "[q].tar"], ["{0..1}.tar", "{z}.tar", "[q].tar"]),
    ],
)  # fmt: skip
def test_patterns_are_a_shells(tmp_path: Path, patterns: list[str], expected: list[str]):
    names = ["00008.tar", "00009.tar", "00010.tar", "8.tar", "9.tar", "10.tar", "a-0.tar", "a-1.tar", "b-0.tar"]
    touch(tmp_path, *names, "b-1.tar", "b/x1.tar", "b/y1.tar", "{0..1}.tar", "{z}.tar", "[q].tar")
    assert expand_tars([f"{tmp_path}/{pattern}" for pattern in patterns]) == [tmp_path / name for name in expected]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{0..9}.tar", r"2\.tar: there is no such file; .*6\.tar: .*; and 3 more"),
        ("x*.tar", r"x\*\.tar: there is no such file"),
        ("{0..9999999}.tar", "more than 1000000 files"),
        ("{1..9}{1..9}{1..9}{1..9}{1..9}{1..9}{1..9}.tar", "more than 1000000 files"),
        ("{0,0}.tar", "names files twice"),
        ("{0,link}.tar", "names files twice"),
        ("pipe.tar", "a pipe or a device"),
        ("folder", "a folder, not a file"),
    ],
)
def test_what_a_pattern_does_not_name_is_an_error(tmp_path: Path, pattern: str, message: str):
    touch(tmp_path, "0.tar", "1.tar", "folder/a.tar")
    (tmp_path / "link.tar").symlink_to(tmp_path / "0.tar")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(BadTar, match=message):
        expand_tars([f"{tmp_path}/{pattern}"])


def rows_of(*tars: Path, clips_per_shard: int = 100, wanted: range = range(100)) -> list[Row]:
    return list(TarSource([str(tar) for tar in tars]).rows(clips_per_shard, wanted))


def test_captions_come_from_text_or_metadata(tmp_path: Path):
    members = [
        *sample("0", b"v0", "a dog"),
        *sample("1", b"v1", "a cat", has_text=False),
        ("2.MP4", b"v2"), ("./2.txt", "\ufeff Ü \n".encode()),
        ("3.webm", b"v3"), ("3.txt", b" None\n"), ("3.json", b'{"caption": null, "text": "a cow", "fps": NaN}'),
        ("README.md", b"what this is"), ("._0.mp4", b"of a Mac"), ("0.npy", b"features"),
    ]  # fmt: skip
    tar = write_tar(tmp_path / "a.tar", members)
    rows = rows_of(tar)
    assert [(row.video_id, row.caption, row.fault) for row in rows] == [
        ("0", "a dog", None), ("1", "a cat", None), ("2", "Ü", None), ("3", "a cow", None)
    ]  # fmt: skip
    videos = [row.video for row in rows]
    for number, video in enumerate(videos):
        assert isinstance(video, TarVideo)
        assert tar.read_bytes()[video.offset : video.offset + video.size] == f"v{number}".encode()


def test_what_cannot_be_used_says_why(tmp_path: Path):
    members = [
        *sample("no-caption", b"v", None),
        ("nothing.mp4", b"v"),
        ("no-video.txt", b"a dog"),
        ("a\x1b.mp4", b"v"), ("a\x1b.txt", b"a dog"),
        ("latin.mp4", b"v"), ("latin.txt", b"caf\xe9"),
        ("broken.mp4", b"v"), ("broken.json", b'{"caption": "a'),
        ("list.mp4", b"v"), ("list.json", b'["a dog"]'),
        ("many.mp4", b"v"), ("many.json", b'{"caption": ["a dog"]}'),
        ("nul.mp4", b"v"), ("nul.txt", b"a\0b"),
        ("huge.mp4", b"v"), ("huge.txt", b"x" * (1 << 20) + b"x"),
        ("deep.mp4", b"v"), ("deep.json", b"[" * 200_000),
    ]  # fmt: skip
    tar = write_tar(tmp_path / "a.tar", members)
    with tarfile.open(tar, "a") as archive:
        for name in ("linked.mp4", "said.txt"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("said.mp4"))
    found = {row.video_id: (row.fault_kind, row.fault) for row in rows_of(tar)}
    assert found["no-caption"] == found["nothing"] == (EMPTY_CAPTION, "empty caption")
    assert found["a\x1b"][0] == BAD_ID
    reasons = {
        "no-video": "no video", "latin": "is not UTF-8", "broken": "is not JSON", "list": "no dictionary",
        "many": "its caption is no text", "nul": "a NUL", "huge": "1048577 bytes, more than", "linked": "is a link",
        "said": "its caption is a link", "deep": "more than 100 deep",
    }  # fmt: skip
    for key, reason in reasons.items():
        assert f"{tar}, key '{key}'" in str(found[key][1]) and reason in str(found[key][1]), found[key]


def test_a_key_is_unique(tmp_path: Path):
    first = write_tar(tmp_path / "0.tar", sample("a", b"v", "a dog") + sample("b", b"v", "a cat"))
    second = write_tar(tmp_path / "1.tar", sample("c", b"v", "a dog") + sample("b", b"v", "a cow"))
    with pytest.raises(BadTar, match=rf"key b is in {first} and {second}: keys are the ids of clips"):
        TarSource([str(first), str(second)])
    for members in ([("a.mp4", b"1"), ("a.webm", b"2")], [("a.mp4", b"1"), ("x/a.mp4", b"2")], [("a.txt", b"1")] * 2):
        with pytest.raises(BadTar, match=r"are both of the key a"):
            TarSource([str(write_tar(tmp_path / "2.tar", members))])


def test_all_bad_files_are_named_at_once(tmp_path: Path):
    good = write_tar(tmp_path / "good.tar", sample("a", b"v", "a dog"))
    (tmp_path / "short.tar").write_bytes(good.read_bytes()[:1024])
    (tmp_path / "packed.tar").write_bytes(gzip.compress(good.read_bytes()))
    with pytest.raises(BadTar, match=r"packed\.tar: no plain tar: compressed with gzip.*; .*short\.tar"):
        TarSource([f"{tmp_path}/*.tar"])


def test_rows_of_some_shards_open_their_files_alone(tmp_path: Path):
    tars = [
        write_tar(tmp_path / f"{n}.tar", [member for k in range(3) for member in sample(f"{n}-{k}", b"v", "a dog")])
        for n in range(4)
    ]
    tars.insert(2, write_tar(tmp_path / "empty.tar", []))
    source = TarSource([str(tar) for tar in tars])
    everything = list(source.rows(4, range(3)))
    assert source.num_rows == 12 and [row.shard for row in everything] == [0] * 4 + [1] * 4 + [2] * 4
    tars[0].unlink()
    assert list(source.rows(4, {1, 2})) == everything[4:]
    with pytest.raises(BadTar, match=r"0\.tar: cannot be read: No such file.*run again"):
        list(source.rows(4, {0}))


def test_a_file_that_changes_is_noticed(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", sample("a", b"v", "a dog"))
    source = TarSource([str(tar)])
    write_tar(tar, sample("a", b"v", "a dog") + sample("b", b"v", "a dog"))
    with pytest.raises(BadTar, match="was changed while it was read"):
        list(source.rows(4, {0}))
    assert TarSource([str(tar)]).sha256 != source.sha256


def test_the_digest_goes_by_what_is_in_the_files_and_not_by_their_place(tmp_path: Path):
    members = sample("a", b"v", "a dog")
    one, other = (write_tar(tmp_path / place / "a.tar", members) for place in ("here", "there"))
    assert TarSource([str(one)]).sha256 == TarSource([str(other)]).sha256
    later = write_tar(tmp_path / "later" / "a.tar", members, mtime=2)
    assert TarSource([str(one)]).sha256 != TarSource([str(later)]).sha256
