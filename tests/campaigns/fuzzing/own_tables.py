"""Readers of tables of one's own."""

from __future__ import annotations

import json
from pathlib import Path

from dataloaders.datasets.csv_files import Table, read_captions, read_choices, read_questions
from tests.campaigns.fuzzing.annotation_files import ERRORS, WORDS
from tests.campaigns.fuzzing.forms import CSV, JSON_LINES, csv_mutators, drop, known, put, rearranged
from tests.campaigns.fuzzing.mutators import KNOWN_TEXT
from tests.campaigns.fuzzing.reader import Expected, Reader, Taken

PATHS = [f"clips/{number}.mp4" for number in range(6)]
BAD_PATHS = ("", " ", "..", "../up", "/etc/up", "C:/up", "a/../../up", "a\\b", "nan")
OPTIONS = ("red", "green", "blue")


def _make(folder: Path) -> None:
    captions = [f"{path},{text.split(',')[0]}" for path, text in zip(PATHS, WORDS, strict=True)]
    (folder / "own.csv").write_text("\n".join(["video,caption", *captions]) + "\n")
    choices = [f"{path},{','.join(OPTIONS)},{number % 3 + 1}" for number, path in enumerate(PATHS)]
    (folder / "choices.csv").write_text("\n".join(["video,option_1,option_2,option_3,answer", *choices]) + "\n")
    asked = [{"video": path, "question": text, "answer": "red"} for path, text in zip(PATHS, WORDS, strict=True)]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))


def _table(path: Path) -> Table:
    return Table(path, "test", False, "--test_csv")


def _captions(folder: Path) -> Taken:
    split = read_captions(_table(folder / "own.csv"))
    kept = split.without_empty_captions()
    content = (kept.by_video(), kept.captions, {name: split.files[name] for name in kept.video_ids})
    return Taken(len(kept.captions), len(split.captions) - len(kept.captions), content)


def _questions(folder: Path) -> Taken:
    asked, files = read_questions(_table(folder / "own.jsonl"))
    kept = [question for question in asked if question.is_whole]
    return Taken(len(kept), len(asked) - len(kept), [(*question, files[question.video_id]) for question in kept])


def _choices(folder: Path) -> Taken:
    items, files = read_choices(_table(folder / "choices.csv"))
    kept = [item for item in items if item.is_whole]
    return Taken(len(kept), len(items) - len(kept), [(*item, files[item.video_id]) for item in kept])


READERS = (
    Reader(
        "own-captions-csv",
        _make,
        {
            "own.csv": (
                *KNOWN_TEXT,
                *csv_mutators("caption", "video", checked=("text",)),
                known(CSV, "a path out of the folder", Expected.REFUSED, put(0, BAD_PATHS, first=1)),
            )
        },
        _captions,
        ERRORS,
    ),
    Reader(
        "own-questions-jsonl",
        _make,
        {
            "own.jsonl": (
                *KNOWN_TEXT,
                rearranged(JSON_LINES),
                known(JSON_LINES, "a row dropped", Expected.FEWER, drop()),
                known(JSON_LINES, "a bad path", Expected.REFUSED, put("video", (*BAD_PATHS, None, True, ["a"], {}))),
                known(JSON_LINES, "no text", Expected.REFUSED, put("question", (True, ["a"], {"a": "b"}))),
                known(JSON_LINES, "an empty text", Expected.COUNTED, put("answer", ("", " ", None))),
            )
        },
        _questions,
        ERRORS,
    ),
    Reader(
        "own-choices-csv",
        _make,
        {
            "choices.csv": (
                *KNOWN_TEXT,
                *csv_mutators("option_2", "video", checked=("text",)),
                known(CSV, "a path out of the folder", Expected.REFUSED, put(0, BAD_PATHS, first=1)),
                known(CSV, "no option", Expected.REFUSED, put(4, ("0", "4", "-1", "", "1.5", "black", "1e0"), first=1)),
                known(CSV, "two equal options", Expected.REFUSED, put(2, ("red", " blue "), first=1)),
            )
        },
        _choices,
        ERRORS,
    ),
)
