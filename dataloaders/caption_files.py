"""Captions alone, of any caption file that the data sets have, or of a plain one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from dataloaders.annotation_files import annotation_file
from dataloaders.caption_split import TextVideoPair
from dataloaders.caption_store import iter_json_list
from dataloaders.datasets import lsmdc, msrvtt, msvd
from dataloaders.id_lists import ID_COLUMNS
from modules.foreign_text import is_no_caption, iterate_lines, iterate_text, read_json_lines, read_lines, read_table

CAPTION_COLUMNS = ("caption", "sentence", "description", "text", "name")
VIDEO_COLUMNS = (*ID_COLUMNS, "video")


def caption_texts(path: str | Path, videos: Iterable[str] | None = None, flag: str = "--captions") -> Iterator[str]:
    """Captions of a file in its order; empty ones, and what stands for a missing one, are passed over.

    Args:
        path: MSR-VTT's MSRVTT_data.json; MSVD's raw-captions.pkl; an LSMDC table; a .json with a list, or a .jsonl, of
            {"caption": ...} or of texts; a .csv or .tsv with a column of CAPTION_COLUMNS; of any other name: one
            caption per line.
        videos: ids of those whose captions are wanted; None: all.
        flag: where the path was given, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not in this form, says no videos where these are asked for, or has no caption of theirs.
    """
    path = annotation_file(path, "file of captions", flag)
    wanted = None if videos is None else set(videos)
    is_any = False
    for video, caption in _pairs(path):
        if wanted is not None and video is None:
            raise ValueError(f"{path} does not say which video a caption is of, so those of some cannot be picked")
        if (wanted is None or video in wanted) and caption.strip() and not is_no_caption(caption):
            is_any = True
            yield caption
    if not is_any:
        raise ValueError(f"{path}: no caption{'' if wanted is None else ' of the listed videos'} ({flag})")


def captions_by_video(path: str | Path, flag: str = "--captions") -> dict[str, list[str]]:
    """Captions of each video, both in the order of the file, which is one of those that `caption_texts` reads.

    Raises:
        FileNotFoundError, ValueError: as `caption_texts`; or it does not say which video a caption is of.
    """
    path = annotation_file(path, "file of captions", flag)
    found: dict[str, list[str]] = {}
    for video, caption in _pairs(path):
        if video is None:
            raise ValueError(f"{path} does not say which video a caption is of ({flag})")
        if caption.strip() and not is_no_caption(caption):
            found.setdefault(video, []).append(caption)
    if not found:
        raise ValueError(f"{path}: no caption ({flag})")
    return found


def _pairs(path: Path) -> Iterator[tuple[str | None, str]]:
    """Video, where the file says it, and caption."""
    kind = path.suffix.lower()
    if kind in (".pkl", ".pickle"):
        for video, captions in msvd.read_captions(path).items():
            yield from ((video, caption) for caption in captions)
    elif kind == ".json" and next(iterate_text(path)).lstrip().startswith("{"):
        yield from _of_pairs(msrvtt.read_captions(path))
    elif kind == ".json":
        for number, row in enumerate(iter_json_list(path)):
            yield _of_record(row, f"{path}: row {number}")
    elif kind == ".jsonl":
        for line, row in read_json_lines(path):
            yield _of_record(row, f"{path}, line {line}")
    elif kind == ".csv" and _is_lsmdc(path):
        yield from _of_pairs(lsmdc.read_pairs(path))
    elif kind in (".csv", ".tsv"):
        for line, row in read_table(path, is_streamed=True, delimiter="\t" if kind == ".tsv" else ","):
            yield _of_record(row, f"{path}, line {line}")
    else:
        yield from ((None, line) for _, line in read_lines(path, is_streamed=True))


def _of_pairs(pairs: Iterable[TextVideoPair]) -> Iterator[tuple[str, str]]:
    return ((pair.video_id, pair.caption) for pair in pairs)


def _is_lsmdc(path: Path) -> bool:
    """Whether the first line has LSMDC's columns, which have tabs between them and no header."""
    return any(line.count("\t") == len(lsmdc.COLUMNS) - 1 for _, line in islice(iterate_lines(path, True), 1))


def _of_record(row: Any, place: str) -> tuple[str | None, str]:
    if isinstance(row, str):
        return None, row
    if not isinstance(row, Mapping):
        raise ValueError(f"{place} is {str(row)[:80]!r}, neither a text nor a record with a caption")
    column = next((name for name in CAPTION_COLUMNS if name in row), None)
    if column is None:
        raise ValueError(f"{place} has none of {', '.join(CAPTION_COLUMNS)}; it has {', '.join(map(str, row))[:200]}")
    if not isinstance(row[column], str):
        raise ValueError(f'{place}: "{column}" is {str(row[column])[:80]!r}, not a text')
    video = next((row[name] for name in VIDEO_COLUMNS if name in row), None)
    return None if video is None else str(video), row[column]
