"""The one reader of text files that users bring: plain text, json, jsonl, csv and plain pickles, bounded and strict.

Every error is a ValueError that names file, line where there is one, and remedy. Free of PyTorch: every kind of process
reads here.
"""

from __future__ import annotations

import codecs
import csv
import json
import logging
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from modules.characters import CONTROL_OR_BREAK, REPLACEMENT, whole_characters
from modules.plain_pickle import MAX_DEPTH, check_values, load_plain

logger = logging.getLogger(__name__)

MAX_BYTES = 1 << 30
PART = 1 << 20  # bytes that are read at once
MAX_LINE = 1 << 26  # characters of a line, or of a row of a table, which may have several
MAX_ID = 200  # bytes of the name of a file, less its ending
MAX_PATH = 1000  # bytes of a path below a folder
MISSING = ("None", "none", "NaN", "nan", "null", "NULL")  # what programs write for a value that is not there
NO_CLASS = frozenset(("", *MISSING))
CONVERT = "save it as UTF-8, for instance with: iconv -f latin1 -t utf-8"
OTHER_FILES = {
    b"\x1f\x8b": "compressed with gzip; unpack it first, with: gunzip -k",
    b"BZh": "compressed with bzip2; unpack it first, with: bunzip2 -k",
    b"\xfd7zXZ\0": "compressed with xz; unpack it first, with: unxz -k",
    b"(\xb5/\xfd": "compressed with zstd; unpack it first, with: unzstd",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as csv in UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as csv in UTF-8",
    b"\x80\x02": "a pickle and no text",
    b"\x80\x03": "a pickle and no text",
    b"\x80\x04": "a pickle and no text",
    b"\x80\x05": "a pickle and no text",
    b"\xff\xfe\0\0": f"UTF-32 text; {CONVERT.replace('latin1', 'utf-32')}",
    b"\0\0\xfe\xff": f"UTF-32 text; {CONVERT.replace('latin1', 'utf-32')}",
    b"\xff\xfe": f"UTF-16 text; {CONVERT.replace('latin1', 'utf-16')}",
    b"\xfe\xff": f"UTF-16 text; {CONVERT.replace('latin1', 'utf-16')}",
}
DRIVE = re.compile(r"[A-Za-z]:($|/)")
AFTER_LINE_END = re.compile(r"(?<=\n)|(?<=\r)(?=[^\n])")
# Where the first four bytes are NUL, for text without a mark that starts with two characters of ASCII.
WIDE_TEXT: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32le",
    (True, True, True, False): "utf-32be",
    (False, True, False, True): "utf-16le",
    (True, False, True, False): "utf-16be",
}


class Row(NamedTuple):
    """A row of a table: the line that it starts at, from 1, and its fields."""

    line: int
    fields: list[str]


def why_no_file(path: str | Path) -> str:
    """Why there is nothing to read at a path; "" for a file. Opening a pipe would wait for ever."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"a link to {os.readlink(path)}, which is not there" if path.is_symlink() else "there is no such file"
    except (OSError, ValueError) as error:  # a loop of links, no permission, a NUL in the name
        return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISREG(mode):
        return ""
    return "a folder, not a file" if stat.S_ISDIR(mode) else "a pipe or a device, not a file"


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """Content of a file of at most `limit` bytes, by default MAX_BYTES.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is too large, is no file, cannot be read, or is changed meanwhile.
    """
    with _opened(path, limit or MAX_BYTES) as file:
        return file.read((limit or MAX_BYTES) + 1)


@contextmanager
def _opened(path: str | Path, limit: int | None) -> Iterator[BinaryIO]:
    """A regular file, open; what goes wrong with it while it is read is an error of `read_bytes` too."""
    try:
        # A pipe would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                what = "Is a directory" if stat.S_ISDIR(before.st_mode) else "Is a pipe or a device"
                raise ValueError(f"{path}: cannot be read: {what}; name a file")
            if limit is not None and before.st_size > limit:
                raise ValueError(f"{path}: {before.st_size} bytes, more than the {limit} that are read of a text file")
            with open(descriptor, "rb", closefd=False) as file:
                yield file
                # Whoever stops before the end knows what is wrong.
                after = os.fstat(descriptor)
                if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                    raise ValueError(f"{path}: was changed while it was read; try again when it is written")
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        if os.path.islink(path):
            missing = f"{path}: is a link to {os.readlink(path)}, which is not there"
            raise FileNotFoundError(missing) from None
        raise
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def read_text(path: str | Path) -> str:
    """Text of a file, with or without a byte order mark; errors as `read_bytes`, and what is not UTF-8 or has a NUL."""
    return "".join(iterate_text(path))


def iterate_text(path: str | Path, is_streamed: bool = False) -> Iterator[str]:
    """Text of a file in parts of at most PART bytes; errors as `read_text`.

    Args:
        is_streamed: the file may have any size, since nothing of what is read is kept.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line = 1
    with _opened(path, None if is_streamed else MAX_BYTES) as file:
        data = file.read(PART)
        _check_kind(data, path)
        while True:
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                byte = error.object[error.start]
                raise ValueError(f"{path}, line {line}: not UTF-8 (byte 0x{byte:02x}); {CONVERT}") from error
            if "\0" in text:
                line += text[: text.index("\0")].count("\n")
                raise ValueError(f"{path}, line {line}: a NUL character, so it is no text file or a damaged one")
            yield text
            if not data:
                return
            line += text.count("\n")
            data = file.read(PART)


