"""Files of multiple-choice questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataloaders.multiple_choice import ChoiceItem, read_choices

GOOD = {"clip_name": "video7010", "options": ["a dog", "a cat", "caf\u00e9 \u2028 bar"], "answer": 2, "qid": 17}


def write(folder: Path, *lines: Any) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path = folder / "mc_test.jsonl"
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def test_questions_of_both_forms_are_read(tmp_path: Path):
    other = {"video_id": "video7011", "options": ["x", "y", "z"], "answer": 0, "caption": "x"}
    assert read_choices(write(tmp_path, GOOD, "", other)) == [
        ChoiceItem("video7010", ["a dog", "a cat", "café \u2028 bar"], 2, "17"),
        ChoiceItem("video7011", ["x", "y", "z"], 0, "3"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ""),
        ([1], "not a JSON object"),
        ({**GOOD, "clip_name": 7010}, "'clip_name'.* is 7010"),
        ({"options": ["a", "b", "c"], "answer": 0}, "'clip_name'.* is None"),
        ({**GOOD, "options": None}, "'options' is None"),
        ({**GOOD, "options": ["a"]}, "at least two"),
        ({**GOOD, "options": ["a", "b", 3]}, "not a list of at least two texts"),
        ({**GOOD, "options": ["a", "b"], "answer": 0}, "2 options, but 3 in the lines before"),
        ({**GOOD, "answer": 3}, "'answer' is 3, not a position from 0 to 2"),
        ({**GOOD, "answer": -1}, "'answer' is -1"),
        ({**GOOD, "answer": "1"}, "'answer' is '1'"),
        ({**GOOD, "answer": True}, "'answer' is True"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, message: str):
    with pytest.raises(ValueError, match=rf"mc_test\.jsonl, line 2.*{message}"):
        read_choices(write(tmp_path, GOOD, line, GOOD))


def test_missing_and_empty_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl: no such file of questions \(--val_csv or --test_csv\)"):
        read_choices(tmp_path / "gone.jsonl")
    with pytest.raises(ValueError, match=r"mc_test\.jsonl: no questions"):
        read_choices(write(tmp_path))
