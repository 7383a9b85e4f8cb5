"""Retrieval metrics from ranks."""

from __future__ import annotations

import numpy as np


def ranks_of_diagonal(similarity: np.ndarray) -> np.ndarray:
    """Rank (from 0) of entry i in row i of an (N, N) matrix. Ties count against it: an equal score ranks before it."""
    right = np.diagonal(similarity)[:, None]
    return (similarity >= right).sum(axis=1) - 1


def retrieval_metrics(ranks: np.ndarray) -> dict[str, float]:
    """R1, R5, R10 in percent, RSum, and median and mean rank (from 1) of ranks (from 0)."""
    recalls = {f"R{k}": 100.0 * float(np.mean(ranks < k)) for k in (1, 5, 10)}
    return {
        **recalls,
        "RSum": sum(recalls.values()),
        "MedianR": float(np.median(ranks)) + 1,
        "MeanR": float(np.mean(ranks)) + 1,
    }
