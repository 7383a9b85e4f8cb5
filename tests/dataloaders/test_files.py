"""Atomic writes, locks and stamps."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dataloaders import files
from dataloaders.built_caches import (
    build_once,
)
from dataloaders.files import atomic_file, atomic_folder, atomic_path, atomic_write_text, file_lock, stable_hash

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


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "new" / "out"
    with pytest.raises(OSError, match="full"), atomic_folder(place) as folder:
        (folder / "part").write_text("x")
        raise OSError("disk full")
    assert names(tmp_path / "new") == []
    place.mkdir()
    with atomic_folder(place) as folder:
        (folder / "part").write_text("x")
        assert names(place) == [] and folder.parent == place.parent
    assert names(tmp_path / "new") == ["out"] and names(place) == ["part"]
    with pytest.raises(OSError), atomic_folder(place) as folder:
        (folder / "other").write_text("y")
    assert names(tmp_path / "new") == ["out"] and names(place) == ["part"]


def test_what_a_killed_writer_of_a_folder_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".out.0123456789abcdef.stoa-tmp-folder"
    (left / "deep").mkdir(parents=True)
    with atomic_folder(tmp_path / "out") as first:
        assert not left.exists()
        with atomic_folder(tmp_path / "out") as second:
            assert first.is_dir() and second.is_dir()
        (tmp_path / "out").rmdir()  # the second's
    assert names(tmp_path) == ["out"]


def test_a_file_written_by_its_name_takes_the_place_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/clip.mp4"
    for content in ("first", "second"):
        with atomic_path(path, ".mp4") as temporary:
            assert temporary.suffix == ".mp4" and temporary.parent == path.parent
            temporary.write_text(content)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    with pytest.raises(ValueError, match="no more"), atomic_path(path) as temporary:
        temporary.write_text("thi")
        raise ValueError("no more")
    assert path.read_text() == "second" and names(path.parent) == ["clip.mp4"]


def test_a_new_file_has_the_usual_rights_and_a_replaced_one_keeps_its_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write_text(tmp_path / "new", "")
        atomic_write_text(tmp_path / "kept", "")
        os.chmod(tmp_path / "kept", 0o604)
        atomic_write_text(tmp_path / "kept", "again")
        build_once(tmp_path / "cache", {}, lambda folder: None)
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("new", "kept", "cache")]
    assert modes == [0o640, 0o604, 0o750]


def test_temporary_names_cannot_be_foreseen_and_links_there_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for _ in range(3):
        with atomic_path(tmp_path / "file") as temporary:
            seen.add(temporary.name)
    assert len(seen) == 3 and not any(str(os.getpid()) in name.split(".") for name in seen)
    (tmp_path / "theirs").write_text("precious")
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0" * 2 * count)
    with atomic_path(tmp_path / "file") as temporary:
        planted = temporary
    for target in ("theirs", "absent"):
        planted.symlink_to(tmp_path / target)
        with pytest.raises(FileExistsError):
            atomic_write_text(tmp_path / "file", "mine")
        planted.unlink()
    assert (tmp_path / "theirs").read_text() == "precious" and not (tmp_path / "absent").exists()


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match="lock"), file_lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "theirs").read_text() == "precious"


def test_a_long_name_can_be_written(tmp_path: Path) -> None:
    name = "v" * 250 + ".json"
    atomic_write_text(tmp_path / name, "[]")
    assert names(tmp_path) == [name]


def _write_for_ever(path: str, ready: object) -> None:
    with atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        ready.set()  # type: ignore[attr-defined]
        signal.pause()


def test_the_next_write_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    ready = [SPAWN.Event(), SPAWN.Event()]
    killed, living = (SPAWN.Process(target=_write_for_ever, args=(str(tmp_path / "a.bin"), event)) for event in ready)
    try:
        killed.start()
        assert ready[0].wait(30)
        [left] = names(tmp_path)
        killed.kill()
        killed.join()
        living.start()
        assert ready[1].wait(30)
        [in_use] = names(tmp_path)
        assert in_use != left, "a write by another process removes it"
        foreign = (".a.bin.tmp", ".a.bin.123.tmp", "a.0123456789abcdef.stoa-tmp")
        for name in foreign:
            (tmp_path / name).touch()
        (tmp_path / ".a\nb.0123456789abcdef.stoa-tmp").touch()  # nobody's
        atomic_write_text(tmp_path / "b.txt", "b")
        assert names(tmp_path) == sorted([in_use, "b.txt", *foreign])
    finally:
        for process in (killed, living):
            process.kill()
            process.join()
    atomic_write_text(tmp_path / "b.txt", "c")
    assert names(tmp_path) == sorted(["b.txt", *foreign])


def test_a_folder_of_very_many_files_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SWEEP_ENTRIES", 3)
    monkeypatch.setattr(files, "_large_folders", set())
    listed: list[str] = []
    scandir = os.scandir

    def counting(folder: Any) -> Any:
        listed.append(os.fspath(folder))
        return scandir(folder)

    monkeypatch.setattr(files.os, "scandir", counting)
    for number in range(10):
        atomic_write_text(tmp_path / f"{number}.json", "[]")
    assert len(listed) == 5, "empty, with 1, 2, 3, and with 4 files"


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


def test_stable_hash_is_the_same_in_every_process() -> None:
    assert stable_hash("video7010") == 15415801869218523266
