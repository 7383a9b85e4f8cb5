"""A data set of one's own: tables whose rows name a video and say something of it.

A row has a caption, a question with its answer, or options of which one is the answer; a table may have rows of all
three, or rows that are all three.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from dataloaders.annotation_files import annotation_file
from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.multiple_choice import ChoiceItem
from dataloaders.object_records import find_object_file
from dataloaders.questions import Question
from dataloaders.video_files import split_extension
from modules.foreign_text import caption_text, read_json_lines, read_table, video_path

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = ".jsonl"
SPLITS = ("train", "val", "test")
OPTION = re.compile(r"option_(0|[1-9]\d{0,3})")
LIKE_OPTION = re.compile(r"\s*option[\s_-]*\d+\s*", re.IGNORECASE)
NUMBER = re.compile(r"(0|[1-9]\d{0,3})(\.0)?")  # a program that knows no missing whole numbers writes 1.0

ONE_VIDEO = "differ by their extension alone, and would be one video; rename one of them"

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Kind(NamedTuple):
    """A kind of row: what it has, in words, its columns, and the first of those that hold its text."""

    what: str
    columns: tuple[str, ...]
    text: str


CAPTIONS = Kind("caption", ("video", "caption"), "caption")
QUESTIONS = Kind("question", ("video", "question", "answer"), "question")
CHOICES = Kind("question with options", ("video", "option_1", "option_2", "answer"), "option_1")
KINDS = (CAPTIONS, QUESTIONS, CHOICES)


@dataclass(frozen=True)
class Table:
    """A table of videos, or a split of one.

    Attributes:
        path: .csv or .tsv with a header, or .jsonl with the same names in each line.
        split: train, val or test.
        is_shared: it has all splits, and a column `split` that says of which one a row is.
        flag: where the path was given, for messages.
    """

    path: Path
    split: str
    is_shared: bool
    flag: str


class Row(NamedTuple):
    """File and line of a row, its fields by column, and the names of its options in order."""

    place: str
    fields: dict[str, str]
    options: list[str]

    def has(self, kind: Kind) -> bool:
        """Whether it holds text of this kind of row."""
        names = self.options if kind is CHOICES else [kind.text]
        return any(self.fields.get(name, "").strip() for name in names)


# -- what a table gives


def read_captions(table: Table, *, of_choices: bool = False) -> CaptionSplit:
    """Videos and captions; several rows of a video are its captions. Empty captions are there too.

    Args:
        of_choices: the options that multiple choice is about are no surprise in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in this form, or has no caption of the split; the message names file and line.
    """
    videos = _Videos()
    pairs = [
        TextVideoPair(videos.add(row), caption_text(row.fields["caption"], row.place))
        for row in _rows(table, CAPTIONS, CHOICES if of_choices else CAPTIONS)
    ]
    return CaptionSplit.from_pairs(_not_empty(pairs, table, CAPTIONS), files=videos.files)


def read_questions(table: Table) -> tuple[list[Question], Mapping[str, str]]:
    """Questions, identified by their numbers from 1, and `CaptionSplit.files`.

    The answer of a row with options is the text of one of them. Errors as `read_captions` and `read_choices`.
    """
    videos = _Videos()
    questions = []
    for number, row in enumerate(_rows(table, QUESTIONS, QUESTIONS), 1):
        answer = _answer_text(row.fields["answer"], row)
        if row.has(CHOICES):  # the answer may be the number of one
            options = [row.fields[name] for name in row.options]
            answer = options[_answer(row, options)]
        question = caption_text(row.fields["question"], row.place)
        questions.append(Question(str(number), videos.add(row), question, answer))
    return _not_empty(questions, table, QUESTIONS), videos.files


def read_choices(table: Table) -> tuple[list[ChoiceItem], Mapping[str, str]]:
    """Questions of multiple choice, identified by their numbers from 1, and `CaptionSplit.files`.

    Errors as `read_captions`; also two equal options, and an answer that is none of them.
    """
    videos = _Videos()
    items: list[ChoiceItem] = []
    for number, row in enumerate(_rows(table, CHOICES, CHOICES), 1):
        options = [_answer_text(row.fields[name], row) for name in row.options]
        if items and len(options) != len(items[0].options):
            raise ValueError(f"{row.place}: {len(options)} options, but {len(items[0].options)} in the rows before")
        items.append(ChoiceItem(videos.add(row), options, _answer(row, options), str(number)))
    return _not_empty(items, table, CHOICES), videos.files


def has_rows(table: Table, kind: Kind) -> bool:
    """Whether a split has a row of a kind; errors as `read_captions`."""
    return next(_rows(table, kind, None), None) is not None


def kinds_of(table: Table) -> list[Kind]:
    """Those of KINDS of which the split has rows; errors as `read_captions`."""
    found: set[Kind] = set()
    for row in _records(table, ("video",), None):
        found |= {kind for kind in KINDS if set(kind.columns) <= set(row.fields) and row.has(kind)}
    return [kind for kind in KINDS if kind in found]


class Listed(Protocol):
    """Videos of a split, with the fields of `CaptionSplit`."""

    @property
    def video_ids(self) -> list[str]: ...
    @property
    def files(self) -> Mapping[str, str]: ...
    @property
    def object_names(self) -> Mapping[str, str]: ...


def check_splits(splits: Mapping[str, Listed]) -> None:
    """Raise ValueError for two files, or two videos' objects, that splits read apart take for one."""
    files: dict[str, str] = {}
    objects: dict[str, str] = {}
    for split in splits.values():
        for video_id in split.video_ids if split.files else ():
            path = split.files[video_id]
            known = files.setdefault(video_id, path)
            if known != path and video_id not in (known, path):
                raise ValueError(f"{path} and {known} {ONE_VIDEO}")
            name = split.object_names.get(video_id, video_id)
            other = objects.setdefault(name, video_id)
            if other != video_id:
                raise ValueError(
                    f"{name}.json would be the object file of {other} and of {video_id}: put their own at "
                    f"{other}.json and {video_id}.json below --object_path"
                )


