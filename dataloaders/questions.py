"""Readers of questions and answers in the files of MSRVTT-QA and MSVD-QA, and the answers to choose from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataloaders.annotation_files import annotation_file, is_text_record
from modules.foreign_text import read_json, read_json_lines, read_lines
from modules.foreign_text import video_id as checked_id

MAX_ANSWERS = 1500  # of a vocabulary that is counted: the size of MSRVTT-QA's own
NAME_FILES = ("id_mapping.json", "youtube_mapping.txt")


class Question(NamedTuple):
    """A question on a video; `question_id` is unique in its file."""

    question_id: str
    video_id: str
    question: str
    answer: str

    @property
    def is_whole(self) -> bool:
        """Whether question and answer hold a word."""
        return bool(self.question.strip() and self.answer.strip())


def read_msrvtt(path: str | Path, flag: str) -> list[Question]:
    """Questions of MSRVTT-QA: lines of {"question", "answer", "video_id", ...}, identified by their numbers from 1.

    Args:
        flag: where the path was given, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not in this form, or there is none.
    """
    path = annotation_file(path, "file of questions", flag)
    questions = []
    for number, entry in read_json_lines(path):
        if not is_text_record(entry, "question", "answer", "video_id"):
            raise ValueError(
                f"{path}, line {number}: {str(entry)[:80]}; "
                'lines are {"question": "...", "answer": "...", "video_id": "video..."}'
            )
        name = checked_id(entry["video_id"], f"{path}, line {number}")
        questions.append(Question(str(number), name, entry["question"], entry["answer"]))
    return _not_empty(questions, path)


def read_msvd(path: str | Path, names: Mapping[int, str], flag: str) -> list[Question]:
    """Questions of MSVD-QA: a list of {"question", "answer", "video_id": number, "id"}.

    Args:
        names: video name by number (`read_msvd_names`).
        flag: where the path was given, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an entry is not in this form, its video has no name, or there is none.
    """
    path = annotation_file(path, "file of questions", flag)
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path} holds no list of questions but {str(entries)[:80]}")
    return _not_empty([_msvd_question(entry, place, names, path) for place, entry in enumerate(entries)], path)


def _msvd_question(entry: Any, place: int, names: Mapping[int, str], path: Path) -> Question:
    if not is_text_record(entry, "question", "answer") or type(entry.get("video_id")) is not int:
        raise ValueError(
            f"{path}, entry {place}: {str(entry)[:80]}; "
            'entries are {"question": "...", "answer": "...", "video_id": number, "id": number}'
        )
    if entry["video_id"] not in names:
        raise ValueError(f"{path}, entry {place}: the mapping of numbers to names has no video {entry['video_id']}")
    own = entry.get("id", place)
    if not isinstance(own, str | int):
        raise ValueError(f"{path}, entry {place}: 'id' is {repr(own)[:80]}, neither text nor a number")
    return Question(str(own), names[entry["video_id"]], entry["question"], entry["answer"])


def _not_empty(questions: list[Question], path: Path) -> list[Question]:
    if not questions:
        raise ValueError(f"{path}: no questions")
    return questions


def read_msvd_names(folder: str | Path) -> dict[int, str]:
    """Video names of MSVD by their numbers in MSVD-QA, from id_mapping.json or youtube_mapping.txt in a folder.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: the file is not in its form.
    """
    paths = [Path(folder, name) for name in NAME_FILES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder}: no {' or '.join(NAME_FILES)}, which give the names of MSVD-QA's numbered videos "
            "(beside --msvd_qa_train_json, or --msvd_qa_names FOLDER)"
        )
    try:
        if path.suffix == ".json":
            pairs = list(read_json(path).items())
        else:
            rows = [line.split() for _, line in read_lines(path)]
            pairs = [(number.removeprefix("vid"), name) for name, number in rows]
        names = {int(number): checked_id(name, f"video {number}") for number, name in pairs}
        if len(names) < len(pairs):
            raise ValueError("two names have the same number")
        return names
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f'{path}: {error}; it is to hold {{"1": "name", ...}} (json) or lines "name vid1" (txt)'
        ) from error


def read_answers(path: str | Path, flag: str) -> list[str]:
    """Answers of train_ans2label.json, {answer: label}, in the order of their labels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the labels are not the numbers from 0 without a gap.
    """
    path = annotation_file(path, "file of answers", flag)
    labels = read_json(path)
    values = list(labels.values()) if isinstance(labels, dict) else [None]
    is_whole = all(type(label) in (int, str) for label in values)
    if not is_whole or sorted(map(str, values)) != sorted(map(str, range(len(values)))):
        raise ValueError(f"{path}: not {{answer: label}} with labels from 0 to the number of answers less 1")
    return sorted(labels, key=lambda answer: int(labels[answer]))


def most_frequent_answers(questions: Iterable[Question], limit: int = MAX_ANSWERS) -> list[str]:
    """The answers given most often, at most `limit`; of equally frequent ones the first in the alphabet."""
    counts = Counter(normalised(question.answer) for question in questions)
    counts.pop("", None)
    return sorted(counts, key=lambda answer: (-counts[answer], answer))[:limit]


def normalised(answer: str) -> str:
    """An answer as it is compared: lower case, single spaces."""
    return " ".join(answer.lower().split())


def by_video(questions: Sequence[Question]) -> dict[str, list[int]]:
    """Indices of each video's questions, videos in the order of their first question."""
    places: dict[str, list[int]] = {}
    for place, question in enumerate(questions):
        places.setdefault(question.video_id, []).append(place)
    return places
