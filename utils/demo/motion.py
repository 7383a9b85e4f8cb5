"""Motions and placement of the things in a demo clip.

Lengths are in units of the frame's short side S; x and y run over the central square, 0 to 1, because the models see
the central square only. Times are in seconds.

The central square is a board of 4 x 4 cells, the patches of the demo's CLIP, and things step from cell to cell. A
vision transformer trained from scratch for minutes learns what fills a patch; of larger things that lie anywhere it
learns the colours, half of the shapes and hardly any motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.demo.world import Scene

CELLS = 4  # along each side of the central square
STEP = 0.5  # seconds that a thing stays in a cell
RADIUS = 0.118  # nearly fills a cell
PLACEMENTS = 40
STRETCH = 1.45  # width to height of what drifts, height to width of what bounces
DIMMED = 0.2  # brightness of what has blinked off
SIZES = (0.45, 0.6, 0.75, 0.9, 1.05, 1.2)  # of what grows, as shares of RADIUS, evenly over the clip
TILT = np.pi / 4  # of what swings to a side; per step, of what spins


@dataclass
class Track:
    """One thing over time; arrays have one entry per frame.

    Attributes:
        x, y: centre.
        radius: (F, 2), half the width and half the height.
        angle: rotation in radians, clockwise in the picture.
        brightness: 1, less where the thing has blinked off.
        anchor: where the string of a swinging thing is tied, else None.
        orbit: x, y, radius of the rail that a circling thing follows, else None.
        shelf: whether the thing stands on a shelf.
    """

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    brightness: np.ndarray
    anchor: tuple[float, float] | None = None
    orbit: tuple[float, float, float] | None = None
    shelf: bool = False


def place(scene: Scene, times: np.ndarray, duration: float, rng: np.random.Generator) -> list[Track]:
    """Tracks of a scene's things, kept from hiding each other for long: the best of a number of random placements."""
    best, best_overlap = [], np.inf
    for _ in range(PLACEMENTS):
        tracks = [_track(thing.motion, times, duration, rng) for thing in scene]
        overlap = _overlap(tracks)
        if overlap < best_overlap:
            best, best_overlap = tracks, overlap
        if overlap == 0:
            break
    return best


def _overlap(tracks: list[Track]) -> float:
    """Largest share of frames, over pairs of things, in which one hides a good part of the other."""
    worst = 0.0
    for i, one in enumerate(tracks):
        for other in tracks[i + 1 :]:
            distance = np.hypot(one.x - other.x, one.y - other.y)
            worst = max(worst, float(np.mean(distance < 1.5 * RADIUS)))
    return worst


def _track(motion: str, times: np.ndarray, duration: float, rng: np.random.Generator) -> Track:
    # Drawn for every motion alike, so that a thing's place does not depend on which motions come before it.
    step = np.floor(times / STEP + 1e-6).astype(int) + rng.integers(8)
    column, row = rng.integers(CELLS, size=2)
    sense = rng.choice([-1, 1])
    still = np.ones_like(times)
    track = Track(_cell(column) * still, _cell(row) * still, RADIUS * np.ones((len(times), 2)), 0 * still, still)
    if motion == "drifting":  # from side to side
        track.x = _cell(_to_and_fro(step))
        track.radius[:, 1] /= STRETCH
    elif motion == "bouncing":  # up and down
        track.y = _cell(_to_and_fro(step))
        track.radius[:, 0] /= STRETCH
    elif motion == "circling":  # on a round rail through four cells
        x, y = (_cell(min(place, CELLS - 2)) + 0.5 / CELLS for place in (column, row))
        turn = np.pi / 2 * (sense * step + 0.5)
        reach = np.hypot(0.5, 0.5) / CELLS
        track.x, track.y, track.orbit = x + reach * np.cos(turn), y + reach * np.sin(turn), (x, y, reach)
    elif motion == "spinning":  # never upright
        track.angle = TILT * (sense * step + 0.5)
    elif motion == "blinking":
        track.brightness = np.where(step % 2 == 0, 1.0, DIMMED)
    elif motion == "swinging":  # hanging from a string
        middle, lowest = min(max(column, 1), CELLS - 2), max(row, 2)
        side = np.array([-1, 0, 1, 0])[step % 4]
        track.x, track.y = _cell(middle + side), _cell(lowest - np.abs(side))
        track.angle, track.anchor = -TILT * side, (_cell(middle), _cell(lowest - 2))
    elif motion == "growing":
        sizes = np.array(SIZES)[np.minimum((times / duration * len(SIZES)).astype(int), len(SIZES) - 1)]
        track.radius *= sizes[:, None]
    elif motion == "resting":
        track.shelf = True
    else:
        raise ValueError(f"no motion is called {motion!r}")
    return track


def _cell(index: Any) -> Any:
    """Centre of a column or row, of a number or an array of them."""
    return (index + 0.5) / CELLS


def _to_and_fro(step: np.ndarray) -> np.ndarray:
    """0, 1, ... CELLS - 1, CELLS - 2, ... 1, 0, and again."""
    period = 2 * (CELLS - 1)
    return (CELLS - 1) - np.abs((CELLS - 1) - step % period)
