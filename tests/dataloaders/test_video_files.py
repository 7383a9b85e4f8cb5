"""Clips that lie as files in a folder, or as values of an LMDB."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataloaders import video_files
from dataloaders.decoders import BACKENDS, UnreadableVideo
from dataloaders.frame_cache import FrameCache
from dataloaders.frames import Clip, FrameSettings
from dataloaders.samples import ClipFrames, SampleSettings
from dataloaders.transforms import frames_to_tensor
from dataloaders.video_files import (
    CachedVideos,
    PathVideos,
    VideoFolder,
    VideoLmdb,
    clip_frames,
    find_named_videos,
    find_videos,
    frame_key,
    list_videos,
    open_videos,
    read_frames,
    read_sampled,
    videos_below,
)
from tests.dataloaders.test_lmdb_files import write_lmdb
from tests.videos import write_video

SETTINGS = SampleSettings(resolution=32, max_frames=3)


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


def test_clips_are_found_by_their_paths_with_or_without_extension(tmp_path: Path):
    make_files(tmp_path, "a/v.mp4", "b/v.MOV", "b/v.txt", "bare", "both", "both.avi", "x.1/y.2", "deep/w.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    paths = {
        "a/v": "a/v.mp4", "b/v": "b/v", "bare": "bare", "both": "both", "x.1/y.2": "x.1/y.2", "link/v": "link/v",
    }  # fmt: skip
    lost = {"b/w": "b/v.mp4", "w": "w", "v": "v", "folder": "folder", "none/v": "none/v", "bare/v": "bare/v"}
    found, missing = find_named_videos(tmp_path, {**lost, **paths})
    names = ["a/v.mp4", "b/v.MOV", "bare", "both.avi", "x.1/y.2", "link/v.mp4"]
    assert found == dict(zip(paths, (tmp_path / name for name in names), strict=True)) and missing == list(lost)
    make_files(tmp_path, "a/v.webm")
    assert find_named_videos(tmp_path, {"a/v": "a/v.webm"})[0] == {"a/v": tmp_path / "a/v.webm"}
    with pytest.raises(ValueError, match=r"a/v may be v\.mp4, v\.webm; write it with its extension"):
        find_named_videos(tmp_path, {"a/v": "a/v"})


def test_files_of_one_name_in_two_folders_are_two_to_a_cache(tmp_path: Path):
    make_files(tmp_path, "a/v.mp4", "b/v.mp4", "c/w.mp4", "d/w.mp4")
    for path in tmp_path.glob("*/*.mp4"):
        os.utime(path, (7, 7))
    files = {name: name for name in ("a/v", "b/v", "c/w")}
    videos = VideoFolder(tmp_path, files, files)
    assert videos.stamp("a/v") != videos.stamp("b/v") and videos.stamp("gone") == ""
    assert videos.stamp("c/w") == PathVideos().stamp(str(tmp_path / "c/w.mp4")), "as utils/build_frame_cache.py has it"


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


def below(folder: Path) -> list[str]:
    """The videos of a folder by their names below it."""
    return [str(path.relative_to(folder)) for path in videos_below(folder)]


def test_linked_folders_are_followed_and_go_by_their_real_names(tmp_path: Path):
    make_files(
        tmp_path, "videos/z/own.mp4", "videos/own.mp4", "disk/far.mp4", "disk/deep/farther.mkv", "disk/notes.txt"
    )
    (tmp_path / "videos/linked").symlink_to("../disk")
    (tmp_path / "videos/a").symlink_to("z")  # comes first by its name, but is no folder of its own
    (tmp_path / "videos/z/twice").symlink_to(tmp_path / "disk/deep")
    expected = ["own.mp4", "z/own.mp4", "linked/far.mp4", "linked/deep/farther.mkv"]
    assert below(tmp_path / "videos") == expected
    assert list_videos([tmp_path / "videos"]) == sorted(tmp_path / "videos" / name for name in expected)
    found, missing = find_videos(tmp_path / "videos", ["farther", "far", "own"])
    assert found == {
        "farther": tmp_path / "videos/linked/deep/farther.mkv",
        "far": tmp_path / "videos/linked/far.mp4",
        "own": tmp_path / "videos/own.mp4",
    }
    assert not missing
    (tmp_path / "entry").symlink_to("videos")
    assert below(tmp_path / "entry") == expected, "the folder itself may be a link"


def test_links_that_lead_back_end(tmp_path: Path):
    make_files(tmp_path, "a/x.mp4", "b/c/y.mp4")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/self").symlink_to(".")
    (tmp_path / "b/other").symlink_to("../a")
    (tmp_path / "a/other").symlink_to("../b/c")
    (tmp_path / "b/c/root").symlink_to(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    assert below(tmp_path) == ["circle.mp4", "a/x.mp4", "b/c/y.mp4"]
    assert below(tmp_path / "a") == ["x.mp4", "other/y.mp4", "up/circle.mp4"]


def test_a_file_under_two_names_is_listed_by_each_stem(tmp_path: Path):
    make_files(tmp_path, "all/one.mp4", "all/two.mp4")
    (tmp_path / "train").mkdir()
    (tmp_path / "train/one.mp4").symlink_to("../all/one.mp4")
    (tmp_path / "train/second.mp4").symlink_to("../all/two.mp4")
    (tmp_path / "train/gone.mp4").symlink_to("../all/gone.mp4")
    (tmp_path / "train/folder.mp4").mkdir()
    assert below(tmp_path) == ["all/one.mp4", "all/two.mp4", "train/gone.mp4", "train/second.mp4"]
    with pytest.raises(UnreadableVideo, match=r"train/gone\.mp4"):
        PathVideos().read(str(tmp_path / "train/gone.mp4"), SETTINGS)


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    make_files(tmp_path, "a/x.mp4", "closed/y.mp4", "z.mp4")
    scandir = os.scandir

    def refusing(folder: str) -> Any:
        if Path(folder).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert below(tmp_path) == ["z.mp4", "a/x.mp4"]
    assert f"{tmp_path}/closed cannot be listed (Permission denied): what lies in it is left out" in caplog.text


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


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An LMDB with videos "1@N00_5_ab" and "b", "bad" with other bytes and "empty"; temporary files go to tmp/."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    values = {
        "1@N00_5_ab": write_video(tmp_path / "a.mp4", 30).read_bytes(),
        "b": write_video(tmp_path / "b.mp4", 20, size=(48, 64)).read_bytes(),
        "bad": b"not a video",
        "empty": b"",
    }
    return write_lmdb(tmp_path / "lmdb", values)


def test_clips_are_those_of_the_files(videos: Path, tmp_path: Path):
    source = open_videos(videos, ["b", "gone", "1@N00_5_ab", "b"])
    assert isinstance(source, VideoLmdb)
    assert source.video_ids == ["b", "1@N00_5_ab"] and source.missing == ["gone"]
    for video_id, name in (("1@N00_5_ab", "a.mp4"), ("b", "b.mp4")):
        clip, expected = source.read(video_id, SETTINGS), read_frames(tmp_path / name, SETTINGS)
        np.testing.assert_array_equal(clip.frames, expected.frames)
        assert clip.original_size == expected.original_size
    assert not list((tmp_path / "tmp").iterdir())


def test_what_cannot_be_read_is_named_by_its_key(videos: Path, tmp_path: Path):
    source = VideoLmdb(videos, ["bad", "empty"])
    assert source.video_ids == ["bad", "empty"]
    for key in ("bad", "empty", "gone"):
        with pytest.raises(UnreadableVideo, match=rf"lmdb, key '{key}': ") as error:
            source.read(key, SETTINGS)
        assert str(tmp_path / "tmp") not in str(error.value)
    assert not list((tmp_path / "tmp").iterdir())


def test_an_incomplete_or_foreign_lmdb_is_named(videos: Path, tmp_path: Path):
    content = (videos / "data.mdb").read_bytes()
    for name, part in (("half", content[: len(content) // 2]), ("text", b"x" * 8192)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.mdb").write_bytes(part)
    with pytest.raises(OSError, match=r"half/data\.mdb has \d+ bytes, not the \d+ of the whole LMDB"):
        open_videos(tmp_path / "half", ["b"])
    with pytest.raises(OSError, match="text is not a readable LMDB"):
        open_videos(tmp_path / "text", ["b"])


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded from now on."""
    decoded: list[Path] = []
    read = video_files.read_clip

    def reading(path: Path, *arguments: Any) -> Clip:
        decoded.append(Path(path))
        return read(path, *arguments)

    monkeypatch.setattr(video_files, "read_clip", reading)
    return decoded


