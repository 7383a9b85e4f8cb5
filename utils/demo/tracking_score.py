"""Whether the boxes of one thing are one trajectory, measured on demo clips, where the truth is known."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from dataloaders.frames import candidate_indices, pick_positions
from dataloaders.object_records import ObjectRecord, ObjectRules, ObjectSettings
from dataloaders.object_store import ObjectStore, build_object_store
from modules.boxes import iou_matrix
from utils.demo.detections import detect, label_map
from utils.demo.render import Rendering, render
from utils.demo.world import COLORS, SHAPES, Scene, Thing, make_scene, sample_scene

SIZE, SECONDS, FPS, FEATURE_FRAMERATE = 96, 6.0, 4.0, 2.0  # of scripts/quickstart.sh
OBJECT_COUNT = 5
KINDS = ("ordinary", "crossing", "crossing, one colour")
MOVING = ("drifting", "bouncing", "circling", "swinging")
SAME_PLACE = 0.3  # overlap of two things' boxes, at any two times, that makes their paths cross
SAME_BOX = 0.5  # overlap of a detection with the true box


class DemoClip(NamedTuple):
    """Things, their pictures, and VinVL-like detections of T frames."""

    rendering: Rendering
    frame_indices: np.ndarray  # (T,)
    detections: list[dict]


def make_clip(kind: str, seed: int, frames: int) -> DemoClip:
    """A clip of one of KINDS, the same for every number of frames but for the errors of the detections."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    scene, rendering = _ordinary(seed, rng) if kind == "ordinary" else _crossing(kind, seed, rng)
    candidates = candidate_indices(len(rendering.frames), FPS, FEATURE_FRAMERATE)
    frame_indices = candidates[pick_positions(len(candidates), frames)]
    return DemoClip(rendering, frame_indices, detect(scene, rendering, frame_indices, rng))


def _ordinary(seed: int, rng: np.random.Generator) -> tuple[Scene, Rendering]:
    scene = sample_scene(rng, 1 + seed % 3)
    return scene, render(scene, rng, SIZE, SECONDS, FPS)


def _crossing(kind: str, seed: int, rng: np.random.Generator) -> tuple[Scene, Rendering]:
    while True:
        count, shape = 2 + seed % 2, SHAPES[rng.integers(len(SHAPES))]
        colors = rng.permutation(list(COLORS))[:count] if kind == "crossing" else [rng.choice(list(COLORS))] * count
        scene = make_scene(Thing(str(color), shape, str(rng.choice(MOVING))) for color in colors)
        rendering = render(scene, rng, SIZE, SECONDS, FPS)
        if do_paths_cross(rendering.boxes):
            return scene, rendering


def do_paths_cross(boxes: np.ndarray) -> bool:
    """Whether any two things are in one place, at the same time or not; boxes (F, N, 4), nan where not seen."""
    paths = [own[~np.isnan(own[:, 0])] for own in boxes.transpose(1, 0, 2)]
    pairs = ((one, other) for number, one in enumerate(paths) for other in paths[:number])
    return any(bool((iou_matrix(one, other) > SAME_PLACE).any()) for one, other in pairs)


def true_identities(record: ObjectRecord, clip: DemoClip) -> np.ndarray:
    """(T, O) int64: number from 1 of the thing that a kept box shows, 0 for padding and boxes of nothing."""
    found = np.zeros(record.classes.shape, dtype=np.int64)
    for frame, index in enumerate(clip.frame_indices):
        overlaps = iou_matrix(record.boxes[frame], np.nan_to_num(clip.rendering.boxes[index]))
        for slot, thing in zip(*linear_sum_assignment(overlaps, maximize=True), strict=True):
            if overlaps[slot, thing] >= SAME_BOX:
                found[frame, slot] = thing + 1
    return found


def count_right(record: ObjectRecord, truth: np.ndarray) -> tuple[int, int]:
    """Boxes with the right identity, and all boxes of things.

    Trajectories are matched with things one to one so that most boxes are right. A box whose trajectory is not in the
    clip's list, which the model does not see, is wrong.

    Args:
        record: (T, O) trajectories and their list.
        truth: (T, O), from `true_identities`.
    """
    listed = record.trajectory_ids[record.trajectory_ids != 0]
    things = range(1, int(truth.max(initial=0)) + 1)
    shared = np.array([[((record.tracks == one) & (truth == thing)).sum() for thing in things] for one in listed])
    shared = shared.reshape(len(listed), len(things))
    return int(shared[linear_sum_assignment(shared, maximize=True)].sum()), int((truth != 0).sum())


def score(clips: Sequence[DemoClip], rule: str, *, with_attributes: bool = True) -> tuple[float, int]:
    """Percentage of boxes with the right identity under a rule of --trajectory, and the number of boxes.

    Args:
        clips: all with the same number of frames.
        with_attributes: False hides the detections' attributes.
    """
    right = boxes = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(clips):
            frames = clip.detections if with_attributes else _without_attributes(clip.detections)
            Path(folder, f"{number}.json").write_text(json.dumps(frames), encoding="utf-8")
        settings = ObjectSettings(OBJECT_COUNT, len(clips[0].frame_indices), ObjectRules(trajectory=rule))
        store = ObjectStore(build_object_store(folder, label_map({}, {}), settings))
        for number, clip in enumerate(clips):
            record = store.get(str(number))
            assert record is not None
            own_right, own_boxes = count_right(record, true_identities(record, clip))
            right, boxes = right + own_right, boxes + own_boxes
    return 100.0 * right / boxes, boxes


def _without_attributes(frames: list[dict]) -> list[dict]:
    hidden = ("attributes", "attr_scores")
    return [
        {"objects": [{key: value for key, value in one.items() if key not in hidden} for one in frame["objects"]]}
        for frame in frames
    ]
