"""Uncertainty of a share, and of the difference between two runs on the same queries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

DRAWS_PER_CHUNK = 1 << 22  # bounds the memory, whatever the numbers of queries and samples


class Interval(NamedTuple):
    """Mean difference, its 95 % percentile interval, and the share (0..1) of bootstrap samples above 0."""

    difference: float
    low: float
    high: float
    above_zero: float


def paired_bootstrap(a: np.ndarray, b: np.ndarray, samples: int = 10_000, seed: int = 0) -> Interval:
    """Bootstrap of mean(a) - mean(b) over queries (Efron and Tibshirani 1993, percentile interval).

    A bootstrap sample draws N queries with replacement and takes both runs' values of each, so that what is hard for
    both runs does not widen the interval. Queries count as independent: where several captions describe one video the
    true interval is wider.

    Args:
        a, b: (N,) finite values of the two runs for the same queries.
        samples: number of bootstrap samples.
        seed: of numpy's default generator; the same seed gives the same interval.

    Raises:
        ValueError: the shapes differ, or there are no queries or samples, or a value is not finite.
    """
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"values of {a.shape} and {b.shape} queries: they must be (N,) and the same queries")
    if samples < 1:
        raise ValueError(f"{samples} bootstrap samples: at least 1")
    differences = a.astype(np.float64) - b.astype(np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(differences))} of {a.size} differences are not finite")
    means = _bootstrap_means(differences, samples, np.random.default_rng(seed))
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(differences.mean()), float(low), float(high), float(np.mean(means > 0)))


def _bootstrap_means(values: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) means of as many values, drawn with replacement."""
    count = len(values)
    distinct, occurrences = np.unique(values, return_counts=True)
    # How often each distinct value is drawn is multinomial: for hits and misses, three numbers instead of N draws.
    few = 40 * len(distinct) < count  # one of these numbers costs about 40 draws
    per_chunk = max(1, DRAWS_PER_CHUNK // (len(distinct) if few else count))
    sums = np.empty(samples)
    for start in range(0, samples, per_chunk):
        part = sums[start : start + per_chunk]
        if few:
            part[:] = rng.multinomial(count, occurrences / count, size=len(part)) @ distinct
        else:
            part[:] = values[rng.integers(count, size=(len(part), count), dtype=np.int32)].sum(axis=1)
    return sums / count


def ratio_interval(top: np.ndarray, bottom: np.ndarray, samples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Bootstrap of sum(top) / sum(bottom) over clips: 95 % percentile interval.

    A bootstrap sample draws V clips with replacement, so that what belongs to one clip stays together. One whose
    `bottom` is 0 is left out.

    Args:
        top, bottom: (V,) of each clip; `bottom` is not 0 everywhere.
        samples, seed: as for `paired_bootstrap`.

    Raises:
        ValueError: the shapes differ, there are no samples, or the whole is 0.
    """
    if top.shape != bottom.shape or top.ndim != 1 or samples < 1 or not bottom.sum():
        raise ValueError(f"no share of {top.shape} in {bottom.shape} clips of {bottom.sum():g}, {samples} samples")
    rng = np.random.default_rng(seed)
    count = len(top)
    per_chunk = max(1, DRAWS_PER_CHUNK // count)
    sums = []
    for start in range(0, samples, per_chunk):
        drawn = rng.integers(count, size=(min(per_chunk, samples - start), count), dtype=np.int32)
        sums.append(np.stack([top[drawn].sum(1), bottom[drawn].sum(1)]))
    tops, bottoms = np.concatenate(sums, axis=1)
    low, high = np.percentile(tops[bottoms > 0] / bottoms[bottoms > 0], (2.5, 97.5))
    return float(low), float(high)
