"""The one reader of text files that users bring: plain text, json, jsonl, csv and plain pickles, bounded and strict.

Every error is a ValueError that names file, line where there is one, and remedy. Free of PyTorch: every kind of process
reads here.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modules.plain_pickle import MAX_DEPTH, check_values, load_plain

logger = logging.getLogger(__name__)

MAX_BYTES = 1 << 30
MAX_FIELD = 131_072  # characters of a csv field
SURROGATE = re.compile(r"[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
CONVERT = "save it as UTF-8, for instance with: iconv -f latin1 -t utf-8"


class Row(NamedTuple):
    """A row of a table: the line that it starts at, from 1, and its fields."""

    line: int
    fields: list[str]


def read_bytes(path: str | Path) -> bytes:
    """Content of a file of at most MAX_BYTES.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is too large, or cannot be read.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{path}: {size} bytes, more than the {MAX_BYTES} that are read of a text file")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def read_text(path: str | Path) -> str:
    """Text of a file, with or without a byte order mark; errors as `read_bytes`, and what is not UTF-8 or has a NUL."""
    return decoded(read_bytes(path), str(path))


def decoded(data: bytes, name: str, first_line: int = 1) -> str:
    """Bytes of the file `name` from a line on as text; errors as `read_text`."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{name}: UTF-16 text; {CONVERT.replace('latin1', 'utf-16')}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = first_line + data[: error.start].count(b"\n")
        raise ValueError(f"{name}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); {CONVERT}") from error
    if "\0" in text:
        line = first_line + text[: text.index("\0")].count("\n")
        raise ValueError(f"{name}, line {line}: a NUL character, so it is no text file or a damaged one")
    return text


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line that is not blank, without white space around it; errors as `read_text`."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def read_json(path: str | Path) -> Any:
    """Content of a JSON file; errors as `read_text`, and what is not JSON or nested too deeply."""
    return parse_json(read_text(path), str(path), "is the file complete?")


def read_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Number, from 1, and value of each line of JSON that is not blank; errors as `read_json`."""
    for number, line in read_lines(path):
        yield number, parse_json(line, f"{path}, line {number}", "lines are JSON each")


def parse_json(text: str, name: str, remedy: str) -> Any:
    """A JSON text; halves of characters (lone surrogates), which no file can hold, are replaced, counted and logged."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep(name) from error
    except ValueError as error:  # also a number of thousands of digits
        raise ValueError(f"{name} is not JSON: {error}; {remedy}") from error
    _check_depth(value, name)
    return _mended(value, name) if "\\u" in text else value


def _check_depth(value: Any, name: str) -> None:
    level, depth = [value], 0
    while level := [inner for one in level if isinstance(one, list | dict) for inner in _inside(one)]:
        level = [inner for inner in level if isinstance(inner, list | dict)]
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep(name)


def _inside(value: list | dict) -> Any:
    return value.values() if isinstance(value, dict) else value


def _too_deep(name: str) -> ValueError:
    return ValueError(f"{name}: lists inside each other, more than {MAX_DEPTH} deep; is it another file?")


def whole_characters(text: str) -> tuple[str, int]:
    """Text without halves of characters (lone surrogates), which no file can hold, and how many were replaced."""
    return SURROGATE.subn(REPLACEMENT, text)


def _mended(value: Any, name: str) -> Any:
    """The value without lone surrogates."""
    found = [0]

    def mend(part: Any) -> Any:
        if isinstance(part, str):
            text, count = whole_characters(part)
            found[0] += count
            return text
        if isinstance(part, list):
            return [mend(inner) for inner in part]
        if isinstance(part, dict):
            return {mend(key): mend(inner) for key, inner in part.items()}
        return part

    value = mend(value)
    if found[0]:
        logger.warning("%s: %d halves of characters (lone surrogates) are replaced by %s", name, found[0], REPLACEMENT)
    return value


def read_rows(path: str | Path, delimiter: str = ",") -> Iterator[Row]:
    """Rows of a table that are not blank; every row has as many fields as the first.

    Fields may stand in double quotes, and then hold delimiters and line ends.

    Raises:
        FileNotFoundError, ValueError: as `read_text`; a row of another length, a quote that is not closed, a field of
            more than MAX_FIELD characters.
    """
    lines = io.StringIO(read_text(path), newline="")
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    width, line = 0, 1
    while True:
        try:
            fields = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{path}, {_span(line, rows.line_num)}: {error}; is a quote open?") from error
        if fields is None:
            return
        if any(field.strip() for field in fields):
            width = width or len(fields)
            if len(fields) != width:
                raise ValueError(
                    f"{path}, {_span(line, rows.line_num)}: {len(fields)} fields, the first row has {width}; a field "
                    f"with {delimiter!r} in it stands in double quotes"
                )
            yield Row(line, fields)
        line = rows.line_num + 1


def _span(first: int, last: int) -> str:
    return f"line {first}" if last <= first else f"lines {first} to {last}"


def read_table(path: str | Path, columns: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and fields by column of each row of a csv with a header; errors as `read_rows`, and a missing column."""
    rows = read_rows(path)
    header = next(rows, Row(1, [])).fields
    missing = sorted(set(columns) - set(header))
    if missing:
        raise ValueError(f"{path}: no column {' and '.join(missing)}; found {header}")
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: two columns of one name among {header}")
    for line, fields in rows:
        yield line, dict(zip(header, fields, strict=True))


def video_id(value: Any, place: str) -> str:
    """An id of a video: text or a whole number that can be the name of a file in a folder, and no way out of it.

    Raises:
        ValueError: anything else; the message starts with `place`.
    """
    name = str(value) if isinstance(value, str) or type(value) is int else ""
    if not name.strip() or "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError(f"{place}: {str(value)[:80]!r} is no video id")
    return name


def read_plain_pickle(path: str | Path) -> Any:
    """Dictionaries, lists, text and numbers of a pickle; text of Python 2 is read too, and nothing is executed.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds anything else, is damaged, or stands for more values than memory holds.
    """
    data = read_bytes(path)
    try:
        try:
            value = load_plain(data, "utf-8")
        except UnicodeDecodeError:
            value = load_plain(data, "latin-1")
    except Exception as error:  # a damaged pickle raises whatever its damage leads to
        raise ValueError(f"{path} cannot be read: {error}") from error
    check_values(value, str(path))
    return value
