"""Filling a cache of finished frames ahead of time, and saying what of a data set is in one.

Keys are those of `CachedVideos`, through which training and evaluation read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from dataloaders import frame_cache
from dataloaders.decoders import UnreadableVideo
from dataloaders.frame_cache import CachedClip, FrameCache, FrameCacheSettings, Unreadable
from dataloaders.samples import SampleSettings
from dataloaders.video_files import (
    LMDB_FILE,
    CachedVideos,
    PathVideos,
    VideoLmdb,
    VideoSource,
    frame_key,
    list_videos,
    lmdb_keys,
)
from utils.preparation.video_workers import WorkerDied, WorkerPool

STORED, PRESENT, UNREADABLE, UNSTORED, FAILED = "stored", "present", "unreadable", "unstored", "failed"


class CacheTask(NamedTuple):
    """A video: the path of its file, or its key in an LMDB."""

    video_id: str
    lmdb: str | None = None

    @property
    def name(self) -> str:
        """Where it lies, as messages about it say it."""
        return f"{self.lmdb}, key {self.video_id!r}" if self.lmdb else self.video_id

    def source(self) -> VideoSource:
        """What it is read from; OSError if that is a damaged LMDB."""
        return VideoLmdb(self.lmdb, ()) if self.lmdb else PathVideos()

    def key(self, settings: SampleSettings) -> str:
        """What a cache knows its frames by."""
        return frame_key(self.source().stamp(self.video_id), settings)


def list_tasks(places: Iterable[str | Path]) -> list[CacheTask]:
    """Files as they are, LMDB folders as their keys, other folders as the videos anywhere below; each once.

    Raises:
        OSError: a place that is not there, a folder without a video, a damaged LMDB.
    """
    tasks: dict[CacheTask, None] = {}
    for place in map(Path, places):
        if (place / LMDB_FILE).is_file():
            VideoLmdb(place, ())  # for its message, if it cannot be read
            tasks.update((CacheTask(key, str(place)), None) for key in lmdb_keys(place))
        else:
            tasks.update((CacheTask(str(path)), None) for path in list_videos([place]))
    return list(tasks)


class Outcome(NamedTuple):
    """What became of a video: one of the states above, why it has no frames, and what the cache warned of."""

    state: str
    reason: str = ""
    warnings: tuple[str, ...] = ()


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """What frame caches warn of in the block, in a list instead of the log."""
    found: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        found.append(record.getMessage())
        return False

    logger, level = frame_cache.logger, frame_cache.logger.level
    logger.setLevel(logging.WARNING)
    logger.addFilter(collect)
    try:
        yield found
    finally:
        logger.removeFilter(collect)
        logger.setLevel(level)


@dataclass(frozen=True)
class Filler:
    """Sees to it that the cache has a video; pickled once per worker process, which then opens the cache once."""

    cache: FrameCache
    settings: SampleSettings

    def __call__(self, task: CacheTask) -> Outcome:
        """Store the frames of a video, or why there are none, unless the cache has it."""
        torch.set_num_threads(1)  # as in a loader's worker: there is a process for each core
        with collected_warnings() as warnings:
            try:
                outcome = self._fill(task)
            except Exception as error:  # no room, no memory, no right to read: all but a verdict on the video
                outcome = Outcome(FAILED, f"{task.name}: {type(error).__name__}: {error}")
        return outcome._replace(warnings=tuple(warnings))

    def _fill(self, task: CacheTask) -> Outcome:
        key = task.key(self.settings)
        found = self.cache.get(key)
        if isinstance(found, Unreadable):
            return Outcome(UNREADABLE, found.reason)
        if found is not None:
            return Outcome(PRESENT)
        try:
            CachedVideos(task.source(), self.cache).read(task.video_id, self.settings)
        except UnreadableVideo as error:
            return Outcome(UNREADABLE, str(error))
        if self.cache.get(key) is not None:
            return Outcome(STORED)
        if task.key(self.settings) != key:
            return Outcome(FAILED, f"{task.name}: the file changed while it was read")
        return Outcome(UNSTORED)

    def bury(self, task: CacheTask, death: WorkerDied) -> Outcome:
        """Remember a video whose decoder crashes as unreadable, so that it does not end training."""
        reason = f"{task.name}: {death.reason}"
        if "SIGKILL" in death.reason:  # for want of memory, as a rule, which another time there may be
            return Outcome(FAILED, reason)
        with collected_warnings() as warnings:
            self.cache.put_unreadable(task.key(self.settings), reason)
        return Outcome(UNREADABLE, reason, tuple(warnings))


@dataclass
class Filled:
    """What became of the videos.

    counts: by state. unreadable, failed: their reasons. warnings: those of the cache, each once. skipped: videos that
    were not looked at, since storing had stopped. size: of the cache, in bytes.
    """

    counts: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)
    skipped: int = 0
    size: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count a video."""
        self.counts[outcome.state] += 1
        self.warnings |= dict.fromkeys(outcome.warnings)
        if outcome.state == UNREADABLE:
            self.unreadable.append(outcome.reason)
        if outcome.state == FAILED:
            self.failed.append(outcome.reason)

    @property
    def is_stopped(self) -> bool:
        """Whether a video was read that the cache did not take."""
        return self.counts[UNSTORED] > 0

    @property
    def is_complete(self) -> bool:
        """Whether the cache knows all of the videos, and has at least one."""
        return not self.is_stopped and not self.failed and self.counts[STORED] + self.counts[PRESENT] > 0


def fill_cache(cache: FrameCache, tasks: Sequence[CacheTask], settings: SampleSettings, workers: int) -> Filled:
    """Store what the cache does not have yet. Once storing stops, no further video is read.

    Raises:
        CannotStart: no worker process starts.
    """
    filler, filled = Filler(cache, settings), Filled()
    with (
        WorkerPool(filler, max(1, min(workers, len(tasks)))) as pool,
        tqdm(total=len(tasks), unit="video", disable=None) as progress,
    ):
        for task, result in pool.map(takewhile(lambda _: not filled.is_stopped, tasks)):
            filled.add(filler.bury(task, result) if isinstance(result, WorkerDied) else result)
            progress.update()
    filled.skipped = len(tasks) - filled.counts.total()
    filled.size = cache.size()
    return filled


class CacheSurvey(NamedTuple):
    """What a cache has of some videos: their number, the reasons of unreadable ones by id, its size, its damages."""

    stored: int
    unreadable: dict[str, str]
    size: int
    damages: list[str]


def survey_cache(cache: FrameCacheSettings, videos: Mapping[str, CacheTask], settings: SampleSettings) -> CacheSurvey:
    """Read what a cache has of videos by id; a folder that is not there is not made.

    Raises:
        OSError: the folder of the cache, or the LMDB of the videos, cannot be read.
    """
    assert cache.frame_cache is not None
    if not Path(cache.frame_cache).exists():
        return CacheSurvey(0, {}, 0, [])
    stored, unreadable = 0, {}
    with collected_warnings() as damages:
        opened = cache.open()
        assert opened is not None
        for video_id, task in videos.items():
            found = opened.get(task.key(settings))
            if isinstance(found, Unreadable):
                unreadable[video_id] = found.reason
            stored += isinstance(found, CachedClip)
        return CacheSurvey(stored, unreadable, opened.size(), damages)
