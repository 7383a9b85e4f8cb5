"""Rows of clips and captions, and how WebVid's csv has them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modules.foreign_text import MAX_ID, is_no_caption, read_table
from modules.foreign_text import video_id as checked_id
from utils.preparation.tar_members import TarVideo

BAD_ID, REPEATED_ID, EMPTY_CAPTION = "bad_id", "repeated_id", "empty_caption"


@dataclass(frozen=True)
class Row:
    """One clip with a caption: a row of a csv, or a key of a tar file.

    Attributes:
        shard: number of the shard that it belongs to.
        page_dir: folder in which WebVid's video may lie.
        fault: why the row cannot be used, if so.
        fault_kind: which of BAD_ID, REPEATED_ID and EMPTY_CAPTION that is, if so.
        video: where the video is, but for WebVid's: its path below the folder of the videos, or in a tar file.
        has_further: the id may be in other rows as well.
        is_further: an earlier row has the video, this one another caption of it.
        saved_at: offset of its record in what an earlier run left of the shard, if it is there.
    """

    shard: int
    video_id: str
    caption: str
    page_dir: str
    fault: str | None
    saved_at: int | None = None
    fault_kind: str | None = None
    video: str | TarVideo | None = None
    has_further: bool = False
    is_further: bool = False


class BadCsv(Exception):
    """The csv cannot be read as WebVid's, or as one of videos and captions."""


def _records(path: Path) -> Iterator[dict[str, str]]:
    """Fields of each row; a row of another length is no row to skip, since whole rows may be lost in it."""
    try:
        for _, record in read_table(path, ("name", "videoid"), is_streamed=True):
            yield record
    except ValueError as error:
        raise BadCsv(
            f"{error}; WebVid's csv has the columns videoid, name, page_dir, one of your own video, caption"
        ) from error


def survey_csv(path: Path) -> tuple[int, set[int]]:
    """Read a csv once: number of rows, and the hashes (of this process) of the ids that occur more than once.

    Only hashes are held, so that millions of rows fit in little memory.

    Raises:
        BadCsv: a column is missing, a row has another length, a quote is open, or it is no text in UTF-8.
    """
    hashes = np.fromiter((hash(_id(record)) for record in _records(path)), dtype=np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    return len(hashes), set(values[counts > 1].tolist())


def read_rows(path: Path, clips_per_shard: int, repeated: set[int]) -> Iterator[Row]:
    """Yield the rows of a csv with the shard each belongs to; of rows with one id, the first is used.

    Raises:
        BadCsv: as `survey_csv`.
    """
    seen: set[str] = set()
    for position, record in enumerate(_records(path)):
        video_id, caption = _id(record), record["name"].strip()
        fault = kind = None
        if not is_id(video_id):
            kind, fault = BAD_ID, f"row {position + 1} of the csv has no usable video id: {video_id!r}"
        elif video_id in seen:
            kind, fault = REPEATED_ID, f"row {position + 1} of the csv repeats this id; its first row is used"
        elif not caption or is_no_caption(caption):
            kind, fault = EMPTY_CAPTION, "empty caption"
        if hash(video_id) in repeated:
            seen.add(video_id)
        page_dir = record.get("page_dir", "").strip()
        yield Row(position // clips_per_shard, video_id, caption, page_dir, fault, fault_kind=kind)


class WebVidSource:
    """The rows of a WebVid csv; errors as `survey_csv`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.num_rows, self._repeated = survey_csv(path)

    def rows(self, clips_per_shard: int, wanted: Collection[int]) -> Iterator[Row]:
        """Yield the rows of the wanted shards."""
        rows = read_rows(self._path, clips_per_shard, self._repeated)
        return (row for row in rows if row.shard in wanted)


def video_places(video_dir: Path, page_dir: str, video_id: str) -> list[Path]:
    """Possible files of a row's video, in the order in which to look."""
    name = f"{video_id}.mp4"
    is_outside = Path(page_dir).is_absolute() or ".." in Path(page_dir).parts  # of the folder that the user named
    if is_outside or len(page_dir.encode()) > MAX_ID:
        page_dir = ""
    return [video_dir / page_dir / name, video_dir / name] if page_dir else [video_dir / name]


def _id(record: dict[str, str]) -> str:
    return record["videoid"].strip()


def is_id(name: str) -> bool:
    """Whether this can be the id of a clip in an index, and the name of its file."""
    try:
        return checked_id(name, "") == name and name.isprintable()
    except ValueError:
        return False
