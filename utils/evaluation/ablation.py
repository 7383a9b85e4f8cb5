"""The table of an ablation: mean and spread over seeds, and what the bootstrap says of each step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from utils.evaluation.ablation_rows import COLUMNS, KINDS, Kind, Row
from utils.evaluation.bootstrap import paired_bootstrap

MISSING = "missing"
NONE = "\u2013"
CHANGE = "change"
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\u00b1": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


class TaskTable(NamedTuple):
    """A table of texts: the task in words, and a frame whose first column names the rows."""

    title: str
    frame: pd.DataFrame


class Ablation(NamedTuple):
    """A table for each task, and the sentence that says how to read them."""

    tables: list[TaskTable]
    note: str


def tabulate(rows: Sequence[Row], samples: int = 10_000, seed: int = 0) -> Ablation:
    """Tables of rows that belong together (`read_rows`).

    A cell is the mean over the seeds and, with several, the sample standard deviation between them. A change is against
    the row before, of the last two rows against `all`: of each item the difference of both rows is averaged over the
    seeds that both have, and items are drawn with replacement (`paired_bootstrap`). Its interval is thus of the choice
    of items, not of the choice of seeds. Metrics without values of single items have no change. A row, or a seed that
    another row has, is shown as missing.

    Args:
        samples, seed: of the bootstrap.
    """
    seeds = sorted({row.seed for row in rows})
    by_kind = {name: {row.seed: row for row in rows if row.kind.name == name} for name in KINDS}
    tables = []
    for task, columns in COLUMNS.items():
        scored = [row.tasks[task] for row in rows if task in row.tasks]
        if not scored:
            continue
        frame: dict[str, list[str]] = {"row": [_title(kind, by_kind[kind.name]) for kind in KINDS.values()]}
        for metric, (title, decimals) in columns.items():
            if not any(metric in scores.metrics for scores in scored):
                continue
            found = {name: _metrics(own, task, metric) for name, own in by_kind.items()}
            frame[title] = [_mean(one, len(seeds), decimals) for one in found.values()]
            if any(metric in scores.values for scores in scored):
                values = {name: _values(own, task, metric) for name, own in by_kind.items()}
                frame[f"{CHANGE} of {title.removesuffix(', %')}"] = [
                    _change(kind, values, len(seeds), decimals, samples, seed) for kind in KINDS.values()
                ]
        items = max((len(column) for scores in scored for column in scores.values.values()), default=0)
        tables.append(TaskTable(f"{task.replace('_', ' ').capitalize()}, {items} items", pd.DataFrame(frame)))
    return Ablation(tables, _note(seeds, samples))


def _note(seeds: Sequence[int], samples: int) -> str:
    shown = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    spread = "One run of each row" if len(seeds) == 1 else "Mean and sample standard deviation"
    return (
        f"{spread}, {shown}. Changes are against the row before, in the last two rows against all, with the 95 % "
        f"interval of a paired bootstrap over the items ({samples} samples), each item's difference averaged over "
        "seeds: an interval says nothing of other seeds."
    )


def _title(kind: Kind, own: dict[int, Row]) -> str:
    if kind.changed != "trajectory":
        return kind.title
    rules = {str(row.settings["pretraining"].get("trajectory")) for row in own.values()}
    return f"{kind.title} {' '.join(sorted(rules)) or 'of the other rule'}"


def _metrics(own: dict[int, Row], task: str, metric: str) -> dict[int, float]:
    found = {seed: row.tasks[task].metrics for seed, row in own.items() if task in row.tasks}
    return {seed: metrics[metric] for seed, metrics in found.items() if metric in metrics}


def _values(own: dict[int, Row], task: str, metric: str) -> dict[int, np.ndarray]:
    found = {seed: row.tasks[task].values for seed, row in own.items() if task in row.tasks}
    return {seed: values[metric] for seed, values in found.items() if metric in values}


def _mean(found: dict[int, float], seeds: int, decimals: int) -> str:
    if not found:
        return MISSING
    numbers = np.array(list(found.values()))
    spread = f" \u00b1 {numbers.std(ddof=1):.{decimals}f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.{decimals}f}{spread}{_of_all(len(numbers), seeds)}"


def _change(
    kind: Kind, values: dict[str, dict[int, np.ndarray]], seeds: int, decimals: int, samples: int, seed: int
) -> str:
    if not kind.before:
        return NONE
    own, before = values[kind.name], values[kind.before]
    both = sorted(own.keys() & before.keys())
    if not both:
        return MISSING
    a, b = (np.mean([one[key] for key in both], axis=0) for one in (own, before))
    change, low, high, _ = paired_bootstrap(a, b, samples, seed)
    return f"{change:+.{decimals}f} [{low:+.{decimals}f}, {high:+.{decimals}f}]{_of_all(len(both), seeds)}"


def _of_all(count: int, seeds: int) -> str:
    return f" ({count} of {seeds} seeds)" if count < seeds else ""


def as_markdown(ablation: Ablation) -> str:
    """The tables as Markdown."""
    parts = []
    for title, frame in ablation.tables:
        lines = [list(frame.columns), ["---"] + ["---:"] * (len(frame.columns) - 1), *frame.values.tolist()]
        body = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
        parts.append(f"**{title}**\n\n{body}\n")
    return "\n".join([*parts, ablation.note]) + "\n"


def as_latex(ablation: Ablation) -> str:
    """The tables as LaTeX, which needs no package."""
    parts = []
    for title, frame in ablation.tables:
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in (list(frame.columns), *frame.values.tolist())]
        body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
        columns = "l" + "r" * (len(frame.columns) - 1)
        parts.append(
            f"\\begin{{table}}\n\\caption{{{_latex(title)}. {_latex(ablation.note)}}}\n"
            f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n\\end{{table}}\n"
        )
    return "\n".join(parts)


def _latex(text: str) -> str:
    """A text as LaTeX: special characters escaped, minus signs in front of numbers, and two hyphens not as a dash."""
    escaped = "".join(LATEX.get(character, character) for character in text.replace(NONE, "\0"))
    escaped = re.sub(r"(?<![\w.-])([-+])(?=\d)", r"$\1$", escaped)
    return re.sub("-(?=-)", "-{}", escaped).replace("\0", "--")
