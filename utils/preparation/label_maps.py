"""Label maps from VinVL's dictionary file or from the object files themselves."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dataloaders.label_map import check_label_map, load_label_map
from modules.foreign_text import class_name, is_class_name, read_json, read_lines

NO_CLASSES = ("__background__", "N/A")  # of torchvision's lists of classes
VINVL_KEYS = (
    "label_to_idx",
    "idx_to_label",
    "attribute_to_idx",
    "idx_to_attribute",
    "predicate_to_idx",
    "idx_to_predicate",
    "object_count",
    "attribute_count",
    "predicate_count",
)


def label_map_from_vinvl(path: Path) -> dict[str, Any]:
    """Return VinVL's dictionary (VG-SGG-dicts-vgoi6-clipped.json), checked, and reduced to the keys of a label map."""
    source = read_json(path)
    check_label_map(source, str(path))
    return {key: source[key] for key in VINVL_KEYS if key in source}


def label_map_from_objects(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a label map of all classes and attributes in a folder of object files, and the files that are unreadable.

    Names are in alphabetical order, indices from 1, so that the same files always give the same map.
    """
    classes: Counter[str] = Counter()
    attributes: Counter[str] = Counter()
    unreadable = []
    for path in _object_files(folder):
        try:
            entries = list(_entries(read_json(path)))
        except (OSError, ValueError) as error:
            unreadable.append(str(error))
            continue
        for entry in entries:
            classes.update(_names([entry.get("class")]))
            attributes.update(_names(entry.get("attributes")))
    if not classes:
        raise ValueError(f"no object with a class in {folder}/*.json or {folder}/tsv_files/*.json")
    label_map: dict[str, Any] = {
        **_index("label", classes),
        **_index("attribute", attributes),
        "object_count": dict(sorted(classes.items())),
        "attribute_count": dict(sorted(attributes.items())),
    }
    return label_map, unreadable


def label_map_from_names(counts: Mapping[str, int]) -> dict[str, Any]:
    """Return a label map of names, in alphabetical order, and how often each occurs."""
    return {**_index("label", counts), "object_count": dict(sorted(counts.items()))}


def names_of(source: str) -> list[str]:
    """Class names of a label map, of a .txt with one per line, or of a torchvision detection model's own weights.

    Raises:
        FileNotFoundError: there is no such file, nor such a model.
        ValueError: it is neither, or a line is no name.
    """
    path = Path(source)
    if path.suffix == ".txt":
        return [class_name(line, f"{path}, line {number}") for number, line in read_lines(path)]
    if not path.exists():
        # Imported here: label maps are made without PyTorch.
        from torchvision.models import detection, get_model_weights, list_models

        if source in list_models(module=detection):
            names = get_model_weights(source).DEFAULT.meta["categories"]
            return [name for name in names if name not in NO_CLASSES]
    return list(load_label_map(path)["label_to_idx"])


def _object_files(folder: Path) -> Iterator[Path]:
    for place in (folder, folder / "tsv_files"):
        if place.is_dir():
            with os.scandir(place) as entries:
                yield from (Path(entry.path) for entry in entries if entry.name.endswith(".json") and entry.is_file())


def _entries(frames: Any) -> Iterator[dict[str, Any]]:
    for frame in frames if isinstance(frames, list) else []:
        objects = frame.get("objects") if isinstance(frame, dict) else None
        yield from (entry for entry in objects if isinstance(entry, dict)) if isinstance(objects, list) else ()


def _names(entries: Any) -> Iterator[str]:
    """The names in a list; what is no list has none."""
    yield from filter(is_class_name, entries) if isinstance(entries, list) else ()


def _index(kind: str, names: Iterable[str]) -> dict[str, Any]:
    ordered = sorted(names)
    return {
        f"{kind}_to_idx": {name: index for index, name in enumerate(ordered, start=1)},
        f"idx_to_{kind}": {str(index): name for index, name in enumerate(ordered, start=1)},
    }
