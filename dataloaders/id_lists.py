"""Small files that users give beside a data set: lists of video ids, and the sizes of the videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modules.foreign_text import read_json, read_json_lines, read_lines, read_table
from modules.foreign_text import video_id as checked_id

MAX_SIDE = 1 << 20  # pixels
ID_COLUMNS = ("video_id", "videoid", "id")


def read_ids(path: str | Path) -> list[str]:
    """Return the distinct video ids in a file, in its order; arguments and errors as `listed_ids`."""
    return list(dict.fromkeys(listed_ids(path)))


def listed_ids(path: str | Path) -> list[str]:
    """Return the video ids in a file as it lists them, repeated ones included.

    Args:
        path: .csv with a column video_id, videoid or id; .json with a list of ids, a list of {"video_id": ...} or a
            dictionary with such a list under "videos"; .jsonl with a {"video_id": ...} per line; any other name: one id
            per line.

    Raises:
        ValueError: if no ids are found in it.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".csv":
        ids = _csv_ids(path)
    elif kind == ".json":
        ids = _json_ids(path)
    elif kind == ".jsonl":
        ids = [_json_id(entry, f"{path}, line {number}") for number, entry in read_json_lines(path)]
    else:
        ids = [checked_id(line, f"{path}, line {number}") for number, line in read_lines(path)]
    if not ids:
        raise ValueError(f"no video ids in {path}")
    return ids


def _csv_ids(path: Path) -> list[str]:
    rows = list(read_table(path))
    column = next((name for name in ID_COLUMNS if rows and name in rows[0][1]), None)
    if rows and column is None:
        raise ValueError(f"{path} has none of the columns {', '.join(ID_COLUMNS)}")
    return [checked_id(fields[column], f"{path}, line {line}") for line, fields in rows if column]


def _json_ids(path: Path) -> list[str]:
    content = read_json(path)
    entries = content.get("videos") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError(f"{path} is neither a list of ids nor a dictionary with a list 'videos'")
    return [_json_id(entry, f"{path}: entry {number}") for number, entry in enumerate(entries)]


def _json_id(entry: Any, place: str) -> str:
    value = entry.get("video_id") if isinstance(entry, dict) else entry
    if value is None:
        raise ValueError(f"{place}: {str(entry)[:80]} has no 'video_id'")
    return checked_id(value, place)


def read_frame_sizes(path: str | Path) -> dict[str, tuple[int, int]]:
    """Return video id -> (width, height) in pixels.

    Args:
        path: .json with {id: [width, height]} or {id: {"width": ..., "height": ...}}; else a csv with the columns
            video_id, width and height.

    Raises:
        ValueError: if an entry is not a size.
    """
    path = Path(path)
    entries = _json_sizes(path) if path.suffix.lower() == ".json" else _csv_sizes(path)
    sizes: dict[str, tuple[int, int]] = {}
    for place, name, size in entries:
        video_id = checked_id(name, place)
        width, height = (_pixels(number) for number in size) if isinstance(size, list) and len(size) == 2 else (0, 0)
        if not width or not height:
            raise ValueError(f"{place}: size of {video_id!r} is {repr(size)[:80]}, not width and height in pixels")
        if sizes.setdefault(video_id, (width, height)) != (width, height):
            raise ValueError(f"{place}: {video_id!r} has another size before")
    return sizes


def _pixels(number: Any) -> int:
    """A whole number of pixels; 0 for anything else."""
    if isinstance(number, str) and number.strip().isascii() and number.strip().isdecimal():
        number = int(number.strip()[:20])
    is_whole = type(number) is int or (isinstance(number, float) and number.is_integer())
    return int(number) if is_whole and 0 < number <= MAX_SIDE else 0


def _json_sizes(path: Path) -> Iterator[tuple[str, str, Any]]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a dictionary of video ids and sizes")
    for video_id, size in content.items():
        listed = [size.get("width"), size.get("height")] if isinstance(size, dict) else size
        yield str(path), video_id, listed


def _csv_sizes(path: Path) -> Iterator[tuple[str, str, Any]]:
    for line, row in read_table(path, ("video_id", "width", "height")):
        yield f"{path}, line {line}", row["video_id"], [row["width"], row["height"]]
