"""Whole samples of retrieval fine-tuning, from video files, from the frame cache, and without frames."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.decoders import has_av
from dataloaders.frame_cache import FrameCache
from dataloaders.frames import FrameSettings
from dataloaders.label_map import load_label_map
from dataloaders.object_records import ObjectSettings
from dataloaders.object_store import ObjectStore, build_object_store
from dataloaders.retrieval import ClipReader, RetrievalTrainDataset
from dataloaders.samples import Sample, SampleSettings, _object_part
from dataloaders.video_files import CachedVideos, VideoFolder
from tests.benchmark import simulated
from tests.benchmark.clips import MAX_FRAMES, RESOLUTION
from tests.benchmark.report import print_table

OPENCV, PYAV, JPEG, RAW = "MP4, OpenCV", "MP4, PyAV", "frame cache, jpeg", "frame cache, raw"
NO_FRAMES = "text and boxes, one ready video tensor for all"
FORMATS = {JPEG: "jpeg", RAW: "raw"}
GOALS = {"msrvtt": {RAW: 3.0, JPEG: 15.0}, "webvid": {RAW: 0.5, JPEG: 3.0}}
OBJECTS, CAPTIONS_PER_VIDEO = 10, 20


@dataclass(frozen=True)
class VideoSet:
    """Videos with object files, and the label map of these."""

    name: str
    videos: Path
    objects: Path
    label_map: Path


class WithoutFrames(ClipReader):
    """Boxes as `ClipReader` makes them; `video` is the same tensor for every clip, and no picture is touched."""

    def __init__(self, like: ClipReader, video_ids: list[str]) -> None:
        super().__init__(like.videos, like.settings, like.objects)
        self.clips = {video_id: self.videos.read(video_id, self.settings) for video_id in video_ids}
        self.video = self.blank()["video"]

    def read(self, video_id: str, key: int) -> Sample:
        """As `ClipReader.read`, which makes the tensor of the clip's frames."""
        assert self.objects is not None
        record, order = self.objects.get(video_id), np.arange(MAX_FRAMES)
        part: Sample = {"video": self.video, "video_mask": torch.ones(MAX_FRAMES, dtype=torch.bool), "notes": []}
        return part | _object_part(self.clips[video_id], record, self.settings, order, video_id)


def rendered_set(videos: list[Path], scratch: Path) -> VideoSet:
    """Videos of one folder with made-up objects."""
    folder = scratch / "rendered"
    simulated.write_objects(folder / "objects", [path.stem for path in videos])
    simulated.write_label_map(folder / "label_map.json")
    return VideoSet("videos", videos[0].parent, folder / "objects", folder / "label_map.json")


def real_sets(folder: Path) -> list[VideoSet]:
    """MSR-VTT's and WebVid's clips in a folder laid out as {set}/videos, objects/{set}, vinvl/label_map.json."""
    label_map = folder / "vinvl" / "label_map.json"
    return [VideoSet(name, folder / name / "videos", folder / "objects" / name, label_map) for name in GOALS]


def measure_samples(videos: VideoSet, rounds: int, turn_seconds: float, scratch: Path) -> dict[str, Any]:
    """Milliseconds per sample of each source, all sources taking turns, on one thread.

    Args:
        turn_seconds: in a round each source goes over all clips until about so much time has passed, once at least.
    """
    folder = scratch / f"samples_{videos.name}"
    with _one_thread():
        datasets = _datasets(videos, folder)
        for name in FORMATS:
            _samples(datasets[name])  # fills the caches
        samples = {name: _samples(dataset) for name, dataset in datasets.items()}
        seconds = _seconds(datasets, rounds, turn_seconds)
    costs = {name: _costs(seconds, name) for name in (PYAV, JPEG, RAW) if name in seconds}
    sizes = {name: FrameCache(folder / kind).size() for name, kind in FORMATS.items()}
    expected, clips = samples[OPENCV], len(samples[OPENCV])
    return {
        "clips": clips,
        "boxes_per_clip": sum(int((sample["boxes"][..., 0] >= 0).sum()) for sample in expected) / clips,
        "ms_per_sample": {name: 1e3 * statistics.median(values) for name, values in seconds.items()},
        "seconds_per_sample_by_round": seconds,
        "cost_percent": {name: statistics.median(values) for name, values in costs.items()},
        "cost_percent_by_round": costs,
        "goals_percent": GOALS.get(videos.name, {}),
        "bytes_per_clip": {name: size / clips for name, size in sizes.items()},
        "frames_equal_percent": {
            name: _equal_percent(samples[name], expected) for name in datasets if name not in (OPENCV, NO_FRAMES)
        },
    }


