"""Digests of what a command has written, read as a user's program would read it, at any moment."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.campaigns.kill_rounds import Parts


def digest(value: Any) -> str:
    """Digest of plain values, arrays and tensors in dicts and lists, bit for bit."""
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()[:16]


def _feed(hasher: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        hasher.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        hasher.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        hasher.update(f"array {value.dtype} {value.shape}".encode())
        hasher.update(value.tobytes())
    elif isinstance(value, bytes):
        hasher.update(b"bytes %d " % len(value) + value)
    elif isinstance(value, Mapping):
        hasher.update(b"dict %d" % len(value))
        for key in sorted(value, key=str):
            _feed(hasher, key)
            _feed(hasher, value[key])
    elif isinstance(value, (list, tuple)):
        hasher.update(b"list %d" % len(value))
        for item in value:
            _feed(hasher, item)
    else:
        hasher.update(f"{type(value).__name__} {value!r} ".encode())


def read(parts: Parts, name: str, reading: Callable[[], Any]) -> None:
    """Put the digest of what `reading` returns under a name, or why it could not be read; nothing for None."""
    try:
        value = reading()
    except Exception as error:  # whatever a reader raises on what a killed process left
        parts[name] = f"unreadable ({type(error).__name__}: {error})"
        return
    if value is not None:
        parts[name] = digest(value)


def held(path: Path, scratch: Path, reading: Callable[[Path], Any]) -> Any:
    """What `reading` makes of a file that others may replace, through a link in `scratch`; None if there is none."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        try:
            os.link(path, Path(folder, path.name))
        except FileNotFoundError:
            return None
        return reading(Path(folder, path.name))


def file_bytes(path: Path) -> bytes | None:
    """Content of a file; None if there is none."""
    return path.read_bytes() if path.is_file() else None
