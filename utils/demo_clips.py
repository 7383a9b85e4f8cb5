"""One clip of the demo world on disk: its videos, detections and truth, under every name that it has."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataloaders.frames import candidate_indices, pick_positions
from utils import demo_formats
from utils.demo_detections import detect
from utils.demo_render import Rendering, render, write_video
from utils.demo_world import DETECTION_STREAM, LOOK_STREAM, SceneClip, clip_generator

DATASETS = ("webvid", "msrvtt", "msvd")


class ClipSettings(NamedTuple):
    """What all clips have in common; see the command line of make_demo_data.py."""

    output_dir: Path
    seed: int
    size: int
    seconds: float
    fps: float
    feature_framerate: float
    max_frames: int
    msvd_clips: int


class ClipRecord(NamedTuple):
    """What was written for a clip: video id by dataset, truth, and detections of each class and attribute."""

    ids: dict[str, str]
    truth: dict[str, Any]
    classes: Counter[str]
    attributes: Counter[str]


def is_in_msrvtt(clip: SceneClip) -> bool:
    """MSR-VTT's numbers hold 6,513 training clips; WebVid may have more."""
    first, end = demo_formats.MSRVTT_NUMBERS["train"]
    return clip.split != "train" or clip.number < end - first


def is_in_msvd(clip: SceneClip, settings: ClipSettings) -> bool:
    """MSVD has the first training clips and all others, unless it is left out."""
    return settings.msvd_clips > 0 and (clip.split != "train" or clip.number < settings.msvd_clips)


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
    targets = _targets(clip, settings)
    _write_videos([path for _, path in targets.values()], rendering, settings.fps)
    _write_objects(
        [settings.output_dir / dataset / "objects" / f"{name}.json" for dataset, (name, _) in targets.items()],
        json.dumps(detections),
    )
    found = [item for frame in detections for item in frame["objects"]]
    return ClipRecord(
        ids={dataset: name for dataset, (name, _) in targets.items()},
        truth=_truth(clip, rendering, frame_indices),
        classes=Counter(item["class"] for item in found),
        attributes=Counter(name for item in found for name in item["attributes"]),
    )


def _targets(clip: SceneClip, settings: ClipSettings) -> dict[str, tuple[str, Path]]:
    """Video id and file of a clip in each dataset that has it."""
    folder, targets = settings.output_dir, {}
    if clip.split == "train":
        name = demo_formats.webvid_id(clip)
        targets["webvid"] = (name, folder / "webvid" / "videos" / demo_formats.webvid_page(clip) / f"{name}.mp4")
    if is_in_msrvtt(clip):
        name = demo_formats.msrvtt_id(clip)
        targets["msrvtt"] = (name, folder / "msrvtt" / "videos" / f"{name}.mp4")
    if is_in_msvd(clip, settings):
        name = demo_formats.msvd_id(clip, settings.seconds)
        targets["msvd"] = (name, folder / "msvd" / "YouTubeClips" / f"{name}.avi")
    return targets


def _write_videos(paths: list[Path], rendering: Rendering, fps: float) -> None:
    """Encode once per container; a further name in the same container is a link."""
    written: dict[str, Path] = {}
    for path in paths:
        if path.suffix in written:
            _link(written[path.suffix], path)
        else:
            write_video(path, rendering.frames, fps)
            written[path.suffix] = path


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