def same(first: ClipFrames, second: ClipFrames) -> bool:
    frames = all(np.array_equal(a, b) for a, b in zip(first.frames, second.frames, strict=True))
    sizes = (first.original_size, first.stored_size) == (second.original_size, second.stored_size)
    return frames and sizes and list(first.frame_indices or ()) == list(second.frame_indices or ())


@pytest.mark.parametrize("kind", ["folder", "lmdb"])
def test_a_video_is_decoded_once_for_the_same_frames(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    path = write_video(tmp_path / "videos/a.mp4", 45, size=(96, 64))
    place = path.parent if kind == "folder" else write_lmdb(tmp_path / "lmdb", {"a": path.read_bytes()})
    decoded = counted(monkeypatch)
    videos = CachedVideos(open_videos(place, ["a"]), FrameCache(tmp_path / "cache"))
    plain = open_videos(place, ["a"]).read("a", SETTINGS)
    assert same(videos.read("a", SETTINGS), plain) and len(decoded) == 2
    again = CachedVideos(open_videos(place, ["a"]), FrameCache(tmp_path / "cache"))
    assert same(again.read("a", SETTINGS), plain) and len(decoded) == 2
    changes = [{"max_frames": 4}, {"resolution": 16}, {"frames": FrameSettings(2)}, {"frames": FrameSettings(1, 0)}]
    changes += [{"frames": FrameSettings(end_seconds=2)}, {"frames": FrameSettings(video_backend="opencv")}]
    for number, change in enumerate(changes):
        other = replace(SETTINGS, **change)
        assert same(again.read("a", other), open_videos(place, ["a"]).read("a", other))
        assert len(decoded) == 2 + 2 * (number + 1), change
    again.read("a", replace(SETTINGS, seed=7, max_words=5, object_count=3))
    assert len(decoded) == 2 + 2 * len(changes), "what frames do not depend on is not in the key"


def test_a_changed_video_is_read_again_and_an_unreadable_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_video(tmp_path / "videos/a.mp4", 45)
    (tmp_path / "videos/b.mp4").write_bytes(b"no video" * 99)
    videos = CachedVideos(VideoFolder(path.parent, ["a", "b"]), FrameCache(tmp_path / "cache"))
    first = videos.read("a", SETTINGS)
    decoded = counted(monkeypatch)
    write_video(path, 25, step=9)
    assert not same(videos.read("a", SETTINGS), first) and decoded == [path]
    messages = []
    for _ in range(2):
        with pytest.raises(UnreadableVideo) as error:
            videos.read("b", SETTINGS)
        messages.append(str(error.value))
    assert messages[0] == messages[1] and "b.mp4" in messages[0] and len(decoded) == 2
    with pytest.raises(UnreadableVideo, match="no video file of gone"):
        videos.read("gone", SETTINGS)


def test_what_cannot_be_read_without_the_other_decoder_is_tried_again_with_it(monkeypatch: pytest.MonkeyPatch):
    keys = set()
    for has in (True, False):
        monkeypatch.setattr(video_files, "has_av", lambda has=has: has)
        keys |= {
            frame_key("a.mp4 1 2", replace(SETTINGS, frames=FrameSettings(video_backend=name))) for name in BACKENDS
        }
    assert len(keys) == 4


def test_a_number_in_another_spelling_is_the_same_key():
    keys = {
        frame_key("a", replace(SETTINGS, frames=FrameSettings(rate, end_seconds=end)))
        for rate, end in ((1, 31), (1.0, 31.0))
    }
    assert len(keys) == 1


def test_frames_are_those_of_the_whole_pictures(tmp_path: Path):
    """Each is cut as it is decoded, and preparing it again changes nothing."""
    path = write_video(tmp_path / "a.mp4", 45, size=(100, 64))
    whole = frames_to_tensor(read_sampled(path, SETTINGS).frames, 32)
    cut = read_frames(path, SETTINGS)
    assert {frame.shape for frame in cut.frames} == {(32, 32, 3)} and cut.original_size == (100, 64)
    assert torch.equal(frames_to_tensor(cut.frames, 32), whole)
    uncut = clip_frames(read_sampled(path, SETTINGS))
    assert torch.equal(frames_to_tensor(uncut.frames, 32), whole) and uncut.frames[0].shape == (64, 100, 3)
    assert (uncut.original_size, uncut.stored_size, uncut.frame_indices) == (
        cut.original_size, cut.stored_size, cut.frame_indices,
    )  # fmt: skip
