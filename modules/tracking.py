"""Tracking: links boxes of one class from frame to frame to trajectories, each of one thing.

Numpy and scipy only: the module is also used by processes that must not load PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from modules.boxes import LARGEST_EDGE, bounded, iou_matrix

TRAJECTORY_RULES = ("class", "track")
MAX_GAP = 3  # frames in which a thing may be missed and still be the same thing afterwards
# Weights of the parts of a link's cost, and what a turn or stop and each missed frame add to it. Chosen on clips of
# utils/score_tracking.py other than those it scores by default; none of them has to be exact.
OVERLAP_WEIGHT, DISTANCE_WEIGHT, SIZE_WEIGHT, LOOK_WEIGHT, TURN_COST, GAP_COST = 0.5, 0.5, 1.0, 1.5, 0.4, 0.1
LINK_LIMIT = 3.0  # a dearer link is not made: the box starts a trajectory of its own


@dataclass
class _Track:
    identity: int
    label: int
    frame: int
    box: np.ndarray  # (4,)
    speed: np.ndarray  # (2,) of the centre, per frame
    look: np.ndarray  # (D,) sum of its boxes' appearance

    def follow(self, frame: int, box: np.ndarray, look: np.ndarray) -> None:
        self.speed = (_centres(box) - _centres(self.box)) / (frame - self.frame)
        self.frame, self.box, self.look = frame, box, self.look + look


def track_boxes(
    boxes: np.ndarray, classes: np.ndarray, appearance: np.ndarray | None = None, max_gap: int = MAX_GAP
) -> np.ndarray:
    """Number the boxes of a clip by the thing that they show.

    Frame by frame, the boxes are assigned to the trajectories so far, each to one of its own class, such that the sum
    of link costs is least. A link costs little where the box overlaps or is near the place that the trajectory's last
    speed leads to, or its last place; has the same width and height; and looks alike. A box that no link below
    `LINK_LIMIT` is left for starts a trajectory. The limit is high: frames lie seconds apart, and a box of the same
    class with no rival is most often the same thing. The order of boxes within a frame makes no difference.

    Args:
        boxes: (T, O, 4) x1, y1, x2, y2 in any one unit; frames evenly spaced in time.
        classes: (T, O) integers, 0 for padding.
        appearance: (T, O, D) not negative, for instance attribute scores or a colour histogram, compared by the angle
            between vectors; a vector of zeros looks like anything. None compares no looks.
        max_gap: frames in a row in which a trajectory may have no box.

    Returns:
        (T, O) int64, from 1 in order of first appearance, 0 for padding. No number occurs twice in a frame.
    """
    boxes, classes = bounded(boxes), np.asarray(classes)
    frames, slots = classes.shape
    looks = np.zeros((frames, slots, 0)) if appearance is None else np.asarray(appearance, dtype=np.float64)
    identities = np.zeros((frames, slots), dtype=np.int64)
    tracks: list[_Track] = []
    count = 0
    for frame in range(frames):
        tracks = [track for track in tracks if frame - track.frame <= max_gap + 1]
        rows = _in_fixed_order(boxes[frame], classes[frame])
        links = _links(tracks, frame, boxes[frame, rows], classes[frame, rows], looks[frame, rows])
        for place, row in enumerate(rows):
            box, look = boxes[frame, row], looks[frame, row]
            track = links.get(place)
            if track is None:
                count += 1
                track = _Track(count, int(classes[frame, row]), frame, box, np.zeros(2), look)
                tracks.append(track)
            else:
                track.follow(frame, box, look)
            identities[frame, row] = track.identity
    return identities


def attribute_vectors(described: Sequence[Sequence[Iterable[tuple[str, float]]]], object_count: int) -> np.ndarray:
    """Return the attribute scores of boxes as `appearance` of `track_boxes`.

    Args:
        described: T frames of at most O boxes, each the pairs of attribute name and score of one box.
        object_count: O.

    Returns:
        (T, O, D) float64, one column for each of the D names that occur; a score that is negative or not finite counts
        as 0.
    """
    names = sorted({name for frame in described for pairs in frame for name, _ in pairs})
    columns = {name: column for column, name in enumerate(names)}
    vectors = np.zeros((len(described), object_count, len(names)))
    for frame, listed in enumerate(described):
        for slot, pairs in enumerate(listed):
            for name, score in pairs:
                vectors[frame, slot, columns[name]] += min(score, LARGEST_EDGE) if 0 < score < math.inf else 0.0
    return vectors


def summed_by_track(tracks: np.ndarray, confidences: np.ndarray) -> dict[int, float]:
    """Return identity -> summed confidence of its boxes, in order of first appearance; both arguments are (T, O)."""
    sums = np.bincount(tracks.ravel(), weights=np.asarray(confidences, dtype=np.float64).ravel())
    return {identity: float(sums[identity]) for identity in range(1, len(sums))}


def _in_fixed_order(boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Slots of a frame's boxes without padding, sorted by what they hold."""
    order = np.lexsort((*boxes.T[::-1], classes))
    return order[classes[order] != 0]


def _links(
    tracks: Sequence[_Track], frame: int, boxes: np.ndarray, classes: np.ndarray, looks: np.ndarray
) -> dict[int, _Track]:
    """Row of a box -> the trajectory that it continues."""
    if not tracks or not len(boxes):
        return {}
    costs = np.minimum(_costs(tracks, frame, boxes, classes, looks), LINK_LIMIT)
    rows, columns = linear_sum_assignment(costs)
    return {
        int(column): tracks[row] for row, column in zip(rows, columns, strict=True) if costs[row, column] < LINK_LIMIT
    }


def _costs(
    tracks: Sequence[_Track], frame: int, boxes: np.ndarray, classes: np.ndarray, looks: np.ndarray
) -> np.ndarray:
    """(tracks, boxes) cost of each link, infinite between classes."""
    last = np.stack([track.box for track in tracks])
    gaps = np.array([frame - track.frame for track in tracks])
    shift = np.stack([track.speed for track in tracks]) * gaps[:, None]
    moved = last + np.tile(shift, 2)
    motion = np.minimum(_motion_costs(moved, boxes), _motion_costs(last, boxes) + TURN_COST)
    size = np.abs(np.log(_sides(last)[:, None] / _sides(boxes))).sum(-1)
    look = 1 - _cosine(np.stack([track.look for track in tracks]), looks)
    cost = motion + SIZE_WEIGHT * size + LOOK_WEIGHT * look + GAP_COST * (gaps[:, None] - 1)
    return np.where(np.array([track.label for track in tracks])[:, None] == classes, cost, np.inf)


def _motion_costs(expected: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M, N) cost of the lack of overlap and the distance of centres, between M expected boxes and N found ones."""
    scale = (_sides(expected).prod(1)[:, None] * _sides(boxes).prod(1)) ** 0.25
    distance = np.linalg.norm(_centres(expected)[:, None] - _centres(boxes), axis=-1) / scale
    return OVERLAP_WEIGHT * (1 - iou_matrix(expected, boxes)) + DISTANCE_WEIGHT * distance / (1 + distance)


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _sides(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)


def _cosine(looks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(M, N) cosine of the angle between vectors; 1 where either is without length."""
    lengths = np.linalg.norm(looks, axis=1)[:, None] * np.linalg.norm(others, axis=1)
    return np.divide(looks @ others.T, lengths, out=np.ones_like(lengths), where=lengths > 0)
