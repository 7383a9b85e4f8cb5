"""Tar files that tests write themselves, as video2dataset writes them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

Members = Iterable[tuple[str, bytes]]


def write_tar(path: Path, members: Members, kind: int = tarfile.PAX_FORMAT, mtime: float = 1.5) -> Path:
    """Write plain members; a time with a fraction gets a header of more fields, as webdataset's do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), mtime
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(key: str, video: bytes, caption: str | None, has_text: bool = True) -> list[tuple[str, bytes]]:
    """Members of one clip."""
    about = {"url": f"https://example.org/{key}", "caption": caption, "key": key, "status": "success", "width": 64}
    members = [(f"{key}.json", json.dumps(about).encode()), (f"{key}.mp4", video)]
    return [*members, (f"{key}.txt", (caption or "").encode())] if has_text else members