def show_samples(name: str, found: dict[str, Any]) -> None:
    """Print the table of a set."""
    cost, goals, equal = found["cost_percent"], found["goals_percent"], found["frames_equal_percent"]
    print_table(
        f"samples of retrieval, {name}: {found['clips']} clips, {MAX_FRAMES} frames, {OBJECTS} boxes per frame at most "
        f"({found['boxes_per_clip']:.0f} per clip); one process, one thread",
        [
            ("", "ms per sample", "samples/s", "cost of frames, % of OpenCV's", "goal", "frames equal, %", "kB/clip"),
            *(
                (
                    source,
                    milliseconds,
                    1e3 / milliseconds,
                    cost.get(source),
                    f"<= {goals[source]:g}" if source in goals else None,
                    equal.get(source),
                    found["bytes_per_clip"].get(source, 0) / 1e3 or None,
                )
                for source, milliseconds in found["ms_per_sample"].items()
            ),
        ],
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _datasets(videos: VideoSet, folder: Path) -> dict[str, RetrievalTrainDataset]:
    """The same samples from each source."""
    objects = ObjectSettings(OBJECTS, MAX_FRAMES)
    folder.mkdir()
    label_map = load_label_map(videos.label_map)
    store = ObjectStore(build_object_store(videos.objects, label_map, objects, store_path=folder / "objects.lmdb"))
    split = _split(sorted(path.stem for path in videos.videos.glob("*.mp4")))
    files = VideoFolder(videos.videos, split.video_ids)
    opencv = ClipReader(files, _settings("opencv"), store)
    readers = {OPENCV: opencv}
    if has_av():
        readers[PYAV] = ClipReader(files, _settings("av"), store)
    for name, kind in FORMATS.items():
        readers[name] = ClipReader(CachedVideos(files, FrameCache(folder / kind, kind)), opencv.settings, store)
    readers[NO_FRAMES] = WithoutFrames(readers[RAW], split.video_ids)
    return {name: RetrievalTrainDataset(split, reader, expand=False) for name, reader in readers.items()}


def _settings(backend: str) -> SampleSettings:
    frames = FrameSettings(video_backend=backend)
    return SampleSettings(RESOLUTION, MAX_FRAMES, object_count=OBJECTS, frames=frames, is_training=True)


def _split(video_ids: list[str]) -> CaptionSplit:
    """Made-up captions of these videos."""
    texts = simulated.captions()
    pairs = (
        TextVideoPair(video_id, texts[(number * CAPTIONS_PER_VIDEO + caption) * 1597 % len(texts)])
        for number, video_id in enumerate(video_ids)
        for caption in range(CAPTIONS_PER_VIDEO)
    )
    return CaptionSplit.from_pairs(pairs)


def _samples(dataset: RetrievalTrainDataset) -> list[Sample]:
    return [dataset[0, index] for index in range(len(dataset))]


def _seconds(datasets: dict[str, RetrievalTrainDataset], rounds: int, turn_seconds: float) -> dict[str, list[float]]:
    """Seconds per sample of each source in each round."""
    passes = {name: 1 + int(turn_seconds / _pass_seconds(dataset, 0, 1)) for name, dataset in datasets.items()}
    seconds: dict[str, list[float]] = {name: [] for name in datasets}
    for epoch in range(1, rounds + 1):
        for name, dataset in datasets.items():
            seconds[name].append(_pass_seconds(dataset, epoch, passes[name]) / len(dataset))
    return seconds


def _pass_seconds(dataset: RetrievalTrainDataset, epoch: int, passes: int) -> float:
    """Seconds of one pass over a dataset, the mean of several."""
    start = time.perf_counter()
    for _ in range(passes):
        for index in range(len(dataset)):
            dataset[epoch, index]
    return (time.perf_counter() - start) / passes


def _costs(seconds: dict[str, list[float]], name: str) -> list[float]:
    """What the frames of a source cost in each round, in percent of decoding with OpenCV."""
    rounds = zip(seconds[name], seconds[OPENCV], seconds[NO_FRAMES], strict=True)
    return [100 * (one - without) / (decoded - without) for one, decoded, without in rounds]


def _equal_percent(found: list[Sample], expected: list[Sample]) -> float:
    """Percent of frames that are the same picture."""
    same = [(a["video"] == b["video"]).flatten(1).all(1) for a, b in zip(found, expected, strict=True)]
    return 100 * float(torch.cat(same).float().mean())
