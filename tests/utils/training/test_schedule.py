"""Learning-rate schedules as functions of progress, and against the released optimiser's rates."""

from __future__ import annotations

import math

import pytest

from tests.utils.training.test_optimizer import CONSTANTS
from utils.training.schedule import SCHEDULES, warmup_constant, warmup_cosine, warmup_linear


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_the_released_optimiser(name: str):
    """Of 25 steps with a schedule laid out over 20, each for two groups with rates of their own."""
    rates = [group["lr"] for group in CONSTANTS["groups"]]
    for step, released in enumerate(CONSTANTS["lr"][name]):
        share = SCHEDULES[name](step / CONSTANTS["t_total"], CONSTANTS["warmup"])
        assert [rate * share for rate in rates] == pytest.approx(released, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES.values())
def test_warm_up_rises_from_0_in_a_line(schedule):
    assert [schedule(x, 0.2) for x in (0.0, 0.05, 0.1, 0.15)] == pytest.approx([0, 0.25, 0.5, 0.75])


def test_without_warm_up_the_first_rate_is_the_peak():
    assert warmup_cosine(0.0, 0.0) == warmup_linear(0.0, 0.0) == warmup_constant(0.0, 0.0) == 1


def test_the_cosine_is_of_all_progress_and_does_not_start_anew_after_the_warm_up():
    assert warmup_cosine(0.1, 0.1) == pytest.approx(0.9755, abs=1e-4)
    assert warmup_cosine(0.5, 0.1) == pytest.approx(0.5) and warmup_cosine(1.0, 0.1) == pytest.approx(0)
    assert warmup_cosine(1.5, 0.1) == pytest.approx(0.5 * (1 + math.cos(1.5 * math.pi))), "rises beyond the end"


def test_the_line_falls_from_1_at_the_end_of_the_warm_up_to_0_and_stays_there():
    assert [warmup_linear(x, 0.2) for x in (0.2, 0.6, 1.0, 1.5)] == pytest.approx([1, 0.5, 0, 0])


def test_the_constant_stays_at_the_peak():
    assert {warmup_constant(x, 0.1) for x in (0.1, 0.5, 1.0, 2.0)} == {1.0}
