"""Filling a frame cache: what is stored, remembered, left alone, and what ends it early.

A worker process takes seconds to start, so most tests do its work here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from dataloaders import video_files
from dataloaders.decoders import UnreadableVideo
from dataloaders.frame_cache import FrameCache, FrameCacheSettings, Unreadable
from dataloaders.frames import FrameSettings
from dataloaders.samples import SampleSettings
from dataloaders.video_files import CachedVideos, open_videos
from tests.videos import write_video
from utils.preparation import frame_caching
from utils.preparation.frame_caching import (
    FAILED,
    PRESENT,
    STORED,
    UNREADABLE,
    UNSTORED,
    CacheTask,
    Filled,
    Filler,
    Outcome,
    collected_warnings,
    fill_cache,
    list_tasks,
    survey_cache,
)
from utils.preparation.video_workers import WorkerDied

SETTINGS = SampleSettings(32, 3, frames=FrameSettings(feature_framerate=2))


class OneProcess:
    """In the place of `WorkerPool`."""

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        self.function = function

    def __enter__(self) -> OneProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is to be ended."""

    def map(self, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for task in tasks:
            yield task, self.function(task)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_caching, "WorkerPool", OneProcess)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos, of which one is none."""
    for number in range(2):
        write_video(tmp_path / "videos" / "deep" / f"v{number}.mp4", 20 + number)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"not a video" * 100)
    return tmp_path / "videos"


def write_lmdb(videos: Path, folder: Path) -> Path:
    """The same videos as values, and one of a key that is no text."""
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for path in videos.rglob("*.mp4"):
            transaction.put(path.stem.encode(), path.read_bytes())
        transaction.put(b"\xff", b"x")
    return folder


def states(filler: Filler, tasks: list[CacheTask]) -> list[str]:
    return [filler(task).state for task in tasks]


def test_places_are_files_folders_and_lmdbs_each_video_once(videos: Path, tmp_path: Path):
    packed = write_lmdb(videos, tmp_path / "lmdb")
    files = [CacheTask(str(videos / name)) for name in ("broken.mp4", "deep/v0.mp4", "deep/v1.mp4")]
    keys = [CacheTask(key, str(packed)) for key in ("broken", "v0", "v1", "\ufffd")]
    assert list_tasks([videos, videos / "deep" / "v1.mp4", packed]) == files + keys
    assert files[0].name == str(videos / "broken.mp4") and keys[1].name == f"{packed}, key 'v0'"
    with pytest.raises(FileNotFoundError, match="no such video"):
        list_tasks([tmp_path / "none"])
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "data.mdb").write_bytes(b"damaged")
    with pytest.raises(OSError, match="not a readable LMDB"):
        list_tasks([tmp_path / "damaged"])


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_training_finds_all_that_was_filled(
    videos: Path, tmp_path: Path, is_packed: bool, kind: str, monkeypatch: pytest.MonkeyPatch
):
    place = write_lmdb(videos, tmp_path / "lmdb") if is_packed else videos
    filled = fill_cache(FrameCache(tmp_path / "cache", kind), list_tasks([place]), SETTINGS, 2)
    assert filled.counts == {STORED: 2, UNREADABLE: 1 + is_packed} and filled.is_complete and filled.size > 0
    expected = [open_videos(place, ["v0", "v1"]).read(video_id, SETTINGS) for video_id in ("v0", "v1")]

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(video_files, "read_clip", fail)
    source = CachedVideos(open_videos(place, ["v0", "v1", "broken"]), FrameCache(tmp_path / "cache", kind))
    for video_id, clip in zip(("v0", "v1"), expected, strict=True):
        found = source.read(video_id, SETTINGS)
        assert found.original_size == clip.original_size and found.frame_indices == clip.frame_indices
        assert np.abs(np.stack(found.frames).astype(int) - np.stack(clip.frames)).max() <= (0 if kind == "raw" else 3)
    with pytest.raises(UnreadableVideo, match="broken"):
        source.read("broken", SETTINGS)
    again = fill_cache(FrameCache(tmp_path / "cache", kind), list_tasks([place]), SETTINGS, 1)
    assert again.counts == {PRESENT: 2, UNREADABLE: 1 + is_packed} and again.size == filled.size


def test_what_is_there_is_not_decoded_again(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    filler, tasks = Filler(FrameCache(tmp_path / "cache"), SETTINGS), list_tasks([videos])
    assert states(filler, tasks) == [UNREADABLE, STORED, STORED]
    monkeypatch.setattr(video_files, "read_frames", None)
    assert states(filler, tasks) == [UNREADABLE, PRESENT, PRESENT]
    assert filler(tasks[0]).reason.startswith(f"{videos / 'broken.mp4'}: ")


def test_a_damaged_clip_is_stored_again(videos: Path, tmp_path: Path):
    tasks = list_tasks([videos / "deep"])
    assert states(Filler(FrameCache(tmp_path / "cache"), SETTINGS), tasks) == [STORED, STORED]
    segment = next((tmp_path / "cache").glob("*.frames"))
    content = bytearray(segment.read_bytes())
    content[5] ^= 1
    segment.write_bytes(content)
    outcomes = [Filler(FrameCache(tmp_path / "cache"), SETTINGS)(task) for task in tasks]
    assert [outcome.state for outcome in outcomes] == [STORED, PRESENT]
    assert len(outcomes[0].warnings) == 1 and "checksum differs" in outcomes[0].warnings[0]


def test_a_fault_of_the_machine_is_not_remembered_of_the_video(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise OSError("no room in /tmp")

    filler, (task, _) = Filler(FrameCache(tmp_path / "cache"), SETTINGS), list_tasks([videos / "deep"])
    with monkeypatch.context() as patch:
        patch.setattr(video_files, "read_frames", fail)
        assert filler(task) == Outcome(FAILED, f"{task.name}: OSError: no room in /tmp")
    assert filler(task).state == STORED


def test_a_file_that_changes_meanwhile_does_not_look_like_a_full_cache(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read = video_files.read_frames

    def touch(path: Path, settings: SampleSettings) -> object:
        clip = read(path, settings)
        os.utime(path, (1, 1))
        return clip

    filler, (task, _) = Filler(FrameCache(tmp_path / "cache"), SETTINGS), list_tasks([videos / "deep"])
    key = iter([task.key(SETTINGS), "0" * 64])
    monkeypatch.setattr(frame_caching, "frame_key", lambda *_: next(key))
    monkeypatch.setattr(video_files, "read_frames", touch)
    os.utime(task.video_id, (2, 2))  # `CachedVideos` takes its own key, of the changed file
    outcome = filler(task)
    assert outcome.state == FAILED and "changed while it was read" in outcome.reason


def test_a_file_that_is_gone_is_unreadable_and_not_remembered(tmp_path: Path):
    filler = Filler(FrameCache(tmp_path / "cache"), SETTINGS)
    assert filler(CacheTask(str(tmp_path / "gone.mp4"))).state == UNREADABLE
    assert len(filler.cache) == 0


class Crashing(Filler):
    """A decoder that one video brings down."""

    def _fill(self, task: CacheTask) -> Outcome:
        if "v0" in task.video_id:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super()._fill(task)


@pytest.mark.slow
def test_a_crash_of_the_decoder_is_remembered(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frame_caching, "Filler", Crashing)
    tasks = list_tasks([videos / "deep"])
    filled = fill_cache(FrameCache(tmp_path / "cache"), tasks, SETTINGS, 1)
    assert filled.counts == {UNREADABLE: 1, STORED: 1} and filled.is_complete
    reason = f"{tasks[0].name}: the decoding process died 2 times (SIGSEGV)"
    assert filled.unreadable == [reason]
    assert FrameCache(tmp_path / "cache").get(tasks[0].key(SETTINGS)) == Unreadable(reason)


def test_a_dead_worker_is_a_reason(videos: Path, tmp_path: Path):
    filler, task = Filler(FrameCache(tmp_path / "cache"), SETTINGS), list_tasks([videos])[1]
    outcome = filler.bury(task, WorkerDied("the decoding process died 2 times (SIGSEGV)"))
    assert outcome == Outcome(UNREADABLE, f"{task.name}: the decoding process died 2 times (SIGSEGV)")
    assert filler(task) == outcome


def test_a_process_that_was_killed_says_nothing_of_the_video(videos: Path, tmp_path: Path):
    filler, task = Filler(FrameCache(tmp_path / "cache"), SETTINGS), list_tasks([videos])[1]
    outcome = filler.bury(task, WorkerDied("the decoding process died 2 times (SIGKILL)"))
    assert outcome.state == FAILED and len(filler.cache) == 0


@pytest.mark.usefixtures("in_process")
def test_nothing_more_is_read_once_storing_stops(tmp_path: Path):
    for number in range(12):
        write_video(tmp_path / "videos" / f"v{number:02}.mp4", 30 + number)
    clip = SETTINGS.max_frames * SETTINGS.resolution**2 * 3
    tasks = list_tasks([tmp_path / "videos"])
    filled = fill_cache(FrameCache(tmp_path / "cache", "raw", 2.5 * clip / 1e9), tasks, SETTINGS, 1)
    assert filled.counts == {STORED: 2, UNSTORED: 1} and filled.skipped == 9
    assert filled.size == 2 * clip and not filled.is_complete
    assert len(filled.warnings) == 1 and "the limit of" in next(iter(filled.warnings))


@pytest.mark.usefixtures("in_process")
def test_no_video_is_an_incomplete_cache(tmp_path: Path):
    assert not fill_cache(FrameCache(tmp_path / "cache"), [], SETTINGS, 2).is_complete
    assert not Filled().is_complete


def test_warnings_are_collected_and_not_logged(caplog: pytest.LogCaptureFixture):
    with collected_warnings() as found:
        frame_caching.frame_cache.logger.warning("damaged %s", "index")
    assert found == ["damaged index"] and not caplog.messages
    frame_caching.frame_cache.logger.warning("later")
    assert found == ["damaged index"] and caplog.messages == ["later"]


@pytest.mark.usefixtures("in_process")
def test_a_survey_says_what_is_there_and_makes_no_folder(videos: Path, tmp_path: Path):
    tasks = list_tasks([videos])
    by_id = {Path(task.video_id).stem: task for task in tasks}
    cache = FrameCacheSettings(str(tmp_path / "cache"))
    assert survey_cache(cache, by_id, SETTINGS) == (0, {}, 0, [])
    assert not (tmp_path / "cache").exists()
    fill_cache(FrameCache(tmp_path / "cache"), tasks[:2], SETTINGS, 1)
    survey = survey_cache(cache, by_id, SETTINGS)
    assert survey.stored == 1 and list(survey.unreadable) == ["broken"] and survey.size > 0 and not survey.damages
    for path in (tmp_path / "cache").glob("*.index"):
        path.write_text("damaged\n" + path.read_text())
    damaged = survey_cache(cache, by_id, SETTINGS)
    assert damaged.stored == 0 and "damaged first line" in damaged.damages[0]
