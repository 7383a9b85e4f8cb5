"""The table of a campaign."""

from __future__ import annotations

from collections.abc import Sequence

from tests.campaigns.fuzzing.campaign import Result
from tests.campaigns.fuzzing.reader import Kind

MAX_SHOWN = 5


def table(results: Sequence[Result]) -> str:
    """Counts of every reader, as Markdown."""
    columns = [kind.value for kind in Kind]
    lines = [f"| reader | inputs | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    lines += [_row(result.reader, [result.counts[kind] for kind in Kind]) for result in results]
    if len(results) > 1:
        lines.append(_row("all", [sum(result.counts[kind] for result in results) for kind in Kind]))
    return "\n".join(lines)


def _row(name: str, counts: Sequence[int]) -> str:
    return f"| {name} | {sum(counts):,} | {' | '.join(f'{count:,}' for count in counts)} |"


def faults(results: Sequence[Result]) -> str:
    """The first faults of every reader, a line each."""
    return "\n".join(
        f"{result.reader}, input {number}: {outcome.kind.value}: {outcome.detail}"
        for result in results
        for number, outcome in result.faults[:MAX_SHOWN]
    )
