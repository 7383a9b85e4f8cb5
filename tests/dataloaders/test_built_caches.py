"""Caches that are built once: when, where, and by whom."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataloaders import built_caches, files
from dataloaders.built_caches import (
    CannotCache,
    build_once,
    fallback_place,
    fingerprint_file,
    fingerprint_folder,
    writable_place,
)
from dataloaders.files import atomic_write_text, file_lock
from tests.dataloaders.test_files import names

SPAWN = multiprocessing.get_context("spawn")


def test_fingerprints_change_with_the_files(tmp_path: Path) -> None:
    for name in ("a.json", "b.json", "c.txt"):
        (tmp_path / name).write_text(name)
    first = fingerprint_folder(tmp_path, ".json")
    assert first["count"] == 2
    assert fingerprint_folder(tmp_path, ".json") == first
    os.rename(tmp_path / "b.json", tmp_path / "d.json")
    assert fingerprint_folder(tmp_path, ".json")["names"] != first["names"]
    before = fingerprint_file(tmp_path / "a.json")
    os.utime(tmp_path / "a.json", ns=(0, before["mtime_ns"] + 10**9))
    assert fingerprint_file(tmp_path / "a.json") != before
    assert fingerprint_folder(tmp_path, ".json")["newest_mtime_ns"] != first["newest_mtime_ns"]


def test_large_folders_are_told_by_names_and_a_part_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(built_caches, "STAT_ALL_FILES", 100)
    for number in range(300):
        (tmp_path / f"{number}.json").write_text("[]")
    first = fingerprint_folder(tmp_path, ".json")
    assert (first["count"], first["one_in"]) == (300, 64)
    assert 0 < first["size"] < 300
    (tmp_path / "7.json").rename(tmp_path / "new.json")
    assert fingerprint_folder(tmp_path, ".json")["names"] != first["names"]


def test_built_once_and_again_when_inputs_change(tmp_path: Path) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "content").write_text(str(len(built)))

    target = tmp_path / "deep" / "cache [1]"
    for fingerprint in ({"size": 1, "name": "a"}, {"name": "a", "size": 1}, {"size": 2}):
        assert build_once(target, fingerprint, build) == target
    assert len(built) == 2
    assert (target / "content").read_text() == "2"
    assert sorted(path.name for path in target.parent.iterdir()) == [".cache [1].lock", "cache [1]"]


def test_failed_build_leaves_the_old_content_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "cache"
    build_once(target, {"version": 1}, lambda folder: atomic_write_text(folder / "content", "1"))

    def fail(folder: Path) -> None:
        (folder / "content").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_once(target, {"version": 2}, fail)
    assert (target / "content").read_text() == "1"
    (tmp_path / ".cache.building-1").mkdir()
    build_once(target, {"version": 2}, lambda folder: atomic_write_text(folder / "content", "2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache.lock", "cache"]


def test_what_a_kill_left_of_the_folder_before_is_removed_when_the_new_one_is_used(tmp_path: Path) -> None:
    target, retired = tmp_path / "cache", tmp_path / ".cache.old"
    build_once(target, {"version": 1}, lambda folder: None)
    retired.mkdir()
    (retired / "large").touch()
    with file_lock(tmp_path / ".cache.lock"):  # its builder is about to delete it
        build_once(target, {"version": 1}, lambda folder: None)
        assert (retired / "large").exists()
    build_once(target, {"version": 1}, lambda folder: None)
    assert names(tmp_path) == [".cache.lock", "cache"]


def _write_own_id(folder: Path) -> None:
    (folder / str(os.getpid())).touch()


def _build_in_process(target: str) -> None:
    build_once(target, {"version": 1}, _write_own_id)


def test_several_processes_build_one_cache(tmp_path: Path) -> None:
    processes = [SPAWN.Process(target=_build_in_process, args=(str(tmp_path / "cache"),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len([path for path in (tmp_path / "cache").iterdir() if path.name.isdigit()]) == 1


def test_a_link_among_the_leftovers_of_a_build_is_removed_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").touch()
    (tmp_path / ".cache.building-x").symlink_to(tmp_path / "theirs")
    (tmp_path / ".cache.old").symlink_to(tmp_path / "theirs")
    build_once(tmp_path / "cache", {}, lambda folder: None)
    assert names(tmp_path) == [".cache.lock", "cache", "theirs"] and (tmp_path / "theirs/file").exists()


def refuse(folder: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be made below a folder, as on a disk that says so; root may write where rights forbid it."""

    def refusing(call: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def checked(path: Any, *arguments: Any, **names: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and folder in Path(path).absolute().parents and writes(*arguments):
                raise OSError(code, os.strerror(code), os.fspath(path))
            return call(path, *arguments, **names)

        return checked

    monkeypatch.setattr(os, "open", refusing(os.open, lambda flags, *_: bool(flags & (os.O_CREAT | os.O_RDWR))))
    monkeypatch.setattr(os, "mkdir", refusing(os.mkdir, lambda *_: True))


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_cache_that_cannot_be_beside_the_data_is_in_the_users_cache(
    tmp_path: Path, cache_home: Path, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, built = tmp_path / "data", []
    data.mkdir()
    refuse(data, code, monkeypatch)

    def build(folder: Path) -> None:
        built.append(folder)

    place = build_once(data / "store.lmdb", {"version": 1}, build, may_move=True)
    assert place == fallback_place(data / "store.lmdb") and place.parent == cache_home / "stoa-vlp"
    assert "store.lmdb" in place.name and place.is_dir() and names(data) == []
    assert f"{data}/store.lmdb cannot be written ({os.strerror(code)}); {place} is used in its place" in caplog.text
    assert build_once(data / "store.lmdb", {"version": 1}, build, may_move=True) == place and len(built) == 1
    assert build_once(data / "deep/store.lmdb", {"version": 1}, build, may_move=True) != place and len(built) == 2
    with pytest.raises(CannotCache, match=r"cannot build .*data/named: .*must be writable"):
        build_once(data / "named", {}, build)


def test_a_current_cache_beside_read_only_data_is_used(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "data/store"
    build_once(target, {"version": 1}, lambda folder: None)
    refuse(tmp_path / "data", errno.EROFS, monkeypatch)
    assert build_once(target, {"version": 1}, lambda folder: None, may_move=True) == target and not cache_home.exists()
    assert build_once(target, {"version": 2}, lambda folder: None, may_move=True) == fallback_place(target)
    assert build_once(target, {"version": 1}, lambda folder: None, may_move=True) == target


def test_when_neither_place_can_be_written_one_message_names_both(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(tmp_path, errno.EROFS, monkeypatch)
    target = tmp_path / "store"
    with pytest.raises(CannotCache, match="XDG_CACHE_HOME") as error:
        writable_place(target)
    assert f"{target} cannot be written" in str(error.value) and str(fallback_place(target)) in str(error.value)


def test_a_full_disk_is_an_error_not_a_reason_to_write_elsewhere(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "data.mdb"))

    with pytest.raises(CannotCache, match=r"cannot build .*/a: .*No space left.*free space"):
        build_once(tmp_path / "a", {}, fill, may_move=True)
    refuse(tmp_path, errno.ENOSPC, monkeypatch)
    with pytest.raises(CannotCache, match="b cannot be written .No space left"):
        writable_place(tmp_path / "b")
    assert not cache_home.exists()


def test_what_a_build_may_not_read_is_not_taken_for_a_folder_that_cannot_be_written(
    tmp_path: Path, cache_home: Path
) -> None:
    def read(folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "captions.json")

    with pytest.raises(PermissionError, match=r"captions\.json") as error:
        build_once(tmp_path / "store", {}, read, may_move=True)
    assert "writable" not in str(error.value) and not cache_home.exists()


def test_a_disk_without_locks_keeps_no_cache_that_processes_build_together(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        if os.fstat(descriptor).st_ino in inodes():
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def inodes() -> set[int]:
        return {path.stat().st_ino for path in (tmp_path / "data").rglob("*")}

    (tmp_path / "data").mkdir()
    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    assert writable_place(tmp_path / "data/store") == fallback_place(tmp_path / "data/store")
    atomic_write_text(tmp_path / "data/file", "written")
    atomic_write_text(tmp_path / "data/file", "again")
    assert (tmp_path / "data/file").read_text() == "again" and names(tmp_path / "data") == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_rights_decide(tmp_path: Path, cache_home: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o555)
    assert writable_place(tmp_path / "data/store") == fallback_place(tmp_path / "data/store")


def test_a_lock_of_another_user_is_a_reason_to_write_elsewhere(
    tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".store.lock").touch()
    opened = os.open

    def refusing(path: Any, flags: int, *mode: int) -> int:
        if Path(path).name == ".store.lock":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", refusing)
    assert writable_place(tmp_path / "store") == fallback_place(tmp_path / "store")
    assert writable_place(tmp_path / "other") == tmp_path / "other"


def test_a_relative_cache_home_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert fallback_place("data/store").parent == tmp_path / ".cache/stoa-vlp"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    assert fallback_place("data/store") == fallback_place(tmp_path / "link/store") != fallback_place("data/stored")