def _check_kind(head: bytes, path: str | Path) -> None:
    """Raise ValueError for what is no UTF-8 text by its first bytes, and say what it is."""
    for start, kind in OTHER_FILES.items():
        if head.startswith(start):
            raise ValueError(f"{path}: {kind}")
    wide = WIDE_TEXT.get(tuple(byte == 0 for byte in head[:4]))
    if wide:
        raise ValueError(f"{path}: {wide[:6].upper()} text; {CONVERT.replace('latin1', wide)}")


def iterate_lines(path: str | Path, is_streamed: bool = False) -> Iterator[tuple[int, str]]:
    r"""Number, from 1, and text of each line as it is, with its end: \n, \r\n or \r.

    Args:
        is_streamed: as for `iterate_text`.

    Raises:
        FileNotFoundError, ValueError: as `read_text`; a line of more than MAX_LINE characters.
    """
    first, rest = 1, ""
    for text in iterate_text(path, is_streamed):
        *lines, rest = _lines(rest + text)
        yield from enumerate(lines, first)
        first += len(lines)
        if len(rest) > MAX_LINE:
            raise ValueError(f"{path}, line {first}: more than {MAX_LINE} characters; is it another kind of file?")
    if rest:
        yield first, rest


def _lines(text: str) -> list[str]:
    """Lines of a part of a text with their ends, and what is behind the last of them; a return may be half an end."""
    if text.count("\r") != text.count("\r\n"):
        return AFTER_LINE_END.split(text)
    *lines, rest = text.split("\n")
    return [*(line + "\n" for line in lines), rest]


def read_lines(path: str | Path, is_streamed: bool = False) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank, without white space around it; as `iterate_lines`."""
    for number, line in iterate_lines(path, is_streamed):
        if line := line.strip():
            yield number, line


def read_json(path: str | Path, any_number: bool = False) -> Any:
    """Content of a JSON file; errors as `read_text`, and `parse_json`.

    Args:
        any_number: numbers may be infinite or none, for a reader that checks each.
    """
    return parse_json(read_text(path), str(path), "is the file complete?", any_number)


def read_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Number, from 1, and value of each line of JSON that is not blank; errors as `read_json`."""
    replaced = 0
    for number, line in read_lines(path):
        value, count = _parsed(line, f"{path}, line {number}", "lines are JSON each")
        replaced += count
        yield number, value
    log_replaced(path, replaced)


def parse_json(text: str, name: str, remedy: str, any_number: bool = False) -> Any:
    """A JSON text of the place `name`; characters that no file can hold are replaced, counted and logged.

    Args:
        any_number: as for `read_json`.

    Raises:
        ValueError: not JSON, nested too deeply, a name twice in one dictionary, or a number that is none or too large.
    """
    value, replaced = _parsed(text, name, remedy, any_number)
    log_replaced(name, replaced)
    return value


def _parsed(text: str, name: str, remedy: str, any_number: bool = False) -> tuple[Any, int]:
    """See `parse_json`; how many characters are replaced."""
    try:
        value = (ANY_NUMBER_DECODER if any_number else JSON_DECODER).decode(text)
    except RecursionError as error:
        raise _too_deep(name) from error
    except ValueError as error:  # also a number of thousands of digits
        raise ValueError(f"{name} is not JSON: {error}; {remedy}") from error
    _check_depth(value, name)
    return _mended(value) if "\\u" in text else (value, 0)


def _dictionary(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"a dictionary has {twice[:80]!r} twice; delete one of them")
    return made


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no number that can be held")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value of JSON; write null or a number")


JSON_DECODER = json.JSONDecoder(object_pairs_hook=_dictionary, parse_float=_number, parse_constant=_no_constant)
ANY_NUMBER_DECODER = json.JSONDecoder(object_pairs_hook=_dictionary)


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


def log_replaced(path: str | Path, count: int) -> None:
    """Log how many characters of a file were replaced, if any."""
    if count:
        logger.warning(
            "%s: %d halves of characters (lone surrogates) or NULs are replaced by %s", path, count, REPLACEMENT
        )


def _mended(value: Any) -> tuple[Any, int]:
    """The value without characters that no file can hold, and how many those were."""
    replaced = 0

    def mend(part: Any) -> Any:
        nonlocal replaced
        if isinstance(part, str):
            text, count = whole_characters(part)
            replaced += count
            return text
        if isinstance(part, list | tuple):
            return type(part)(mend(inner) for inner in part)
        if isinstance(part, dict):
            return {mend(key): mend(inner) for key, inner in part.items()}
        return part

    return mend(value), replaced


