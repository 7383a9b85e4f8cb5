"""Are two runs different on the same queries? Metric by metric, from their metrics.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from modules.foreign_text import read_json
from utils.evaluation.bootstrap import Interval, paired_bootstrap

DIRECTIONS = ("t2v", "v2t")
MAX_VALUE = 2**31  # of ranks and scores
# Value of each query, whose mean is the metric, from its rank (from 0).
RANK_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "R1": lambda ranks: 100.0 * (ranks < 1),
    "R5": lambda ranks: 100.0 * (ranks < 5),
    "R10": lambda ranks: 100.0 * (ranks < 10),
    "MeanR": lambda ranks: ranks + 1.0,
}


class Answers(NamedTuple):
    """One list of queries and a run's values of each: metric -> (N,), percentage points or ranks from 1."""

    ids: list[Any]
    values: dict[str, np.ndarray]


class Comparison(NamedTuple):
    """A metric of two runs on the same `queries`, and what the bootstrap says of their difference."""

    metric: str
    queries: int
    a: float
    b: float
    interval: Interval


def read_answers(path: Path) -> dict[str, Answers]:
    """Queries and values of a metrics.json: under "t2v" and "v2t" for retrieval, under "items" for right or wrong
    answers and for scores of captions.

    Raises:
        ValueError: the file is not JSON, or lacks the values of single queries, or they are not sound.
    """
    results = _mapping(read_json(path))
    if "correct" in results:
        correct = _column(path, '"correct"', results["correct"], bool)
        ids = _ids(path, '"items"', results.get("items"), len(correct))
        return {"items": Answers(ids, {"accuracy": 100.0 * correct})}
    if scores := _mapping(results.get("scores")):
        columns = {name: _column(path, f'"scores" of "{name}"', entries, float) for name, entries in scores.items()}
        count = len(next(iter(columns.values())))
        if any(len(column) != count for column in columns.values()):
            raise ValueError(f'{path}: the lists of "scores" have different lengths')
        return {"items": Answers(_ids(path, '"items"', results.get("items"), count), columns)}
    ranks, queries = (_mapping(results.get(key)) for key in ("ranks", "queries"))
    answers = {}
    for way in DIRECTIONS:
        if way in ranks:
            column = _column(path, f'"ranks" of "{way}"', ranks[way], int)
            ids = _ids(path, f'"queries" of "{way}"', queries.get(way), len(column))
            answers[way] = Answers(ids, {f"{way}_{name}": value(column) for name, value in RANK_METRICS.items()})
    if not answers:
        raise ValueError(
            f'{path} has neither "ranks" (retrieval) nor "correct" (multiple choice, question answering) nor "scores" '
            "(captioning): give the metrics.json of an evaluation"
        )
    return answers


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _column(path: Path, name: str, entries: Any, kind: type[float]) -> np.ndarray:
    """A list of ranks, of scores, or of true and false as an array."""
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: {name} must be a list that is not empty")
    for place, entry in enumerate(entries):
        if type(entry) is not kind or not 0 <= entry <= MAX_VALUE:
            wanted = {bool: "true or false", int: "a rank from 0", float: "a score from 0"}[kind]
            raise ValueError(f"{path}: {name} has {repr(entry)[:40]} at place {place}, not {wanted}")
    return np.array(entries)


def _ids(path: Path, name: str, entries: Any, count: int) -> list[Any]:
    if not isinstance(entries, list) or len(entries) != count:
        found = f"{len(entries)} entries" if isinstance(entries, list) else "no list"
        raise ValueError(f"{path}: {name} has {found} for {count} results")
    return entries


def check_same_queries(a: Sequence[Any], b: Sequence[Any], name: str) -> None:
    """Refuse lists of query ids that differ at any place.

    Raises:
        ValueError: says how many places differ and names the first.
    """
    pairs = zip_longest(a, b, fillvalue=object())  # equal to nothing
    different = [place for place, (in_a, in_b) in enumerate(pairs) if in_a != in_b]
    if not different:
        return
    first = different[0]
    of_a, of_b = (repr(ids[first])[:80] if first < len(ids) else "nothing" for ids in (a, b))
    raise ValueError(
        f"{name}: the runs have different queries ({len(a)} in A, {len(b)} in B, different at {len(different)} "
        f"places); the first is at place {first}: {of_a} in A, {of_b} in B. Evaluate both on the same test list"
    )


def compare(a: Path, b: Path, samples: int, seed: int) -> list[Comparison]:
    """Compare two metrics.json, metric by metric.

    Raises:
        ValueError: a file is not sound, or they do not hold the same queries in the same order.
    """
    answers_a, answers_b = read_answers(a), read_answers(b)
    if answers_a.keys() != answers_b.keys():
        raise ValueError(f"{a} has results of {', '.join(answers_a)}, but {b} of {', '.join(answers_b)}")
    comparisons = []
    for name, (ids, values) in answers_a.items():
        other = answers_b[name]
        check_same_queries(ids, other.ids, name)
        if values.keys() != other.values.keys():
            raise ValueError(f"{a} has {', '.join(values)}, but {b} has {', '.join(other.values)}")
        for metric, mine in values.items():
            theirs = other.values[metric]
            interval = paired_bootstrap(mine, theirs, samples, seed)
            comparisons.append(Comparison(metric, len(ids), float(mine.mean()), float(theirs.mean()), interval))
    return comparisons


def table(comparisons: Sequence[Comparison]) -> list[str]:
    """Lines for people: a row for each metric."""
    rows = [
        [queries, f"{a:.2f}", f"{b:.2f}", f"{change:+.2f}", f"[{low:+8.2f}, {high:+8.2f}]", f"{100 * above_zero:.1f} %"]
        for _, queries, a, b, (change, low, high, above_zero) in comparisons
    ]
    columns = pd.Index(["queries", "A", "B", "A - B", "95 % interval", "above 0"], name="metric")
    frame = pd.DataFrame(rows, index=[comparison.metric for comparison in comparisons], columns=columns)
    lines = frame.to_string(col_space=9).splitlines()
    if any(comparison.metric.endswith("MeanR") for comparison in comparisons):
        lines += ["", "R1, R5, R10: percentage points. MeanR: ranks from 1, lower is better."]
    elif any(comparison.metric == "accuracy" for comparison in comparisons):
        lines += ["", "accuracy: percentage points."]
    return lines
