"""Helpers of the annotation readers: errors that name the file, and leaving out videos without a caption."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SHOWN_IDS = 5


def annotation_file(path: str | Path, what: str, flag: str = "--data_path") -> Path:
    """Return the path of an existing file.

    Args:
        path: the file.
        what: what it holds, for the message.
        flag: where its path, or that of its folder, was given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder or a pipe, or no permission to look for it.
    """
    path = Path(path)
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        link = f", a link to {os.readlink(path)}, which is not there" if path.is_symlink() else ""
        raise FileNotFoundError(f"{path}: no such {what} ({flag}){link}") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}; it is the {what} ({flag})") from error
    if not is_file:
        raise ValueError(f"{path}: is a folder or a pipe; the {what} ({flag}) is a file")
    return path


def is_text_record(entry: Any, *names: str) -> bool:
    """Whether a JSON value is an object with text under all these names."""
    return isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names)


def keep_captioned(video_ids: Sequence[str], captioned: Collection[str], path: Path) -> list[str]:
    """Return the ids that have captions, and log how many have none.

    Args:
        video_ids: ids of a split.
        captioned: ids that have captions; a set or a dictionary.
        path: file of the captions, for the message.

    Raises:
        ValueError: none of the ids has a caption.
    """
    lacking = [video_id for video_id in video_ids if video_id not in captioned]
    if lacking:
        shown = ", ".join(lacking[:SHOWN_IDS]) + (", ..." if len(lacking) > SHOWN_IDS else "")
        message = f"{path}: no caption of {len(lacking)} of {len(video_ids)} videos: {shown}"
        if len(lacking) == len(video_ids):
            raise ValueError(f"{message}; do the list of videos and the captions belong together?")
        logger.warning("%s; they are left out", message)
    return [video_id for video_id in video_ids if video_id in captioned]