def object_names(object_path: str | Path, video_ids: Collection[str]) -> dict[str, str]:
    """Names of the object files of videos whose ids are paths, less .json, where they are not the ids.

    The file lies as the video does, {object_path}/{video_id}.json. Where there is none, it has the video's name alone,
    as utils/extract_objects.py writes it, unless another of the videos has the same.
    """
    names = Counter(video_id.rpartition("/")[2] for video_id in video_ids)
    return {
        video_id: name
        for video_id in video_ids
        if (name := video_id.rpartition("/")[2]) != video_id
        and names[name] == 1
        and find_object_file(object_path, video_id) is None
    }


# -- rows


def _rows(table: Table, kind: Kind, task: Kind | None) -> Iterator[Row]:
    """The rows of a split that are of this kind: those with its text, and those without any. `task`: as `_records`."""
    for row in _records(table, kind.columns, task):
        if row.has(kind) or not any(map(row.has, KINDS)):
            yield row


def _records(table: Table, columns: tuple[str, ...], task: Kind | None) -> Iterator[Row]:
    """All rows of a split.

    Args:
        columns: those that must be there.
        task: kind of row that the task is about; columns that it does not read are named in the log, once for a file.
    """
    path = annotation_file(table.path, "table of videos", table.flag)
    wanted = (*columns, "split") if table.is_shared else columns
    names: tuple[str, ...] = ()
    options: list[str] = []
    for place, fields in _lines(path, wanted):
        if tuple(fields) != names:
            names, options = tuple(fields), _option_names(fields, place)
            if task and (extra := _unread(names, task)):
                _say_once(f"{path}: columns that are not read here: {', '.join(map(repr, extra))[:400]}")
        if _is_of_split(table, fields, place):
            yield Row(place, fields, options)


def _unread(names: Iterable[str], task: Kind) -> list[str]:
    """Columns that a task does not read; multiple choice trains on captions."""
    read = {"split", *task.columns, *(CAPTIONS.columns if task is CHOICES else ())}
    return [name for name in names if name not in read and not (task is CHOICES and OPTION.fullmatch(name))]