def read_rows(path: str | Path, delimiter: str = ",", is_streamed: bool = False) -> Iterator[Row]:
    """Rows of a table that are not blank; every row has as many fields as the first.

    Fields may stand in double quotes, and then hold delimiters and line ends.

    Args:
        is_streamed: as for `iterate_lines`.

    Raises:
        FileNotFoundError, ValueError: as `iterate_lines`; a row of another length or of more than MAX_LINE characters,
            a quote that is not closed, a field of more than 131,072 characters.
    """
    read = 0  # characters of the row

    def lines() -> Iterator[str]:
        nonlocal read
        for _, text in iterate_lines(path, is_streamed):
            read += len(text)
            if read > MAX_LINE:
                raise csv.Error(f"a row of more than {MAX_LINE} characters")
            yield text

    rows = csv.reader(lines(), delimiter=delimiter, strict=True)
    width, line = 0, 1
    while True:
        read = 0
        try:
            fields = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{path}, {_span(line, rows.line_num)}: {error}; is a quote open?") from error
        if fields is None:
            return
        if any(map(str.strip, fields)):
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


def read_table(
    path: str | Path, columns: Sequence[str] = (), is_streamed: bool = False, delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and fields by column of each row of a table with a header; errors as `read_rows`, and a missing column."""
    rows = read_rows(path, delimiter, is_streamed)
    header = next(rows, Row(1, [])).fields
    missing = sorted(set(columns) - set(header))
    if missing:
        raise ValueError(
            f"{path}: no column {' and '.join(missing)}; found {str(header)[:400]}. The first line names the columns, "
            f"{', '.join(columns)} among them, with {delimiter!r} between two"
        )
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: two columns of one name among {str(header)[:400]}")
    for line, fields in rows:
        yield line, dict(zip(header, fields, strict=True))


def video_id(value: Any, place: str) -> str:
    """An id of a video: text or a whole number that can be the name of a file in a folder, and no way out of it.

    Raises:
        ValueError: anything else; the message starts with `place`.
    """
    name = _as_text(value)
    if not _is_name(name) or name in MISSING:
        raise ValueError(f"{place}: {repr(value)[:80]} is no video id, which is the name of a file without its ending")
    return name


def video_path(value: Any, place: str) -> str:
    """A path below the folder of the videos: text or a whole number, and no way out of that folder.

    Returns:
        The path without white space around it, `./` and empty parts.

    Raises:
        ValueError: anything else; the message starts with `place`.
    """
    text = _as_text(value).strip()
    parts = [part for part in text.split("/") if part not in ("", ".")]
    why = ""
    if "\\" in text:
        why = "has backslashes; write / between folders"
    elif text.startswith("/") or DRIVE.match(text):
        why = "is absolute; write it relative to the folder of the videos"
    elif ".." in parts:
        why = "leads out of the folder of the videos"
    elif text in MISSING or not parts or not all(map(_is_name, parts)) or len(text.encode()) > MAX_PATH:
        why = "is no path of a video below the folder of the videos"
    if why:
        raise ValueError(f"{place}: {repr(value)[:80]} {why}")
    return "/".join(parts)


def _as_text(value: Any) -> str:
    return str(value) if isinstance(value, str) or type(value) is int and abs(value) < 10**MAX_ID else ""


def _is_name(name: str) -> bool:
    """Whether this can be the name of a file in a folder."""
    return not (
        not name.strip()
        or "/" in name
        or REPLACEMENT in name  # a NUL or half a character stood there
        or name in (".", "..")
        or CONTROL_OR_BREAK.search(name)
        or len(name.encode()) > MAX_ID
    )


def caption_text(value: Any, place: str) -> str:
    """A caption, question or answer: text, and not a list or a value that is not there, written as text.

    Raises:
        ValueError: anything else; the message starts with `place`.
    """
    if not isinstance(value, str) or is_no_caption(value):
        raise ValueError(f"{place}: {repr(value)[:80]} is no caption; correct it or delete the entry")
    return value


def is_no_caption(text: str) -> bool:
    """Whether a program wrote this text for a value that is not there, or for a list."""
    text = text.strip()
    return text in MISSING or text == "[]" or (text[:2] in ("['", '["') and text[-2:] in ("']", '"]'))


def is_class_name(value: Any) -> bool:
    """Whether a value names a class: text that is more than white space, and not what stands for a missing value."""
    return isinstance(value, str) and value.strip() not in NO_CLASS


def class_name(value: Any, place: str) -> str:
    """A class name as it is; ValueError that starts with `place` for what names none, such as None or "nan"."""
    if not is_class_name(value):
        raise ValueError(f"{place}: {repr(value)[:80]} is no class name; correct it or delete the entry")
    return value


def read_plain_pickle(path: str | Path) -> Any:
    """Dictionaries, lists, text and numbers of a pickle; text of Python 2 is read too, and nothing is executed.

    Characters that no file can hold are replaced, counted and logged.

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
    value, replaced = _mended(value)
    log_replaced(path, replaced)
    return value
