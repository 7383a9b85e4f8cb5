"""Clips that lie as files in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataloaders.frames import FrameSettings, UnreadableVideo
from dataloaders.samples import SampleSettings
from dataloaders.video_files import VideoFolder, find_videos, open_videos, read_frames
from tests.videos import write_video


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_clips_are_found_by_stem_anywhere_below_the_folder(tmp_path: Path):
    make_files(tmp_path, "a/v1.mp4", "b/deep/v2.AVI", "v.3.webm", "v4.txt", "b/v1.mp4", "other.mp4")
    found, missing = find_videos(tmp_path, ["v2", "v4", "v1", "v.3", "v2", "v5"])
    assert list(found.items()) == [
        ("v2", tmp_path / "b/deep/v2.AVI"),
        ("v1", tmp_path / "a/v1.mp4"),
        ("v.3", tmp_path / "v.3.webm"),
    ]
    assert missing == ["v4", "v5"]
    assert find_videos(tmp_path / "absent", ["v1"]) == ({}, ["v1"])


def test_every_extension_of_the_real_didemo_lists_is_found(shared: Path, tmp_path: Path):
    names = [name for path in (shared / "realdata/didemo").glob("*_list.txt") for name in path.read_text().splitlines()]
    one_of_each = {name.partition(".")[2]: name for name in names}
    make_files(tmp_path, *one_of_each.values())
    found, missing = find_videos(tmp_path, [name.partition(".")[0] for name in one_of_each.values()])
    assert len(found) == len(one_of_each) >= 16 and not missing


def test_a_file_without_extension_is_taken_only_if_no_other_has_the_stem(tmp_path: Path):
    make_files(tmp_path, "a/dot.", "a/bare", "both.", "z/both.mp4", "two", "two.", "v.5")
    found, missing = find_videos(tmp_path, ["dot", "bare", "both", "two", "v", "v.5"])
    assert found == {
        "dot": tmp_path / "a/dot.",
        "bare": tmp_path / "a/bare",
        "both": tmp_path / "z/both.mp4",
        "two": tmp_path / "two",
    }
    assert missing == ["v", "v.5"]


def test_frames_of_a_file_carry_the_sizes_that_boxes_need(tmp_path: Path):
    path = write_video(tmp_path / "v.mp4", 30, fps=10, size=(64, 48))
    clip = read_frames(path, SampleSettings(resolution=32, max_frames=5))
    assert len(clip.frames) == 5 and clip.original_size == clip.stored_size == (64, 48)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(UnreadableVideo, match=r"text\.mp4"):
        read_frames(tmp_path / "text.mp4", SampleSettings(resolution=32))


def test_frames_from_the_end_given_on_are_not_used(tmp_path: Path):
    path = write_video(tmp_path / "v.mp4", 40, fps=10)
    clip = read_frames(path, SampleSettings(resolution=32, max_frames=3, frames=FrameSettings(end_seconds=2.5)))
    expected = read_frames(path, SampleSettings(resolution=32, max_frames=4)).frames[:3]
    np.testing.assert_array_equal(clip.frames, expected)


def test_a_folder_gives_its_videos_by_id(tmp_path: Path):
    write_video(tmp_path / "deep/v1.mp4", 10)
    (tmp_path / "bad.avi").write_text("not a video")
    videos = open_videos(tmp_path, ["bad", "gone", "v1"])
    assert isinstance(videos, VideoFolder)
    assert videos.video_ids == ["bad", "v1"] and videos.missing == ["gone"]
    settings = SampleSettings(resolution=32, max_frames=2)
    assert len(videos.read("v1", settings).frames) == 2
    with pytest.raises(UnreadableVideo, match=r"bad\.avi"):
        videos.read("bad", settings)
    with pytest.raises(UnreadableVideo, match="no video file of gone"):
        videos.read("gone", settings)


def test_no_folder_of_videos_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"videos: no such folder of videos \(--features_path\)"):
        open_videos(tmp_path / "videos", ["v1"])
