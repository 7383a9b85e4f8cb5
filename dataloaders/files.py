"""Files that several processes share: atomic writes, locks, fingerprints, and caches that the first process builds.

No PyTorch and no TensorFlow here: every kind of process uses it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

FINGERPRINT_FILE = "fingerprint.json"
STAT_ALL_FILES = 100_000
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.stoa-tmp(\.\w+)?", re.DOTALL)
SHOWN_LETTERS = 40  # of a file's name in that of its temporary file: names have a greatest length
SWEEP_ENTRIES = 1_000  # of a folder up to which it is listed before each write
CACHE_NAME = "stoa-vlp"
NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

_large_folders: set[str] = set()


class CannotCache(OSError, ValueError):
    """A cache cannot be written where it belongs: a fault of the disk, and of a flag; the message says what to do."""


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


def _new_temporary(path: Path, suffix: str = "") -> tuple[int, Path]:
    """Make a file beside `path` that nobody else has; the lock on it says that it is in use, until it is closed."""
    while True:
        temporary = _random_name(path, "stoa-tmp" + suffix)
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


def _random_name(path: Path, ending: str) -> Path:
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


def fallback_place(target: str | Path) -> Path:
    """Return where a cache that belongs at `target` lies if it cannot be written there.

    That is in $XDG_CACHE_HOME or ~/.cache, under a name with a digest of the absolute path of `target`: the same for
    every process of a user.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(home if os.path.isabs(home) else os.path.expanduser("~/.cache"), CACHE_NAME)
    path = Path(target)
    real = os.path.join(os.path.realpath(path.parent), path.name)
    return root / f"{stable_hash(real):016x}-{path.name[-SHOWN_LETTERS:].lstrip('.')}"


def writable_place(target: str | Path) -> Path:
    """Return `target`, or `fallback_place` of it where its folder cannot be written; a warning then names both.

    Raises:
        CannotCache: neither can be written (the message names both), or the disk of `target` is full.
    """
    target, place = Path(target), fallback_place(target)
    try:
        _try_writing(target)
        return target
    except OSError as error:
        if error.errno not in NOT_WRITABLE | NO_LOCKS:
            raise CannotCache(f"{target} cannot be written ({error.strerror})") from error
        reason = error.strerror
    try:
        _try_writing(place)
    except OSError as error:
        raise CannotCache(
            f"{target} cannot be written ({reason}), nor can {place} in its place ({error.strerror}): make one of the "
            "two folders writable, or name another one by XDG_CACHE_HOME"
        ) from error
    logger.warning("%s cannot be written (%s); %s is used in its place", target, reason, place)
    return place


def require_writable(target: str | Path) -> None:
    """Find out whether a file can be written before the work for it is done; CannotCache where it cannot."""
    try:
        _try_writing(Path(target))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise CannotCache(f"{target} cannot be written ({error.strerror}): name another place") from error


def _try_writing(target: Path) -> None:
    """Raise OSError unless a file can be made beside `target` and locked, and the lock of `target` be opened."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _random_name(target, "stoa-tmp")
    descriptor = create_file(temporary)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):  # else made by another user, maybe
            os.close(os.open(_lock_of(target), os.O_RDWR | os.O_NOFOLLOW))
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def build_once(
    target_dir: str | Path, fingerprint: dict[str, Any], build: Callable[[Path], None], *, may_move: bool = False
) -> Path:
    """Return `target_dir`, built by whichever process comes first; the others wait for it.

    The content is built in a folder beside `target_dir` which takes its place when complete, so a folder with this name
    is never half done. One built from other inputs (another `fingerprint`) is replaced; processes that still read the
    old files keep them.

    Args:
        target_dir: folder to make.
        fingerprint: inputs and settings that the content depends on; plain values.
        build: called with an empty folder to fill; whatever it raises is raised here and leaves `target_dir` as it was.
        may_move: where its folder cannot be written, `fallback_place` of `target_dir` is built and returned.

    Raises:
        CannotCache: the folder cannot be written, or the disk is full.
    """
    target = Path(target_dir)
    if is_current(target, fingerprint):
        _remove_retired(target)
        return target
    if may_move:
        target = writable_place(target)
    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(_lock_of(target)))
        except OSError as error:
            raise CannotCache(f"cannot build {target}: {error}; its folder must be writable, and have room") from error
        if not is_current(target, fingerprint):
            try:
                _build_and_swap(target, fingerprint, build)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                raise CannotCache(f"cannot build {target}: {error}; free space there, then start again") from error
    return target


def _build_and_swap(target: Path, fingerprint: dict[str, Any], build: Callable[[Path], None]) -> None:
    if target.exists():
        logger.info("%s was built from other inputs or settings: building it again", target)
    # With the lock held, such folders can only be what a killed process left behind.
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.building-*"):
        _remove(leftover)
    retired = _retired(target)
    _remove(retired)
    building = target.with_name(f".{target.name}.building-{secrets.token_hex(8)}")
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


def _retired(target: Path) -> Path:
    """Where a folder goes that `target` replaces; the one name lets it be found without listing, if a kill left it."""
    return target.with_name(f".{target.name}.old")


def _remove_retired(target: Path) -> None:
    """Delete what a process left that was killed between putting `target` in its place and deleting the old one."""
    if os.path.lexists(_retired(target)):
        with contextlib.suppress(OSError), file_lock(_lock_of(target), timeout=0):  # else its builder is about to
            _remove(_retired(target))


def _remove(path: Path) -> None:
    """Delete a folder; a link or a file in its place without following it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
