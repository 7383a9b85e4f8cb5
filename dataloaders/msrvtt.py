"""MSR-VTT's csv lists."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple


class TextVideoPair(NamedTuple):
    video_id: str
    caption: str


def read_test_pairs(path: str | Path) -> list[TextVideoPair]:
    """Rows of MSRVTT_JSFUSION_test.csv or another csv with the columns video_id and sentence.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, or the file has no row.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list of test pairs (--val_csv)")
    with path.open(newline="", encoding="utf-8") as handle:
        rows = csv.DictReader(handle)
        missing = {"video_id", "sentence"} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: no column {' and '.join(sorted(missing))}; found {rows.fieldnames}")
        pairs = [TextVideoPair(row["video_id"], row["sentence"]) for row in rows]
    if not pairs:
        raise ValueError(f"{path}: no rows")
    return pairs
