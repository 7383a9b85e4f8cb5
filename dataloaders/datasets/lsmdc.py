"""LSMDC's tables of clips and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dataloaders.annotation_files import annotation_file
from dataloaders.caption_split import CaptionSplit, TextVideoPair
from modules.foreign_text import caption_text, iterate_lines, video_id

FILES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
COLUMNS = ("clip_id", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")


def read_split(folder: str | Path, split: str) -> CaptionSplit:
    """Clips and sentences of a split; lines with the same clip are its several captions.

    Args:
        folder: of LSMDC16_annos_{training,val}.csv and LSMDC16_challenge_1000_publictect.csv: tab-separated, no header,
            no quoting; columns as in COLUMNS.
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: a line has another number of columns or no clip id, the file is not UTF-8, or it has no line.
    """
    path = annotation_file(Path(folder, FILES[split]), "table of clips")
    pairs = list(read_pairs(path))
    if not pairs:
        raise ValueError(f"{path}: no lines")
    return CaptionSplit.from_pairs(pairs)


def read_pairs(path: Path) -> Iterator[TextVideoPair]:
    """Clips and sentences of a table, in its order; errors as `read_split`."""
    for number, line in iterate_lines(path):
        row = line.rstrip("\r\n").split("\t")
        if row == [""]:
            continue
        if len(row) != len(COLUMNS) or not row[0]:
            raise ValueError(
                f"{path}, line {number}: {len(row)} columns, the first {row[0]!r}; lines have "
                f"{len(COLUMNS)} columns separated by tabs: {', '.join(COLUMNS)}"
            )
        place = f"{path}, line {number}"
        yield TextVideoPair(video_id(row[0], place), caption_text(row[-1].strip(), place))
