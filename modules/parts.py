"""Who owns a parameter: the part of the model that it belongs to, and the learning-rate group that it is in.

A module states both in `owners`, by the name of a parameter or of a module inside it, relative to itself; the empty
name stands for all that is not named. What the gradient of a part flows on into stands in `reads`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn


class Owner(NamedTuple):
    """part: what objectives name when they train it; rate: `clip`, `fusion`, `object` or `head` (tasks/README.md)."""

    part: str
    rate: str


def owners(model: nn.Module) -> dict[str, Owner]:
    """Owner of each parameter by name: what the innermost module around it states.

    Raises:
        ValueError: a parameter that no module speaks for.
    """
    stated: dict[str, Owner] = {}
    for path, module in model.named_modules():
        for name, owner in getattr(module, "owners", {}).items():
            stated[_join(path, name)] = owner
    found = {}
    for name, _ in model.named_parameters():
        around = name
        while around and around not in stated:
            around = around.rpartition(".")[0]
        if around not in stated:
            raise ValueError(
                f"parameter {name} belongs to no part: give a module around it `owners = {{'': Owner(part, rate)}}` "
                "(modules/parts.py)"
            )
        found[name] = stated[around]
    return found


def reached(model: nn.Module, parts: Iterable[str]) -> set[str]:
    """`parts`, and those that their gradient flows on into."""
    flows: dict[str, set[str]] = {}
    for module in model.modules():
        for part, sources in getattr(module, "reads", {}).items():
            flows.setdefault(part, set()).update(sources)
    found, waiting = set(), list(parts)
    while waiting:
        part = waiting.pop()
        if part not in found:
            found.add(part)
            waiting.extend(flows.get(part, ()))
    return found


def _join(path: str, name: str) -> str:
    return f"{path}.{name}".strip(".")
