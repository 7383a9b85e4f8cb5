"""Boxes of one class linked over frames: crossing, gaps, looks, and what the result must not depend on."""

from __future__ import annotations

import numpy as np
import pytest

from modules.tracking import attribute_vectors, summed_by_track, track_boxes

Box = tuple[float, float, float, float] | None


def clip(*things: list[Box]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (T, O, 4) and classes (T, O) with a thing per slot, all of class 1; None is a frame without its box."""
    boxes = np.array([[box or (-1,) * 4 for box in frame] for frame in zip(*things, strict=True)], dtype=np.float32)
    return boxes, np.where(boxes[..., 0] == -1, 0, 1)


def at(x: float, y: float = 50, side: float = 20) -> tuple[float, float, float, float]:
    return x, y, x + side, y + side


def moving(start: float, step: float, frames: int = 6, y: float = 50) -> list[Box]:
    return [at(start + step * frame, y) for frame in range(frames)]


def is_one_per_slot(tracks: np.ndarray) -> bool:
    """Whether each slot has one number in all its frames, and each slot another."""
    numbers = [set(slot[slot != 0].tolist()) for slot in tracks.T]
    return all(len(own) == 1 for own in numbers) and len(set.union(*numbers)) == len(numbers)


def shuffled(rng: np.random.Generator, *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """A random order of slots in each frame, (T, O), and the arrays (T, O, ...) in it."""
    frames, slots = arrays[0].shape[:2]
    order = np.array([rng.permutation(slots) for _ in range(frames)])
    return order, [array[np.arange(frames)[:, None], order] for array in arrays]


@pytest.mark.parametrize(
    "things",
    [
        (moving(100, 8), moving(130, -8)),  # side by side: they move apart or cross
        (moving(0, 30), moving(150, -30)),  # they pass each other; consecutive boxes do not overlap
        (moving(0, 30), moving(160, -30)),  # at one moment in almost the same place
        (moving(100, 25, y=10), moving(100, -15, y=200), moving(100, 0, y=110)),
    ],
)
def test_things_that_part_or_cross_are_trajectories_of_their_own(things: tuple[list[Box], ...]):
    tracks = track_boxes(*clip(*things))
    assert tracks.dtype == np.int64 and is_one_per_slot(tracks)
    assert sorted(tracks[0]) == list(range(1, len(things) + 1))


def test_looks_decide_where_places_do_not():
    """Two things of one size are only ever seen in each other's place."""
    boxes, classes = clip([at(0), at(100), at(0), at(100)], [at(100), at(0), at(100), at(0)])
    looks = np.tile(np.array([[1.0, 0.1], [0.2, 1.0]]), (4, 1, 1))
    assert is_one_per_slot(track_boxes(boxes, classes, looks))
    assert not is_one_per_slot(track_boxes(boxes, classes)), "without looks, standing still is likelier"
    without = looks.copy()
    without[2] = 0
    assert track_boxes(boxes, classes, without)[1].tolist() == track_boxes(boxes, classes, looks)[1].tolist()


def test_missed_detections_are_bridged_up_to_the_gap():
    walking, standing = moving(0, 20, 8), [at(60, 120)] * 8
    walking[3] = walking[4] = None
    boxes, classes = clip(walking, list(standing))
    tracks = track_boxes(boxes, classes)
    assert is_one_per_slot(tracks) and tracks[3, 0] == tracks[4, 0] == 0
    assert is_one_per_slot(track_boxes(boxes, classes, max_gap=2))
    cut = track_boxes(boxes, classes, max_gap=1)
    assert len(set(cut[:, 0].tolist()) - {0}) == 2 and len(set(cut[:, 1].tolist())) == 1


def test_a_box_without_a_likely_place_starts_a_trajectory():
    boxes, classes = clip([at(0, side=10), at(400, 300, side=150), at(405, 300, side=150)])
    assert track_boxes(boxes, classes).tolist() == [[1], [2], [2]]


def test_classes_are_never_joined_and_a_third_box_is_new():
    boxes, classes = clip([at(0)] * 3, [at(0)] * 3, [None, at(200), at(200)])
    classes[:, 1] *= 2
    tracks = track_boxes(boxes, classes)
    assert tracks.tolist() == [[1, 2, 0], [1, 2, 3], [1, 2, 3]]
    boxes, classes = clip([at(0)] * 3)
    assert track_boxes(boxes, classes * [[1], [2], [1]]).tolist() == [[1], [2], [1]]


def test_overlap_counts_beside_the_distance_of_centres():
    """A bar slides along itself; a like bar appears beside its old place, nearer but without overlap."""
    boxes, classes = clip([(0, 50, 100, 60), (30, 50, 130, 60)], [None, (0, 70, 100, 80)])
    assert track_boxes(boxes, classes).tolist() == [[1, 0], [1, 2]]


@pytest.mark.parametrize("seed", range(10))
def test_order_of_boxes_and_of_runs_makes_no_difference(seed: int):
    rng = np.random.default_rng(seed)
    corners, sides = rng.uniform(0, 200, (8, 5, 2)), rng.uniform(10, 80, (8, 5, 2))
    boxes, classes = np.concatenate([corners, corners + sides], -1), rng.integers(0, 3, (8, 5))
    looks = rng.random((8, 5, 3)) * rng.integers(0, 2, (8, 5, 1))
    tracks = track_boxes(boxes, classes, looks)
    np.testing.assert_array_equal(track_boxes(boxes, classes, looks), tracks)
    order, mixed = shuffled(rng, boxes, classes, looks)
    np.testing.assert_array_equal(track_boxes(*mixed), np.take_along_axis(tracks, order, 1))
    np.testing.assert_array_equal(tracks != 0, classes != 0)
    assert all(len(set(row[row != 0])) == (row != 0).sum() for row in tracks), "a number occurs once in a frame"
    numbers = tracks[tracks != 0]
    firsts = [np.flatnonzero((tracks == one).any(1))[0] for one in range(1, numbers.max() + 1)]
    assert set(numbers) == set(range(1, numbers.max() + 1)) and firsts == sorted(firsts)


def test_tracks_do_not_depend_on_the_unit_of_the_boxes():
    boxes, classes = clip(moving(0, 30), moving(150, -30))
    np.testing.assert_array_equal(track_boxes(boxes * 7, classes), track_boxes(boxes, classes))


@pytest.mark.parametrize("frames", [0, 3])
def test_a_clip_without_boxes_has_no_trajectories(frames: int):
    tracks = track_boxes(np.full((frames, 2, 4), -1.0), np.zeros((frames, 2), int))
    assert tracks.shape == (frames, 2) and not tracks.any()
    assert summed_by_track(tracks, np.zeros((frames, 2))) == {}


def test_confidences_are_summed_by_trajectory_in_order_of_appearance():
    sums = summed_by_track(np.array([[2, 1], [0, 2]]), np.array([[0.5, 0.25], [0.0, 0.75]]))
    assert list(sums.items()) == [(1, 0.25), (2, 1.25)]


def test_attribute_vectors_have_a_column_per_name():
    described = [[[("red", 0.5), ("tall", 0.2)], []], [[("red", -1.0), ("young", float("nan"))]]]
    vectors = attribute_vectors(described, 3)
    assert vectors.shape == (2, 3, 3)
    assert vectors[0, 0].tolist() == [0.5, 0.2, 0.0] and not vectors[0, 1:].any() and not vectors[1].any()
    assert attribute_vectors([[], []], 2).shape == (2, 2, 0)


def test_boxes_and_scores_of_any_size_overflow_nothing():
    boxes = np.array([[[-1e308, -1e308, 1e308, 1e308]], [[0, 0, 1e308, 1e308]], [[0, 0, 9, 9]]])
    looks = attribute_vectors([[[("red", 1e308), ("red", 1e308)]]] * 3, 1)
    with np.errstate(all="raise"):
        assert track_boxes(boxes, np.ones((3, 1), dtype=np.int64), looks).shape == (3, 1)
