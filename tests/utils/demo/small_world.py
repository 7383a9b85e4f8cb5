"""A small demo world in the formats of all data sets, and how its files are read."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils import make_demo_data
from utils.demo.world import COLORS, MOTIONS, SHAPES, Scene, SceneClip

COUNTS = {"train": 24, "val": 6, "test": 9}
FLAGS = ["--train_clips", "24", "--val_clips", "6", "--test_clips", "9", "--seed", "3"]
FLAGS += ["--msvd_clips", "6", "--lsmdc_clips", "7", "--didemo_clips", "5"]


def write_small_world(folder: Path) -> Path:
    """Render it: 39 clips, a few seconds on one core."""
    assert make_demo_data.main(["--output_dir", str(folder), "--workers", "1", *FLAGS]) == 0
    return folder


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a csv by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def values_in(text: str) -> Counter[str]:
    """The colours, shapes and motions that a text names, each as often as it does."""
    return Counter(word for word in text.replace(",", "").split() if word in {*COLORS, *SHAPES, *MOTIONS})


def values_of(truth: dict[str, Any]) -> Counter[str]:
    """Those of a video's things."""
    return Counter(value for thing in truth["objects"] for value in thing.values())


def scenes_of(clips: Iterable[SceneClip], split: str) -> list[Scene]:
    return [clip.scene for clip in clips if clip.split == split]
