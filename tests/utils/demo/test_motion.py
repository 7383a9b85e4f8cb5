"""Where the things of a demo clip are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.utils.demo.small_world import read_json
from utils.demo.motion import CELLS, DIMMED, RADIUS, SIZES, Track, place
from utils.demo.world import MOTIONS, Thing, make_scene, sample_scene

TIMES = np.arange(24) / 4  # of a clip of 6 s
CENTRES = (np.arange(CELLS) + 0.5) / CELLS


def test_things_stay_within_the_central_square(demo_world: Path):
    for truth in read_json(demo_world / "msrvtt/truth.json")["videos"].values():
        width, height = truth["size"]
        boxes = np.array([box for frame in truth["boxes"] for box in frame if box is not None])
        assert boxes[:, 0].min() >= (width - height) / 2 - 3 and boxes[:, 2].max() <= (width + height) / 2 + 3


def tracks_of(motion: str, count: int = 8) -> list[Track]:
    """A thing alone, with this motion, in several clips."""
    scene = make_scene([Thing("red", "star", motion)])
    return [place(scene, TIMES, 6.0, np.random.default_rng(seed))[0] for seed in range(count)]


def still(values: np.ndarray) -> bool:
    return bool(np.ptp(values) < 1e-9)


def test_what_drifts_goes_from_side_to_side_and_is_wide_what_bounces_up_and_down_and_high():
    for track in tracks_of("drifting"):
        assert still(track.y) and sorted(set(track.x.round(9))) == CENTRES.tolist()
        assert (track.radius[:, 0] > track.radius[:, 1]).all()
    for track in tracks_of("bouncing"):
        assert still(track.x) and sorted(set(track.y.round(9))) == CENTRES.tolist()
        assert (track.radius[:, 1] > track.radius[:, 0]).all()


def test_steps_are_to_the_next_cell_and_half_a_second_apart():
    for track in tracks_of("drifting"):
        assert (track.x[0::2] == track.x[1::2]).all(), "four frames a second"
        np.testing.assert_allclose(np.abs(np.diff(track.x[::2])), 1 / CELLS)


def test_what_circles_stays_on_its_rail():
    senses = set()
    for track in tracks_of("circling"):
        assert track.orbit is not None
        x, y, reach = track.orbit
        np.testing.assert_allclose(np.hypot(track.x - x, track.y - y), reach)
        assert len({*zip(track.x.round(6), track.y.round(6), strict=True)}) == 4
        turn = np.unwrap(np.arctan2(track.y - y, track.x - x))
        senses.add(float(np.sign(turn[-1] - turn[0])))
    assert senses == {-1.0, 1.0}


def test_what_spins_is_never_upright():
    for track in tracks_of("spinning"):
        assert still(track.x) and still(track.y)
        steps = track.angle[::2] / (np.pi / 4)
        np.testing.assert_allclose(np.abs(np.diff(steps)), 1)
        np.testing.assert_allclose(steps % 1, 0.5)


def test_what_blinks_is_bright_and_dim_in_turn():
    for track in tracks_of("blinking"):
        assert sorted(set(track.brightness)) == [DIMMED, 1.0]
        assert (track.brightness[0:-2:2] != track.brightness[2::2]).all() and still(track.x)


def test_what_swings_hangs_from_a_point_above_it():
    for track in tracks_of("swinging"):
        assert track.anchor is not None
        x, y = track.anchor
        assert (track.y > y).all() and set(np.sign((track.x - x).round(9))) == {-1.0, 0.0, 1.0}
        assert (np.sign(track.angle.round(9)) == -np.sign((track.x - x).round(9))).all(), "tilted with its string"
        assert track.y[np.isclose(track.x, x)].min() > track.y[~np.isclose(track.x, x)].max()


def test_what_grows_does_so_from_the_first_to_the_last_frame_and_what_rests_does_nothing():
    for track in tracks_of("growing"):
        assert (np.diff(track.radius[:, 0]) >= 0).all() and len(set(track.radius[:, 0])) == len(SIZES)
        np.testing.assert_allclose(track.radius[[0, -1], 0], [SIZES[0] * RADIUS, SIZES[-1] * RADIUS])
    for track in tracks_of("resting"):
        assert track.shelf and all(map(still, (track.x, track.y, track.radius, track.angle, track.brightness)))


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_is_told_by_what_changes_and_by_what_stands_beside_it(motion: str):
    """Of all frames in any order: where it is, how it is stretched, turned, lit or sized, what it hangs from or on."""
    [track] = tracks_of(motion, 1)
    changes = [not still(values) for values in (track.x, track.y, track.radius[:, 0], track.angle, track.brightness)]
    beside = [track.anchor is not None, track.orbit is not None, track.shelf]
    expected = {
        "drifting": ([True, False, False, False, False], [False, False, False]),
        "bouncing": ([False, True, False, False, False], [False, False, False]),
        "circling": ([True, True, False, False, False], [False, True, False]),
        "spinning": ([False, False, False, True, False], [False, False, False]),
        "blinking": ([False, False, False, False, True], [False, False, False]),
        "swinging": ([True, True, False, True, False], [True, False, False]),
        "growing": ([False, False, True, False, False], [False, False, False]),
        "resting": ([False, False, False, False, False], [False, False, True]),
    }
    assert (changes, beside) == expected[motion]


def test_things_are_kept_from_hiding_each_other():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        one, other = place(sample_scene(rng, 2), TIMES, 6.0, rng)
        assert np.hypot(one.x - other.x, one.y - other.y).min() >= 1.5 * RADIUS


def test_a_motion_that_there_is_not_is_an_error():
    with pytest.raises(ValueError, match="no motion is called 'flying'"):
        tracks_of("flying")
