"""The result of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Evaluation:
    """Scores of a split.

    metrics: plain values for the log and metrics.json. details: what metrics.json has besides, such as ranks by query.
    files: further files of the result, name -> text.
    """

    metrics: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
