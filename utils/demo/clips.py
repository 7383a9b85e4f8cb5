"""One clip of the demo world on disk: its videos, detections and truth, under every name that it has."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataloaders.frames import candidate_indices, pick_positions
from utils.demo import formats
from utils.demo.detections import detect
from utils.demo.render import Rendering, render, write_video
from utils.demo.world import DETECTION_STREAM, LOOK_STREAM, SceneClip, clip_generator

# Those whose videos others link to come first.
DATASETS = ("webvid", "msrvtt", "msvd", "lsmdc", "didemo")


class ClipSettings(NamedTuple):
    """The settings that all clips share; see the command line of utils/make_demo_data.py."""

    output_dir: Path
    seed: int
    size: int
    seconds: float
    fps: float
    feature_framerate: float
    max_frames: int
    msvd_clips: int
    lsmdc_clips: int
    didemo_clips: int


class ClipRecord(NamedTuple):
    """What was written for a clip: video id by dataset, truth, and detections of each class and attribute."""

    ids: dict[str, str]
    truth: dict[str, Any]
    classes: Counter[str]
    attributes: Counter[str]


def is_in(dataset: str, clip: SceneClip, settings: ClipSettings) -> bool:
    """Whether a dataset has a clip: WebVid has the training clips, others the first of them and all others, or none."""
    if dataset == "webvid":
        return clip.split == "train"
    first, end = formats.MSRVTT_NUMBERS["train"]
    training_clips = {
        "msrvtt": end - first,  # what its numbers hold
        "msvd": settings.msvd_clips,
        "lsmdc": settings.lsmdc_clips,
        "didemo": settings.didemo_clips,
    }[dataset]
    return training_clips > 0 and (clip.split != "train" or clip.number < training_clips)


def make_clip(clip: SceneClip, settings: ClipSettings) -> ClipRecord:
    """Render one clip and write its videos and detections.

    The detections are of the frames that the project's frame rule samples.
    """
    look = clip_generator(settings.seed, clip.split, clip.number, LOOK_STREAM)
    rendering = render(clip.scene, look, settings.size, settings.seconds, settings.fps)
    candidates = candidate_indices(len(rendering.frames), settings.fps, settings.feature_framerate)
    frame_indices = candidates[pick_positions(len(candidates), settings.max_frames)]
    noise = clip_generator(settings.seed, clip.split, clip.number, DETECTION_STREAM)
    detections = detect(clip.scene, rendering, frame_indices, noise)
    places = _places(clip, settings)
    folder = settings.output_dir
    videos = [folder / dataset / place.video for dataset, place in places.items()]
    _write_videos(videos, rendering, settings.fps)
    objects = [folder / dataset / "objects" / place.objects for dataset, place in places.items()]
    _write_objects(objects, json.dumps(detections))
    found = [item for frame in detections for item in frame["objects"]]
    return ClipRecord(
        ids={dataset: place.video_id for dataset, place in places.items()},
        truth=_truth(clip, rendering, frame_indices),
        classes=Counter(item["class"] for item in found),
        attributes=Counter(name for item in found for name in item["attributes"]),
    )


def _places(clip: SceneClip, settings: ClipSettings) -> dict[str, formats.Place]:
    """Names of a clip in each dataset that has it."""
    naming: dict[str, Callable[[SceneClip], formats.Place]] = {
        "webvid": formats.webvid_place,
        "msrvtt": formats.msrvtt_place,
        "msvd": partial(formats.msvd_place, seconds=settings.seconds),
        "lsmdc": partial(formats.lsmdc_place, seconds=settings.seconds),
        "didemo": formats.didemo_place,
    }
    return {dataset: naming[dataset](clip) for dataset in DATASETS if is_in(dataset, clip, settings)}


def _write_videos(paths: list[Path], rendering: Rendering, fps: float) -> None:
    """Encode once per container; a further name in the same container is a link.

    A name without an extension (DiDeMo's) is of an .mp4, which every clip has under another name before.
    """
    written: dict[str, Path] = {}
    for path in paths:
        container = ".avi" if path.suffix == ".avi" else ".mp4"
        if container in written:
            _link(written[container], path)
        else:
            write_video(path, rendering.frames, fps)
            written[container] = path


def _write_objects(paths: list[Path], text: str) -> None:
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    paths[0].write_text(text, encoding="utf-8")
    for path in paths[1:]:
        _link(paths[0], path)


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _truth(clip: SceneClip, rendering: Rendering, frame_indices: np.ndarray) -> dict[str, Any]:
    boxes = rendering.boxes[frame_indices]
    return {
        "split": clip.split,
        "size": [int(rendering.frames.shape[2]), int(rendering.frames.shape[1])],
        "frame_indices": frame_indices.tolist(),
        "objects": [thing._asdict() for thing in clip.scene],
        "boxes": [[None if np.isnan(box[0]) else box.astype(int).tolist() for box in frame] for frame in boxes],
    }
