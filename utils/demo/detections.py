"""VinVL-like detections of rendered demo clips, with the kinds of error a detector makes."""

from __future__ import annotations

import numpy as np

from utils.demo.render import Rendering
from utils.demo.world import COLORS, SHAPES, Scene

MISSED = 0.08
JITTER = 0.04  # standard deviation of each side, as a share of the box
WRONG_CLASS = 0.03
WRONG_COLOR = 0.03
SPURIOUS_PER_FRAME = 0.3
BAR_FOUND = 0.5
MIN_VISIBLE = 0.2  # less than this of a thing is not detected
MIN_SIDE = 3.0  # pixels
CLUTTER = ("shadow", "light", "spot", "wall", "line")
BAR_CLASS = "pole"


def class_names() -> list[str]:
    """All classes that the detections use, in alphabetical order."""
    return sorted((*SHAPES, *CLUTTER, BAR_CLASS))


def detect(scene: Scene, rendering: Rendering, frame_indices: np.ndarray, rng: np.random.Generator) -> list[dict]:
    """Detections in the structure of VinVL's predictions, one entry per sampled frame.

    Args:
        scene: N things.
        rendering: of the scene.
        frame_indices: int64 (T,), frames of the rendering.
        rng: random numbers of the errors.

    Returns:
        T dicts `{"objects": [...], "relations": None}`; rects are x1, y1, x2, y2 in pixels of the video.
    """
    return [{"objects": _frame(scene, rendering, int(frame), rng), "relations": None} for frame in frame_indices]


def _frame(scene: Scene, rendering: Rendering, frame: int, rng: np.random.Generator) -> list[dict]:
    height, width = rendering.frames.shape[1:3]
    found = []
    for thing, box, visible in zip(scene, rendering.boxes[frame], rendering.visible[frame], strict=True):
        missed, wrong_class, wrong_color = rng.uniform(0, 1, 3) < (MISSED, WRONG_CLASS, WRONG_COLOR)
        shape = SHAPES[rng.integers(len(SHAPES))] if wrong_class else thing.shape
        color = list(COLORS)[rng.integers(len(COLORS))] if wrong_color else thing.color
        confidence = np.clip(rng.normal(0.86, 0.07) - 0.25 * (1 - visible) - 0.2 * wrong_class, 0.3, 0.99)
        sides = rng.normal(0, JITTER, 4)
        if missed or visible < MIN_VISIBLE:
            continue
        extent = np.array([box[2] - box[0], box[3] - box[1]])
        rect = _rect(box + sides * np.tile(extent, 2), width, height)
        if rect is not None:
            found.append(_object(shape, rect, confidence, color, rng))
    if rendering.bar is not None and rng.uniform() < BAR_FOUND:
        found.append(_object(BAR_CLASS, [float(side) for side in rendering.bar], rng.uniform(0.3, 0.6), "gray", rng))
    for _ in range(rng.poisson(SPURIOUS_PER_FRAME)):
        x, y = rng.uniform(0, 0.8, 2) * (width, height)
        extent = rng.uniform(0.1, 0.4, 2) * (width, height)
        rect = _rect(np.array([x, y, x + extent[0], y + extent[1]]), width, height)
        # Mostly clutter, sometimes a shape that is not there.
        names = SHAPES if rng.uniform() < 0.2 else CLUTTER
        if rect is not None:
            found.append(_object(names[rng.integers(len(names))], rect, rng.uniform(0.2, 0.45), "gray", rng))
    return [found[position] for position in rng.permutation(len(found))]


def _rect(box: np.ndarray, width: int, height: int) -> list[float] | None:
    """A box cut to the frame and rounded for the file; None when hardly anything is left."""
    x1, y1, x2, y2 = (float(side) for side in np.clip(box, 0, [width, height, width, height]).round(2))
    return [x1, y1, x2, y2] if min(x2 - x1, y2 - y1) >= MIN_SIDE else None


def _object(name: str, rect: list[float], confidence: float, color: str, rng: np.random.Generator) -> dict:
    return {
        "class": name,
        "rect": rect,
        "conf": round(float(confidence), 4),
        "attributes": [color],
        "attr_scores": [round(float(np.clip(confidence + rng.normal(0, 0.05), 0.05, 0.99)), 4)],
    }


def label_map(counts: dict[str, int], attribute_counts: dict[str, int]) -> dict:
    """A label map in the structure of VinVL's dictionary; indices start at 1, 0 is padding.

    Args:
        counts: detections per class.
        attribute_counts: detections per attribute.
    """
    names, attributes = class_names(), sorted((*COLORS, "gray"))
    return {
        "label_to_idx": {name: index for index, name in enumerate(names, 1)},
        "idx_to_label": {str(index): name for index, name in enumerate(names, 1)},
        "attribute_to_idx": {name: index for index, name in enumerate(attributes, 1)},
        "idx_to_attribute": {str(index): name for index, name in enumerate(attributes, 1)},
        "predicate_to_idx": {},
        "idx_to_predicate": {},
        "object_count": {name: counts.get(name, 0) for name in names},
        "attribute_count": {name: attribute_counts.get(name, 0) for name in attributes},
        "predicate_count": {},
    }
