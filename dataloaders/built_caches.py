"""Caches of prepared data that the first process builds and all read: where they lie, and whether they are current.

No PyTorch and no TensorFlow here: every kind of process uses it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dataloaders.files import (
    NO_LOCKS,
    SHOWN_LETTERS,
    atomic_write_text,
    create_file,
    file_lock,
    random_name,
    stable_hash,
    sync_folder,
)

logger = logging.getLogger(__name__)

FINGERPRINT_FILE = "fingerprint.json"
STAT_ALL_FILES = 100_000
CACHE_NAME = "stoa-vlp"
NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class CannotCache(OSError, ValueError):
    """A cache cannot be written where it belongs: a fault of the disk, and of a flag; the message says what to do."""


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
    temporary = random_name(target, "stoa-tmp")
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
