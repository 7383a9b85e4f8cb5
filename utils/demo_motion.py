"""Where the things of a demo clip are at every moment: motions and placement.

Lengths are in units of the frame's short side S; x and y run over the central square, 0 to 1, because the models see
the central square only. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.demo_world import Scene

RADIUS = {1: (0.2, 0.23), 2: (0.18, 0.21), 3: (0.165, 0.185)}  # by number of things; the diameter is 33-46 % of S
PLACEMENTS = 40
MARGIN = 0.01


@dataclass
class Track:
    """One thing over time; arrays have one entry per frame.

    Attributes:
        x, y: centre.
        radius: radius of the circle that the shape fills.
        angle: rotation in radians, clockwise in the picture.
        shown: False where the thing has blinked off.
        anchor: where the string of a swinging thing is tied, else None.
    """

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    shown: np.ndarray
    anchor: tuple[float, float] | None = None


def place(scene: Scene, times: np.ndarray, duration: float, rng: np.random.Generator) -> list[Track]:
    """Tracks of a scene's things, kept from hiding each other for long.

    Of a number of random placements the first in which no pair overlaps in more than a fifth of the frames is taken,
    else the best.
    """
    best, best_overlap = [], np.inf
    for _ in range(PLACEMENTS):
        tracks = [_track(thing.motion, len(scene), times, duration, rng) for thing in scene]
        overlap = _overlap(tracks)
        if overlap < best_overlap:
            best, best_overlap = tracks, overlap
        if overlap <= 0.2:
            break
    return best


def _overlap(tracks: list[Track]) -> float:
    """Largest share of frames, over pairs of things, in which one hides a good part of the other."""
    worst = 0.0
    for i, one in enumerate(tracks):
        for other in tracks[i + 1 :]:
            distance = np.hypot(one.x - other.x, one.y - other.y)
            hides = distance < 0.75 * (one.radius + other.radius)
            worst = max(worst, float(np.mean(hides & one.shown & other.shown)))
    return worst


def _track(motion: str, count: int, times: np.ndarray, duration: float, rng: np.random.Generator) -> Track:
    radius = rng.uniform(*RADIUS[count])
    phase = rng.uniform(0, 2 * np.pi)
    sense = rng.choice([-1.0, 1.0])
    low, high = radius + MARGIN, 1 - radius - MARGIN
    still = np.ones_like(times)
    # Drawn for every motion alike, so that a thing's place does not depend on which motions come before it.
    home_x, home_y = rng.uniform(low, high, 2)
    pace = rng.uniform(0, 1)
    track = Track(
        home_x * still, home_y * still, radius * still, rng.uniform(-0.12, 0.12) * still, np.ones(len(times), bool)
    )
    if motion == "drifting":  # from side to side across the picture
        track.x = 0.5 + (0.5 - low) * np.cos(2 * np.pi * times / (3.0 + 1.2 * pace) + phase)
    elif motion == "bouncing":  # up and down, sharp at the floor
        hop = np.abs(np.sin(np.pi * times / (1.8 + 0.6 * pace) + phase))
        track.y = high - (high - low) * hop
    elif motion == "circling":
        orbit = 0.5 - radius - MARGIN - 0.03 * pace
        turn = phase + sense * 2 * np.pi * times / (2.8 + 0.8 * pace)
        track.x, track.y = 0.5 + orbit * np.cos(turn), 0.5 + orbit * np.sin(turn)
    elif motion == "spinning":
        track.angle = phase + sense * 2 * np.pi * (0.22 + 0.12 * pace) * times
    elif motion == "blinking":
        track.shown = (times / (1.6 + 0.5 * pace) + phase / (2 * np.pi)) % 1 < 0.5
    elif motion == "swinging":  # hanging from a string tied above the middle
        length = 0.48 + 0.06 * pace
        swing = 0.72 * np.sin(2 * np.pi * times / (2.4 + 0.8 * pace) + phase)
        anchor = (0.5 + 0.08 * (home_x - 0.5), 0.04 + 0.1 * home_y)
        track.x, track.y = anchor[0] + length * np.sin(swing), anchor[1] + length * np.cos(swing)
        track.x = np.clip(track.x, low, high)
        track.y = np.minimum(track.y, high)
        track.angle, track.anchor = -swing, anchor
    elif motion in ("approaching", "leaving"):  # larger, or smaller, all the way
        largest = 1.35 * radius
        share = times / duration if motion == "approaching" else 1 - times / duration
        track.radius = largest * (0.3 + 0.7 * share)
        track.x, track.y = (np.clip(home, largest, 1 - largest) * still for home in (home_x, home_y))
    else:
        raise ValueError(f"no motion is called {motion!r}")
    return track
