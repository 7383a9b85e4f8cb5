"""Clips that lie as files in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataloaders.frames import UnreadableVideo
from dataloaders.samples import SampleSettings
from dataloaders.video_files import find_videos, read_frames
from tests.videos import write_video


def test_clips_are_found_by_stem_anywhere_below_the_folder(tmp_path: Path):
    for name in ("a/v1.mp4", "b/deep/v2.AVI", "v.3.webm", "v4.txt", "b/v1.mp4", "other.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found, missing = find_videos(tmp_path, ["v2", "v4", "v1", "v.3", "v2", "v5"])
    assert list(found.items()) == [
        ("v2", tmp_path / "b/deep/v2.AVI"),
        ("v1", tmp_path / "a/v1.mp4"),
        ("v.3", tmp_path / "v.3.webm"),
    ]
    assert missing == ["v4", "v5"]
    assert find_videos(tmp_path / "absent", ["v1"]) == ({}, ["v1"])


def test_frames_of_a_file_carry_the_sizes_that_boxes_need(tmp_path: Path):
    path = write_video(tmp_path / "v.mp4", 30, fps=10, size=(64, 48))
    clip = read_frames(path, SampleSettings(resolution=32, max_frames=5))
    assert len(clip.frames) == 5 and clip.original_size == clip.stored_size == (64, 48)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(UnreadableVideo, match=r"text\.mp4"):
        read_frames(tmp_path / "text.mp4", SampleSettings(resolution=32))
