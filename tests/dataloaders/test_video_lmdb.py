"""Clips that lie in an LMDB."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmdb
import numpy as np
import pytest

from dataloaders.frames import UnreadableVideo
from dataloaders.lmdb_files import forget_environment
from dataloaders.samples import SampleSettings
from dataloaders.video_files import VideoLmdb, open_videos, read_frames
from tests.videos import write_video

SETTINGS = SampleSettings(resolution=32, max_frames=3)


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
    with lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 22) as environment, environment.begin(write=True) as writing:
        for key, value in values.items():
            writing.put(key.encode(), value)
    return tmp_path / "lmdb"


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


def test_two_sources_of_one_lmdb_share_it(videos: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(videos)
    train, test = VideoLmdb(videos, ["b"]), VideoLmdb(tmp_path / "link", ["1@N00_5_ab"])
    assert len(train.read("b", SETTINGS).frames) == len(test.read("1@N00_5_ab", SETTINGS).frames) == 3


def _read(source: VideoLmdb, results: Any) -> None:
    results.put(source.read("b", SETTINGS).original_size)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_an_lmdb_that_is_already_open(videos: Path, method: str):
    source = VideoLmdb(videos, ["b"])
    context: Any = multiprocessing.get_context(method)
    results = context.Queue()
    process = context.Process(target=_read, args=(source, results))
    process.start()
    assert results.get(timeout=60) == (48, 64)
    process.join()
    assert source.read("b", SETTINGS).original_size == (48, 64)


def test_a_copy_opens_the_lmdb_when_it_first_reads(videos: Path):
    stored = pickle.dumps(VideoLmdb(videos, ["b"]))
    forget_environment(videos)
    assert len(stored) < 1000
    assert pickle.loads(stored).read("b", SETTINGS).original_size == (48, 64)


def test_an_incomplete_or_foreign_lmdb_is_named(videos: Path, tmp_path: Path):
    content = (videos / "data.mdb").read_bytes()
    for name, part in (("half", content[: len(content) // 2]), ("text", b"x" * 8192)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.mdb").write_bytes(part)
    with pytest.raises(OSError, match=r"half/data\.mdb has \d+ bytes, not the \d+ of the whole LMDB"):
        open_videos(tmp_path / "half", ["b"])
    with pytest.raises(OSError, match="text is not a readable LMDB"):
        open_videos(tmp_path / "text", ["b"])


def test_a_full_disk_is_named_with_its_remedy(videos: Path, monkeypatch: pytest.MonkeyPatch):
    source = VideoLmdb(videos, ["b"])
    full = SimpleNamespace(name="/dev/full")
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: contextlib.nullcontext(full))
    with pytest.raises(OSError, match=r"/dev/full: .*No space left.*TMPDIR"):
        source.read("b", SETTINGS)
