"""Retrieval metrics from a similarity matrix."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.golden import DATA
from utils.metrics import ranks_of_diagonal, retrieval_metrics


def test_known_ranks_give_known_numbers():
    metrics = retrieval_metrics(np.array([0, 0, 4, 5, 9, 10]))
    assert metrics == pytest.approx(
        {"R1": 100 / 3, "R5": 50, "R10": 500 / 6, "RSum": 100 / 3 + 50 + 500 / 6, "MedianR": 5.5, "MeanR": 17 / 3}
    )


def test_a_perfect_matrix_and_its_opposite():
    assert ranks_of_diagonal(np.eye(7)).tolist() == [0] * 7
    assert ranks_of_diagonal(-np.eye(7)).tolist() == [6] * 7


def test_ties_count_against_the_right_one():
    assert ranks_of_diagonal(np.ones((100, 100))).tolist() == [99] * 100
    scores = np.array([[2.0, 2.0, 1.0], [0.0, 5.0, 0.0], [3.0, 1.0, 3.0]])
    assert ranks_of_diagonal(scores).tolist() == [1, 0, 1]


def test_rows_and_columns_of_the_released_example():
    """The released code's own numbers; the matrix has no ties, which that code counts twice."""
    square = np.load(DATA / "extra-seed0.npz")["metrics.square"]
    expected = json.loads((DATA / "extra-seed0.json").read_text())["metrics"]
    assert ranks_of_diagonal(square).tolist() == expected["square_rows_ranks"]
    for matrix, name in ((square, "square_rows"), (square.T, "square_columns")):
        metrics = retrieval_metrics(ranks_of_diagonal(matrix))
        assert {key: metrics[key] for key in expected[name]} == pytest.approx(expected[name])
