"""Atomic writes, locks, fingerprints, and caches that are built once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from dataloaders import files
from dataloaders.files import (
    atomic_file,
    atomic_write_text,
    build_once,
    file_lock,
    fingerprint_file,
    fingerprint_folder,
    stable_hash,
)

SPAWN = multiprocessing.get_context("spawn")


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")
    with pytest.raises(OSError, match="full"), atomic_file(path) as handle:
        handle.write(b"ne")
        raise OSError("disk full")
    assert path.read_text() == "old"
    atomic_write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_lock_excludes_and_names_the_holder(tmp_path: Path) -> None:
    expected = pytest.raises(TimeoutError, match=f"process {os.getpid()}")
    with file_lock(tmp_path / "lock"), expected, file_lock(tmp_path / "lock", timeout=0):
        pass
    with file_lock(tmp_path / "lock", timeout=0):
        pass


def _hold_for_ever(path: str, ready: object) -> None:
    with file_lock(path):
        ready.set()  # type: ignore[attr-defined]
        signal.pause()


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    ready = SPAWN.Event()
    process = SPAWN.Process(target=_hold_for_ever, args=(str(tmp_path / "lock"), ready))
    process.start()
    assert ready.wait(30)
    process.kill()
    process.join()
    with file_lock(tmp_path / "lock", timeout=5):
        pass


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
    monkeypatch.setattr(files, "STAT_ALL_FILES", 100)
    for number in range(300):
        (tmp_path / f"{number}.json").write_text("[]")
    first = fingerprint_folder(tmp_path, ".json")
    assert (first["count"], first["one_in"]) == (300, 64)
    assert 0 < first["size"] < 300
    (tmp_path / "7.json").rename(tmp_path / "new.json")
    assert fingerprint_folder(tmp_path, ".json")["names"] != first["names"]


def test_stable_hash_is_the_same_in_every_process() -> None:
    assert stable_hash("video7010") == 15415801869218523266


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
