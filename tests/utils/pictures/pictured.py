"""A clip of the demo world, and a text about it, for what is drawn of both."""

from __future__ import annotations

from pathlib import Path

from tests.world import World

TEXT = "a triangle is spinning and a square is bouncing"


def clip_with_boxes(world: World) -> Path:
    """A test clip of 86x64 pixels and 32 frames, with an object file."""
    return next(path for path in sorted(world.msrvtt.glob("videos/*.mp4")) if world.truth("msrvtt")[path.stem]["boxes"])
