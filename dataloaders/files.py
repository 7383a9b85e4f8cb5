"""Files that several processes share: atomic writes, locks, fingerprints, and caches that the first process builds.

No PyTorch and no TensorFlow here: every kind of process uses it.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

FINGERPRINT_FILE = "fingerprint.json"
STAT_ALL_FILES = 100_000


@contextmanager
def atomic_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` for writing; it is synced and replaces `path` if the block succeeds.

    When the block fails, or the disk is full, `path` is as it was and the temporary file is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
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


def _is_still_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def fingerprint_file(path: str | Path) -> dict[str, Any]:
    """Return name, size and modification time of a file: enough to see that it was replaced or edited."""
    path = Path(path)
    status = path.stat()
    return {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def fingerprint_folder(folder: str | Path, suffix: str) -> dict[str, Any]:
    """Return a summary of the files in `folder` whose names end in `suffix`, in constant memory.

    It holds their number, a digest of their names (a sum, so that the order of the listing does not matter) and, of
    every file or in folders of more than 100,000 files of one in 64, total size and newest modification time. Millions
    of files so take seconds; in such a folder a single file edited in place can go unnoticed, one added, removed or
    renamed cannot.
    """
    count, names = 0, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(suffix):
                count += 1
                names += stable_hash(entry.name)
    one_in = 1 if count <= STAT_ALL_FILES else 64
    size, newest = 0, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(suffix) and (one_in == 1 or stable_hash(entry.name) % one_in == 0):
                try:
                    status = entry.stat()
                except OSError:  # a link to nowhere, which is there by its name alone
                    continue
                size += status.st_size
                newest = max(newest, status.st_mtime_ns)
    digest = f"{names % 2**64:016x}"
    return {"count": count, "names": digest, "one_in": one_in, "size": size, "newest_mtime_ns": newest}


def stable_hash(text: str) -> int:
    """Return 64 bits that depend on `text` only (Python's own hash differs from process to process)."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=8).digest(), "little")


def is_current(target_dir: str | Path, fingerprint: dict[str, Any]) -> bool:
    """Tell whether `target_dir` is complete and was built from inputs with this fingerprint."""
    return read_fingerprint(target_dir) == json.loads(json.dumps(fingerprint))


def read_fingerprint(target_dir: str | Path) -> dict[str, Any] | None:
    """Return the fingerprint that `build_once` left in a folder; None if there is none that can be read."""
    try:
        return json.loads((Path(target_dir) / FINGERPRINT_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def build_once(target_dir: str | Path, fingerprint: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """Return `target_dir`, built by whichever process comes first; the others wait for it.

    The content is built in a folder beside `target_dir` which takes its place when complete, so a folder with this name
    is never half done. One built from other inputs (another `fingerprint`) is replaced; processes that still read the
    old files keep them.

    Args:
        target_dir: folder to make.
        fingerprint: inputs and settings that the content depends on; plain values.
        build: called with an empty folder to fill; whatever it raises is raised here and leaves `target_dir` as it was.
    """
    target = Path(target_dir)
    if is_current(target, fingerprint):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(target.with_name(f".{target.name}.lock")):
            if not is_current(target, fingerprint):
                _build_and_swap(target, fingerprint, build)
    except PermissionError as error:
        raise PermissionError(f"cannot build {target}: {error}; the folder {target.parent} must be writable") from error
    return target


def _build_and_swap(target: Path, fingerprint: dict[str, Any], build: Callable[[Path], None]) -> None:
    if target.exists():
        logger.info("%s was built from other inputs or settings: building it again", target)
    # With the lock held, such folders can only be what a killed process left behind.
    for kind in ("building", "old"):
        for leftover in target.parent.glob(f".{glob.escape(target.name)}.{kind}-*"):
            shutil.rmtree(leftover)
    building = target.with_name(f".{target.name}.building-{os.getpid()}")
    retired = target.with_name(f".{target.name}.old-{os.getpid()}")
    building.mkdir()
    try:
        build(building)
        atomic_write_text(building / FINGERPRINT_FILE, json.dumps(fingerprint, indent=1))
        if target.exists():
            os.rename(target, retired)
        os.rename(building, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)
