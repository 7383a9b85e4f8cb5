"""Bootstrap intervals of the difference between two runs."""

from __future__ import annotations

import numpy as np
import pytest

from utils.evaluation import bootstrap
from utils.evaluation.bootstrap import paired_bootstrap, ratio_interval


def test_equal_runs_differ_by_exactly_nothing():
    values = np.random.default_rng(0).random(50)
    assert paired_bootstrap(values, values, samples=500) == (0, 0, 0, 0)


@pytest.mark.parametrize("distinct", [True, False])
def test_interval_is_the_normal_one_for_many_queries(distinct: bool):
    """Both ways of drawing: query by query, and the number of draws of each of few distinct values."""
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=2000), rng.normal(size=2000)) if distinct else rng.integers(0, 2, (2, 2000))
    found = paired_bootstrap(a, b, samples=4000, seed=3)
    error = (a - b).std() / np.sqrt(2000)
    assert found.difference == pytest.approx((a - b).mean())
    assert found.low == pytest.approx((a - b).mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx((a - b).mean() + 1.96 * error, abs=0.1 * error)


def test_interval_covers_the_true_difference_in_about_95_of_100_experiments():
    rng = np.random.default_rng(2)
    covered = 0
    for experiment in range(300):
        hard = rng.random(120) < 0.5  # for both runs
        a, b = (~hard & (rng.random(120) < chance) for chance in (0.9, 0.7))  # true difference 0.1
        found = paired_bootstrap(a, b, samples=400, seed=experiment)
        covered += found.low <= 0.1 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_pairing_takes_out_what_is_hard_for_both():
    level = 100 * np.random.default_rng(4).random(500)
    found = paired_bootstrap(level + 1, level, samples=200)
    assert found[:3] == pytest.approx((1, 1, 1)) and found.above_zero == 1


def test_result_depends_on_the_seed_and_not_on_the_chunks(monkeypatch: pytest.MonkeyPatch):
    a, b = np.random.default_rng(5).normal(size=(2, 300))
    whole = paired_bootstrap(a, b, 400, seed=1), paired_bootstrap(a > 0, b > 0, 400, seed=1)
    assert paired_bootstrap(a, b, 400, seed=2) != whole[0]
    monkeypatch.setattr(bootstrap, "DRAWS_PER_CHUNK", 1000)
    assert (paired_bootstrap(a, b, 400, seed=1), paired_bootstrap(a > 0, b > 0, 400, seed=1)) == whole


def test_values_that_cannot_be_compared_are_errors():
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        paired_bootstrap(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="1 of 3 differences are not finite"):
        paired_bootstrap(np.array([0, np.nan, 1]), np.zeros(3))
    with pytest.raises(ValueError, match="0 bootstrap samples"):
        paired_bootstrap(np.zeros(3), np.zeros(3), samples=0)


def test_the_interval_of_a_share_is_that_of_clips_not_of_their_things():
    """Things of one clip are right together: drawn one by one they would seem far surer."""
    things = np.full(400, 3.0)
    right = things * (np.arange(400) % 2)
    low, high = ratio_interval(right, things, samples=4000)
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.01) and high - low == pytest.approx(2 * 1.96 * 0.025, rel=0.1)
    assert ratio_interval(right, things, samples=4000) == (low, high)


def test_the_interval_of_a_share_follows_clips_of_different_weight():
    top, bottom = np.array([1.0, 0.0, 4.0]), np.array([1.0, 0.0, 4.0])
    assert ratio_interval(top, bottom, samples=100) == (1, 1)  # samples of the empty clip alone are left out
    for broken in (np.zeros(3), np.ones(2)):
        with pytest.raises(ValueError, match="no share"):
            ratio_interval(top, broken)
