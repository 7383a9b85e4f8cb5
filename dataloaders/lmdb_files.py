"""LMDB environments that a process reads from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

LMDB_FILE = "data.mdb"

# LMDB must not open a file twice in one process. A forked process inherits the mapping, which is safe to read because
# no lock table is used; a spawned one starts with an empty dictionary.
_environments: dict[str, lmdb.Environment] = {}


def read_environment(folder: Path, *, readahead: bool) -> lmdb.Environment:
    """Return the environment of an LMDB folder for reading, opened on first use in each process.

    Args:
        folder: the LMDB.
        readahead: let the system read on beyond what is asked for: for values of many pages.

    Raises:
        lmdb.Error: it cannot be opened, or is incomplete.
    """
    # By the name as it is first: to resolve it takes longer than to read a value.
    environment = _environments.get(str(folder))
    if environment is None:
        key = str(folder.resolve())
        environment = _environments.get(key)
    if environment is None:
        environment = lmdb.open(key, readonly=True, lock=False, readahead=readahead, subdir=True)
        try:
            _check_size(environment, folder / LMDB_FILE)
        except BaseException:
            environment.close()
            raise
        _environments[key] = environment
    return environment


def _check_size(environment: lmdb.Environment, file: Path) -> None:
    """The system kills a process that reads beyond the end of a mapped file, so say what is wrong before."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size < needed:
        raise lmdb.CorruptedError(f"{file} has {file.stat().st_size} bytes, not the {needed} of the whole LMDB")


@contextmanager
def value_as_file(folder: Path, key: str) -> Iterator[Path]:
    """Write a value of an LMDB of large values to a temporary file, which lasts for the block: OpenCV reads files only.

    Raises:
        KeyError: there is no such key.
        OSError: no room for the file.
        lmdb.Error: the LMDB cannot be opened.
    """
    with tempfile.NamedTemporaryFile(prefix="video-") as file:
        with read_environment(folder, readahead=True).begin(buffers=True) as transaction:
            content = transaction.get(key.encode())
            if content is None:
                raise KeyError(f"{folder}, key {key!r}: there is no such key")
            _write(file.name, content)
        yield Path(file.name)


def _write(path: str, content: bytes | memoryview) -> None:
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise OSError(f"{path}: {error}; give a folder with more room in TMPDIR") from error


def forget_environment(folder: Path) -> None:
    """Close the environment of a folder that is about to be replaced."""
    environment = _environments.pop(str(folder.resolve()), None)
    if environment is not None:
        environment.close()
