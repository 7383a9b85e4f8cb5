"""Learning-rate schedules as functions of progress x = step / t_total, where the first update has step 0."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float, float], float]


def warmup_cosine(x: float, warmup: float = 0.1) -> float:
    """x / warmup, then half a cosine of all progress: from 1 to 0.976 where a warm-up of 0.1 ends; rises for x > 1."""
    return x / warmup if x < warmup else 0.5 * (1.0 + math.cos(math.pi * x))


def warmup_linear(x: float, warmup: float = 0.1) -> float:
    """x / warmup, then a line from 1 to 0 at x = 1, and 0 beyond."""
    return x / warmup if x < warmup else max((x - 1.0) / (warmup - 1.0), 0.0)


def warmup_constant(x: float, warmup: float = 0.1) -> float:
    """x / warmup, then 1."""
    return x / warmup if x < warmup else 1.0


SCHEDULES: dict[str, Schedule] = {
    "warmup_cosine": warmup_cosine,
    "warmup_linear": warmup_linear,
    "warmup_constant": warmup_constant,
}
