"""LMDB environments that a process reads from."""

from __future__ import annotations

from pathlib import Path

import lmdb

# LMDB must not open a file twice in one process. A forked process inherits the mapping, which is safe to read because
# no lock table is used; a spawned one starts with an empty dictionary.
_environments: dict[str, lmdb.Environment] = {}


def read_environment(folder: Path, *, readahead: bool) -> lmdb.Environment:
    """Return the environment of an LMDB folder for reading, opened on first use in each process.

    Args:
        folder: the LMDB.
        readahead: let the system read on beyond what is asked for: for values of many pages.

    Raises:
        lmdb.Error: it cannot be opened.
    """
    key = str(folder.resolve())
    environment = _environments.get(key)
    if environment is None:
        environment = lmdb.open(key, readonly=True, lock=False, readahead=readahead, subdir=True)
        _environments[key] = environment
    return environment


def forget_environment(folder: Path) -> None:
    """Close the environment of a folder that is about to be replaced."""
    environment = _environments.pop(str(folder.resolve()), None)
    if environment is not None:
        environment.close()