def _lines(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """File and line, and fields by column, of all rows."""
    kind = path.suffix.lower()
    if kind in DELIMITERS:
        for line, fields in read_table(path, columns, delimiter=DELIMITERS[kind]):
            yield f"{path}, line {line}", fields
    elif kind == JSON_LINES:
        for line, entry in read_json_lines(path):
            yield f"{path}, line {line}", _entry_fields(entry, columns, f"{path}, line {line}")
    else:
        raise ValueError(f"{path}: name a table .csv (commas), .tsv (tabs) or .jsonl (an object of JSON in each line)")


def _entry_fields(entry: Any, columns: tuple[str, ...], place: str) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise ValueError(f'{place}: {str(entry)[:80]!r} is no object; lines are {{"video": "...", ...}}')
    missing = [name for name in columns if name not in entry]
    if missing:
        raise ValueError(
            f"{place}: no {' and '.join(missing)}; found {str(list(entry))[:400]}, and {', '.join(columns)} are wanted"
        )
    return {name: _as_field(value, name, place) for name, value in entry.items()}


def _as_field(value: Any, name: str, place: str) -> str:
    """A value of JSON as a csv has it; null is an empty field."""
    if isinstance(value, str) or value is None:
        return value or ""
    if type(value) is int or isinstance(value, float):
        return str(value)
    raise ValueError(
        f"{place}: {name} is {repr(value)[:80]}, neither text nor a number; write one text, and a line for each"
    )


def _option_names(fields: Mapping[str, str], place: str) -> list[str]:
    """option_1 ... option_n of a row; ValueError unless the numbers are those from 1 without a gap."""
    other = [name for name in fields if LIKE_OPTION.fullmatch(name) and not OPTION.fullmatch(name)]
    if other:
        raise ValueError(f"{place}: column {other[0][:80]!r}; options are option_1, option_2, ...")
    numbers = sorted(int(found[1]) for name in fields if (found := OPTION.fullmatch(name)))
    if numbers != list(range(1, len(numbers) + 1)):
        shown = ", ".join(f"option_{number}" for number in numbers)
        raise ValueError(f"{place}: options are option_1, option_2, ... without a gap; found {shown[:200]}")
    return [f"option_{number}" for number in numbers]


def _is_of_split(table: Table, fields: Mapping[str, str], place: str) -> bool:
    split = fields.get("split", "").strip()
    if not table.is_shared:
        if split not in ("", table.split):
            raise ValueError(
                f"{place}: a row of split {split[:80]!r}, read for {table.split} ({table.flag}); give a table of all "
                "splits as --data_csv, or take the column split out"
            )
        return True
    if split not in SPLITS:
        raise ValueError(f"{place}: split is {split[:80]!r}; write train, val or test")
    return split == table.split


@functools.cache
def _say_once(message: str) -> None:
    logger.warning("%s", message)


# -- fields


class _Videos:
    """Paths of videos by id, which is the path without its extension."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def add(self, row: Row) -> str:
        """The id of a row's video; ValueError if another file would have it too."""
        path = video_path(row.fields["video"], row.place)
        video_id, suffix = split_extension(path)
        known = self.files.setdefault(video_id, path)
        if suffix and known != path:
            if known != video_id:
                raise ValueError(f"{row.place}: {path} and {known} {ONE_VIDEO}")
            self.files[video_id] = path
        return video_id


def _answer_text(text: str, row: Row) -> str:
    """An answer or an option, which "none" may be."""
    return text if text.strip() == "none" else caption_text(text, row.place)


def _answer(row: Row, options: list[str]) -> int:
    """Position from 0 of the answer: the number of its option from 1, that option's name, or its text."""
    written = row.fields["answer"].strip()
    texts = [option.strip() for option in options]
    if not any(texts):
        return 0  # of a row without text, which is left out
    doubled = [number for number, text in enumerate(texts, 1) if text and texts.index(text) != number - 1]
    if doubled:
        first = texts.index(texts[doubled[0] - 1]) + 1
        raise ValueError(f"{row.place}: option_{first} and option_{doubled[0]} are the same; change one of them")
    readings = {texts.index(written)} if written in texts else set()
    if written in row.options:
        readings.add(row.options.index(written))
    number = NUMBER.fullmatch(written)
    if number and 1 <= int(number[1]) <= len(texts):
        readings.add(int(number[1]) - 1)
    if len(readings) > 1:
        names = " or ".join(f"option_{place + 1}" for place in sorted(readings))
        raise ValueError(f"{row.place}: answer {written[:80]!r} may be {names}; write the name of the option")
    if not written or not readings:
        raise ValueError(
            f"{row.place}: answer {written[:80]!r} is none of the {len(texts)} options; write its number, from 1 to "
            f"{len(texts)}"
        )
    [place] = readings
    caption = row.fields.get("caption", "").strip()
    if caption and caption in texts and texts.index(caption) != place:
        raise ValueError(
            f"{row.place}: the caption is option_{texts.index(caption) + 1}, the answer {written[:80]!r} is "
            f"option_{place + 1}; numbers count from 1"
        )
    return place


def _not_empty(found: list[T], table: Table, kind: Kind) -> list[T]:
    if not found:
        of_split = f" of split {table.split}" if table.is_shared else ""
        raise ValueError(f"{table.path}: no row with a {kind.what}{of_split} ({table.flag})")
    return found
