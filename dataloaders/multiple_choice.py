"""Questions of text-video multiple choice: which of several captions is the clip's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from dataloaders.annotation_files import annotation_file
from modules.foreign_text import read_json_lines
from modules.foreign_text import video_id as checked_id


class ChoiceItem(NamedTuple):
    """One question: `answer` is the position of the clip's caption among the `options`."""

    video_id: str
    options: list[str]
    answer: int
    item_id: str

    @property
    def is_whole(self) -> bool:
        """Whether every option holds a word."""
        return all(option.strip() for option in self.options)


def read_choices(path: str | Path) -> list[ChoiceItem]:
    """Questions of MSR-VTT's mc_test.jsonl or a file like it.

    Args:
        path: JSON lines of {"clip_name" or "video_id": id, "options": [K texts], "answer": position}, all with the same
            K of at least 2. Where a line has no "qid", its number identifies it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not in this form (the message names it), or there is none.
    """
    path = annotation_file(path, "file of questions", "--val_csv or --test_csv")
    items: list[ChoiceItem] = []
    for number, line in read_json_lines(path):
        try:
            item = _item(line, number)
            if items and len(item.options) != len(items[0].options):
                raise ValueError(f"{len(item.options)} options, but {len(items[0].options)} in the lines before")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        items.append(item)
    if not items:
        raise ValueError(f"{path}: no questions")
    return items


def _item(line: Any, number: int) -> ChoiceItem:
    if not isinstance(line, dict):
        raise ValueError(f"not a JSON object but {str(line)[:80]!r}")
    video_id, options, answer = line.get("clip_name", line.get("video_id")), line.get("options"), line.get("answer")
    if not isinstance(video_id, str):
        raise ValueError(f"'clip_name' (or 'video_id') is {repr(video_id)[:80]}, not a video id")
    checked_id(video_id, "'clip_name' (or 'video_id')")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(text, str) for text in options):
        raise ValueError(f"'options' is {str(options)[:80]}, not a list of at least two texts")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
        raise ValueError(f"'answer' is {repr(answer)[:80]}, not a position from 0 to {len(options) - 1}")
    item_id = line.get("qid", number)
    if not isinstance(item_id, str | int):
        raise ValueError(f"'qid' is {repr(item_id)[:80]}, neither text nor a number")
    return ChoiceItem(video_id, options, answer, str(item_id))
