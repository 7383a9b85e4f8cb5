"""Truth of captions of demo clips, by comparison with the demo world's own truth.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from modules.foreign_text import read_json
from utils.demo.world import COLORS, MOTIONS, SHAPES

ATTRIBUTES = ("color", "shape", "motion")
VALUES = {"color": set(COLORS), "shape": set(SHAPES), "motion": set(MOTIONS)}
Mention = dict[str, str]  # attribute -> value, of those that a caption gives


def true_words(path: Path) -> dict[str, tuple[set[str], set[str]]]:
    """The shapes and the motions in each video of a truth.json.

    Raises:
        ValueError: it is not that of a demo world; names it.
    """
    truth = read_json(path)
    try:
        things = {video: entry["objects"] for video, entry in truth["videos"].items()}
        return {
            video: ({thing["shape"] for thing in own}, {thing["motion"] for thing in own})
            for video, own in things.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not the truth of a demo world ({error!r}); utils/make_demo_data.py writes it"
        ) from error


def mentions(caption: str) -> list[Mention]:
    """Things that a caption names: for each shape the last colour before it and the first motion behind it."""
    found: list[Mention] = []
    color: str | None = None
    for word in caption.lower().replace(",", " ").split():
        if word in VALUES["color"]:
            color = word
        elif word in VALUES["shape"]:
            found.append({"shape": word} | ({"color": color} if color else {}))
            color = None
        elif word in VALUES["motion"] and found and "motion" not in found[-1]:
            found[-1]["motion"] = word
    return found


def agreement(named: Sequence[Mention], true: Sequence[Mention]) -> tuple[dict[str, list[bool]], int]:
    """Match what is named with what is there so that most attributes agree.

    Returns:
        For each attribute whether each of its mentions is right, and the number of things named beyond those there.
    """
    same = np.array([[sum(one.get(a) == other[a] for a in ATTRIBUTES) for other in true] for one in named])
    rows, columns = linear_sum_assignment(same, maximize=True) if len(named) else ([], [])
    matched = dict(zip(rows, columns, strict=True))
    right: dict[str, list[bool]] = {attribute: [] for attribute in ATTRIBUTES}
    for row, mention in enumerate(named):
        for attribute, value in mention.items():
            right[attribute].append(row in matched and true[matched[row]][attribute] == value)
    return right, len(named) - len(matched)


def score(predictions: Sequence[dict[str, Any]], truth: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Percentages over all clips.

    Args:
        predictions: entries of predictions.json.
        truth: `videos` of truth.json.

    Returns:
        `color`, `shape`, `motion`: right ones among their mentions; `exact`: captions that name just the things that
        are there with all attributes, and `exact_{n}` of clips with n things; `invented`: things named beyond those
        there, by clip; `clips`.

    Raises:
        KeyError: a prediction is of a video without truth.
    """
    right: dict[str, list[bool]] = {attribute: [] for attribute in ATTRIBUTES}
    exact: dict[int, list[bool]] = {}
    invented = 0
    for entry in predictions:
        true = truth[entry["video_id"]]["objects"]
        named = mentions(entry["prediction"])
        own, more = agreement(named, true)
        for attribute in ATTRIBUTES:
            right[attribute] += own[attribute]
        invented += more
        is_exact = sorted(named, key=_order) == sorted(true, key=_order)
        exact.setdefault(len(true), []).append(is_exact)
    result: dict[str, Any] = {name: 100.0 * float(np.mean(flags)) if flags else 0.0 for name, flags in right.items()}
    result["exact"] = 100.0 * float(np.mean([flag for flags in exact.values() for flag in flags]))
    result |= {f"exact_{count}": 100.0 * float(np.mean(exact[count])) for count in sorted(exact)}
    return {**result, "invented": invented / len(predictions), "clips": len(predictions)}


def _order(mention: Mention) -> tuple[str, ...]:
    return tuple(mention.get(attribute, "") for attribute in ATTRIBUTES)
