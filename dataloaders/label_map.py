"""The label map: class names of the object detector and their indices, in the format of VinVL's dictionary file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from modules.foreign_text import is_class_name, read_json

MAX_INDEX = 1_000_000


def load_label_map(path: str | Path) -> dict[str, Any]:
    """Read and check a label map.

    Args:
        path: JSON with "label_to_idx" (class name -> index from 1; 0 is the padding of the models) and, where the
            detector gives attributes, "attribute_to_idx".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a label map; the message names the file and what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no label map at {path}: give --labelmap_path VinVL's dictionary file, or make one from your object files "
            "with utils/build_label_map.py --objects DIR"
        )
    try:
        label_map = read_json(path)
    except ValueError as error:
        raise ValueError(f"label map {error}") from error
    check_label_map(label_map, str(path))
    return label_map


def check_label_map(label_map: Any, name: str) -> None:
    """Raise ValueError, naming the label map `name`, unless its indices are distinct integers from 1."""
    labels = label_map.get("label_to_idx") if isinstance(label_map, dict) else None
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f"label map {name} has no 'label_to_idx' with class names and indices")
    owners: dict[int, str] = {}
    for key, index in labels.items():
        if not key.strip():
            raise ValueError(f"label map {name}: index {repr(index)[:40]} has an empty class name")
        if not is_class_name(key):
            raise ValueError(
                f"label map {name}: index {repr(index)[:40]} has the class {key!r}, which stands for a missing name; "
                "delete it there, and make the object files anew whose objects have it"
            )
        if not isinstance(index, int) or isinstance(index, bool) or not 1 <= index <= MAX_INDEX:
            raise ValueError(
                f"label map {name}: index of {key[:80]!r} is {repr(index)[:40]}; indices start at 1, 0 is padding, and "
                f"end at {MAX_INDEX}"
            )
        if index in owners:
            raise ValueError(
                f"label map {name}: two classes share an index: {owners[index]!r} and {key!r} have {index}"
            )
        owners[index] = key


def label_map_hash(label_map: dict[str, Any]) -> str:
    """Return a short digest of the class names and their indices, for fingerprints of what was built with them."""
    text = json.dumps(sorted(label_map["label_to_idx"].items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def class_names(label_map: dict[str, Any]) -> list[str]:
    """Return the class names by index, with "" at 0 and wherever an index is not used."""
    names = [""] * (max(label_map["label_to_idx"].values()) + 1)
    for name, index in label_map["label_to_idx"].items():
        names[index] = name
    return names
