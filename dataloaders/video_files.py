"""Finding and reading clips that lie as video files in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dataloaders.frames import read_clip
from dataloaders.samples import ClipFrames, SampleSettings

VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".webm", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".3gp", ".wmv"))


def find_videos(folder: str | Path, video_ids: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """Locate clips by stem, with any usual extension, anywhere below a folder.

    Returns:
        The files by video id, and the ids that have none, both in the order of `video_ids`. Of several files with one
        stem the first in alphabetical order is taken.
    """
    wanted = list(dict.fromkeys(video_ids))
    names = set(wanted)
    found: dict[str, Path] = {}
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in VIDEO_SUFFIXES and stem in names:
                found.setdefault(stem, Path(root, name))
    return {i: found[i] for i in wanted if i in found}, [i for i in wanted if i not in found]


def read_frames(path: Path, settings: SampleSettings) -> ClipFrames:
    """Frames of a video file by the frame rule (dataloaders/frames.py); UnreadableVideo if none decodes."""
    clip = read_clip(path, settings.max_frames, settings.feature_framerate, settings.slice_framepos)
    size = (clip.width, clip.height)
    return ClipFrames(clip.frames, size, size)
