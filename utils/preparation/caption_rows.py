"""Rows of a table of videos and captions: any captioned clips, as csv, tsv or jsonl."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataloaders.decoders import VIDEO_SUFFIXES
from modules.foreign_text import is_no_caption, read_json_lines, read_table, video_path
from modules.foreign_text import read_rows as read_table_rows
from utils.preparation.webvid_rows import BAD_ID, EMPTY_CAPTION, BadCsv, Row, WebVidSource, is_id

COLUMNS = ("video", "caption")
WEBVID_COLUMNS = ("videoid", "name")
SPLIT, TRAIN, SPLITS = "split", "train", ("train", "val", "test")
TSV, JSON_LINES = ".tsv", ".jsonl"


class _Record(NamedTuple):
    line: int
    path: str
    caption: str

    @property
    def stem(self) -> str:
        """The path without the extension of a video."""
        stem, suffix = os.path.splitext(self.path)
        return stem if suffix.lower() in VIDEO_SUFFIXES else self.path

    @property
    def video_id(self) -> str:
        """Name of the file without folders and extension, as object files go by it."""
        return self.stem.rsplit("/", 1)[-1]


def open_table(path: Path) -> WebVidSource | CaptionSource:
    """The rows of a csv of either form, by its columns.

    Raises:
        BadCsv: it is of neither form or of both, or cannot be read.
    """
    if path.suffix.lower() in (TSV, JSON_LINES):
        return CaptionSource(path)
    try:
        header = next((row.fields for row in read_table_rows(path, is_streamed=True)), [])
    except ValueError as error:
        raise BadCsv(str(error)) from error
    forms = [columns for columns in (COLUMNS, WEBVID_COLUMNS) if set(columns) <= set(header)]
    if len(forms) > 1:
        raise BadCsv(f"{path}: has the columns video and caption, and WebVid's videoid and name; remove two of them")
    return CaptionSource(path) if forms == [COLUMNS] else WebVidSource(path)


class CaptionSource:
    """The rows of a table with the columns `video` and `caption`; several rows of a video are its captions.

    With a column `split`, which tables of fine-tuning have, only the training rows are read. It is read in parts, and
    of a row no more than hashes are held.

    Raises:
        BadCsv: a column is missing, a path leads out of its folder, one id stands for two files, or it is no table.

    Attributes:
        num_rows: training rows.
        other_rows: those of other splits.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.other_rows = 0
        names = ((hash(record.video_id), hash(record.stem), hash(record.path)) for record in self._records())
        ids, stems, paths = np.fromiter(names, dtype=np.dtype((np.int64, 3))).T
        self.num_rows = len(ids)
        values, counts = np.unique(ids, return_counts=True)
        self._repeated: set[int] = set(values[counts > 1].tolist())
        with_extension = paths != stems
        files = np.unique(paths[with_extension])
        if len(np.unique(stems)) > len(values) or len(files) > len(np.unique(stems[with_extension])):
            self._check_paths()

    def rows(self, clips_per_shard: int, wanted: Collection[int]) -> Iterator[Row]:
        """Yield the rows of the wanted shards; the record of a video belongs to its first row with a caption."""
        seen: set[str] = set()
        for position, record in enumerate(self._records()):
            video_id, caption = record.video_id, record.caption.strip()
            fault = kind = None
            if not is_id(video_id):
                kind, fault = BAD_ID, f"line {record.line} of {self._path.name} has no usable video id: {video_id!r}"
            elif not caption or is_no_caption(caption):
                kind, fault = EMPTY_CAPTION, "empty caption"
            has_further = hash(video_id) in self._repeated
            is_further = fault is None and video_id in seen
            if fault is None and has_further:
                seen.add(video_id)
            shard = position // clips_per_shard
            if shard in wanted:
                yield Row(
                    shard, video_id, caption, "", fault, fault_kind=kind,
                    video=record.path, has_further=has_further, is_further=is_further,
                )  # fmt: skip

    def _records(self) -> Iterator[_Record]:
        self.other_rows = 0
        try:
            for line, fields in self._lines():
                place = f"{self._path}, line {line}"
                if SPLIT in fields:
                    if fields[SPLIT] not in SPLITS:
                        raise ValueError(f"{place}: {SPLIT} is {repr(fields[SPLIT])[:80]}, none of {', '.join(SPLITS)}")
                    if fields[SPLIT] != TRAIN:
                        self.other_rows += 1
                        continue
                caption = "" if fields["caption"] is None else fields["caption"]
                if not isinstance(caption, str):
                    raise ValueError(f"{place}: {repr(caption)[:80]} is no caption; write a row for each caption")
                yield _Record(line, video_path(fields["video"], place), caption)
        except ValueError as error:
            raise BadCsv(str(error)) from error

    def _lines(self) -> Iterator[tuple[int, dict]]:
        if self._path.suffix.lower() != JSON_LINES:
            delimiter = "\t" if self._path.suffix.lower() == TSV else ","
            yield from read_table(self._path, COLUMNS, is_streamed=True, delimiter=delimiter)
            return
        for line, value in read_json_lines(self._path):
            if not isinstance(value, dict) or not set(COLUMNS) <= set(value):
                raise ValueError(f'{self._path}, line {line}: lines are {{"video": "...", "caption": "..."}} each')
            yield line, value

    def _check_paths(self) -> None:
        """Name two files of one id; a path with its extension and without it is one."""
        first: dict[str, _Record] = {}
        for record in self._records():
            other = first.setdefault(record.video_id, record)
            if other.path == other.stem == record.stem:
                first[record.video_id] = record
            elif record.path not in (other.path, other.stem):
                raise BadCsv(
                    f"{self._path}, line {record.line}: {record.path!r} and {other.path!r} of line {other.line} have "
                    f"the id {record.video_id!r}, which is the name without folders and extension: rename one of "
                    "them"
                )


def find_video(folder: Path, path: str) -> Path | str:
    """The file of a path below a folder, with or without its extension, or the reason why there is none."""
    name = folder / path
    if name.suffix.lower() in VIDEO_SUFFIXES:
        return name if name.is_file() else f"no video at {name}"
    for endings in (VIDEO_SUFFIXES, [suffix.upper() for suffix in VIDEO_SUFFIXES], [""]):
        found = [place for ending in endings if (place := folder / f"{path}{ending}").is_file()]
        if len(found) > 1:
            return f"several videos at {', '.join(map(str, found))}: write the path with its extension"
        if found:
            return found[0]
    return f"no video at {name}, with a usual extension or without one"
