"""Class names of detectors and of label maps: which is which."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modules.foreign_text import is_class_name, read_json


def read_class_map(path: Path) -> dict[str, str]:
    """A label map's class names by a detector's; ValueError if the file is not such a dictionary."""
    renamed = read_json(path)
    if not isinstance(renamed, dict) or not all(map(is_class_name, renamed.values())):
        raise ValueError(f"{path} is not a JSON dictionary of names by names (--class_map)")
    return renamed


def class_mapper(names: Sequence[str], renamed: Mapping[str, str]) -> Callable[[str], str | None]:
    """From a detector's class name to a label map's: by `renamed`, as it is, or but for case, signs and a plural s."""
    known = set(names)
    loose = {_loose(name): name for name in reversed(names)}

    def find(name: str) -> str | None:
        name = renamed.get(name, name)
        if name in known:
            return name
        return loose.get(_loose(name)) or loose.get(_loose(name).removesuffix("s")) or loose.get(f"{_loose(name)}s")

    return find


def _loose(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()
