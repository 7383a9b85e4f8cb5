"""Files that several processes share: atomic writes, locks, stamps.

No PyTorch and no TensorFlow here: every kind of process uses it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.stoa-tmp(\.\w+)?", re.DOTALL)
FOLDER_ENDING = "stoa-tmp-folder"
SHOWN_LETTERS = 40  # of a file's name in that of its temporary file: names have a greatest length
SWEEP_ENTRIES = 1_000  # of a folder up to which it is listed before each write
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

_large_folders: set[str] = set()


@contextmanager
def atomic_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` for writing; it is synced and replaces `path` if the block succeeds.

    When the block fails, or the disk is full, `path` is as it was and the temporary file is gone.
    """
    encoding = None if "b" in mode else "utf-8"
    # Not opened by its name again: whatever takes its place is not followed.
    with _temporary(Path(path)) as (descriptor, _), open(descriptor, mode, encoding=encoding, closefd=False) as handle:
        yield handle


@contextmanager
def atomic_path(path: str | Path, suffix: str = "") -> Iterator[Path]:
    """As `atomic_file`, for a writer that opens a file by its name.

    Args:
        path: file to write.
        suffix: ending of the temporary name, for writers that go by it.
    """
    with _temporary(Path(path), suffix) as (_, temporary):
        yield temporary


@contextmanager
def _temporary(path: Path, suffix: str = "") -> Iterator[tuple[int, Path]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    descriptor, temporary = _new_temporary(path, suffix)
    try:
        yield descriptor, temporary
        with contextlib.suppress(OSError):  # there is no file yet, or its mode cannot be had
            os.fchmod(descriptor, stat.S_IMODE(os.stat(path).st_mode))
        os.fsync(descriptor)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)
    sync_folder(path.parent)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Make a hidden folder beside `path` to write in, which takes the place of `path` if the block succeeds.

    When the block fails `path` is as it was, and the hidden folder is gone; what a killed process left goes next time.

    Raises:
        OSError: at the end, where `path` is a folder with something in it.
    """
    place = Path(os.path.realpath(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    for leftover in place.parent.glob(f".{glob.escape(place.name[:SHOWN_LETTERS])}.*.{FOLDER_ENDING}"):
        if _is_left_over(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    temporary = random_name(place, FOLDER_ENDING)
    temporary.mkdir()
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a disk without locks, on which nobody sweeps
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
        os.fsync(descriptor)
        os.rename(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(descriptor)
    sync_folder(place.parent)


def _is_left_over(folder: Path) -> bool:
    """Whether a temporary folder is no longer in use, by its lock."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _new_temporary(path: Path, suffix: str = "") -> tuple[int, Path]:
    """Make a file beside `path` that nobody else has; the lock on it says that it is in use, until it is closed."""
    while True:
        temporary = random_name(path, "stoa-tmp" + suffix)
        descriptor = create_file(temporary)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:  # then nobody can lock it, nor sweep it away
            if error.errno not in NO_LOCKS:
                temporary.unlink(missing_ok=True)
                os.close(descriptor)
                raise
        if _is_still_at(descriptor, temporary):
            return descriptor, temporary
        os.close(descriptor)  # swept away before it was locked


def create_file(path: str | Path) -> int:
    """Make a new file, open for writing; FileExistsError where there is anything, even a link to nowhere."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)


def random_name(path: Path, ending: str) -> Path:
    """Return a hidden name beside `path` that nobody can foresee."""
    return path.with_name(f".{path.name[:SHOWN_LETTERS]}.{secrets.token_hex(8)}.{ending}")


def _sweep(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder: those that nobody holds the lock of.

    A folder of very many files is listed once by each process, so that writing all of them takes no time squared.
    """
    key = os.path.abspath(folder)
    if key in _large_folders:
        return
    names: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    if len(names) > SWEEP_ENTRIES:
        _large_folders.add(key)
    for leftover in (os.path.join(key, name) for name in names if TEMPORARY.fullmatch(name)):
        with contextlib.suppress(OSError):  # held by its writer, another user's, or on a disk without locks
            descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_still_at(descriptor, leftover):
                    os.unlink(leftover)
            finally:
                os.close(descriptor)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader finds the old file or the whole new one, never a part."""
    with atomic_file(path) as handle:
        handle.write(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` to `path` as `atomic_write_bytes` does."""
    atomic_write_bytes(path, text.encode())


def file_stamp(path: str | Path) -> str:
    """Size and time of change of a file, to tell cheaply whether it is still the same."""
    status = Path(path).stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def sync_folder(folder: str | Path) -> None:
    """Make renames in `folder` durable (fsync of the folder itself)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_lock(path: str | Path, timeout: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made when absent) for the block.

    The kernel drops the lock when its holder dies, so a lock file left behind blocks nobody. Waiting is logged once
    with the holder's host and process id.

    Args:
        timeout: seconds to wait at most; None waits for ever.

    Raises:
        TimeoutError: if the lock is not free in time; the message names the file and the holder.
        OSError: the file cannot be written, is a link, or lies on a disk without locks (an errno of NO_LOCKS).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, timeout)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, timeout: float | None) -> int:
    deadline = None if timeout is None else time.monotonic() + timeout
    is_announced = False
    while True:
        # What a link planted here leads to would be emptied.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"lock {path} is held by {holder}; waited {timeout} s") from None
            if not is_announced:
                logger.info("waiting for %s, which holds %s", holder, path)
                is_announced = True
            time.sleep(0.1)
            continue
        except OSError:
            os.close(descriptor)
            raise
        if _is_still_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # someone removed the lock file in between: this lock protects nothing


def _is_still_at(descriptor: int, path: str | Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def stable_hash(text: str) -> int:
    """Return 64 bits that depend on `text` only (Python's own hash differs from process to process)."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=8).digest(), "little")
