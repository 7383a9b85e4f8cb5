"""Files of questions and answers of MSRVTT-QA and MSVD-QA."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataloaders.questions import (
    Question,
    by_video,
    most_frequent_answers,
    normalised,
    read_answers,
    read_msrvtt,
    read_msvd,
    read_msvd_names,
)

LINE = {"answer": "a couch", "question": "what is it?", "video_id": "video6513", "answer_type": "what"}
ENTRY = {"answer": "dog", "id": 30933, "question": "what runs?", "video_id": 1201}
NAMES = {1201: "abc_0_5"}
FLAG = "--some_json"


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_msrvtt_questions_are_numbered_by_their_lines(tmp_path: Path):
    lines = [json.dumps(LINE), "", json.dumps({**LINE, "question": "café \u2028?"}, ensure_ascii=False)]
    questions = read_msrvtt(write(tmp_path / "val.jsonl", "\n".join(lines) + "\n"), FLAG)
    assert questions == [
        Question("1", "video6513", "what is it?", "a couch"),
        Question("3", "video6513", "café \u2028?", "a couch"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"val\.jsonl, line 2 is not JSON"),
        ("[1]", r"val\.jsonl, line 2: \[1\]; lines are"),
        (json.dumps({**LINE, "answer": 3}), "line 2: .*lines are"),
        (json.dumps({"question": "what?", "answer": "dog"}), "line 2: .*video_id"),
    ],
)
def test_other_lines_are_named(tmp_path: Path, line: str, message: str):
    path = write(tmp_path / "val.jsonl", json.dumps(LINE) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_msrvtt(path, FLAG)


def test_msvd_questions_get_the_names_of_their_videos(tmp_path: Path):
    path = write(tmp_path / "test_qa.json", [ENTRY])
    assert read_msvd(path, NAMES, FLAG) == [Question("30933", "abc_0_5", "what runs?", "dog")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "holds no list of questions"),
        ([ENTRY, {**ENTRY, "video_id": "1201"}], "entry 1: .*entries are"),
        ([{**ENTRY, "video_id": True}], "entry 0: .*entries are"),
        ([{**ENTRY, "video_id": 7}], "entry 0: the mapping of numbers to names has no video 7"),
        ("[", "is not JSON"),
    ],
)
def test_other_entries_are_named(tmp_path: Path, content: Any, message: str):
    with pytest.raises(ValueError, match=message):
        read_msvd(write(tmp_path / "test_qa.json", content), NAMES, FLAG)


def test_files_without_questions_and_missing_files_are_errors(tmp_path: Path):
    for path, read in (
        (write(tmp_path / "a.jsonl", "\n"), lambda path: read_msrvtt(path, FLAG)),
        (write(tmp_path / "a.json", []), lambda path: read_msvd(path, NAMES, FLAG)),
    ):
        with pytest.raises(ValueError, match="no questions"):
            read(path)
        path.unlink()
        with pytest.raises(FileNotFoundError, match="no such file of questions.*--some_json"):
            read(path)


def test_names_come_in_two_forms(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no id_mapping\.json or youtube_mapping\.txt.*--msvd_qa_names"):
        read_msvd_names(tmp_path)
    write(tmp_path / "youtube_mapping.txt", "abc_0_5 vid1201\nx vid2\n\n")
    assert read_msvd_names(tmp_path) == {1201: "abc_0_5", 2: "x"}
    write(tmp_path / "id_mapping.json", {"1201": "abc_0_5"})
    assert read_msvd_names(tmp_path) == NAMES
    for content in ("[1]", '{"one": "x"}', "{"):
        with pytest.raises(ValueError, match=r"id_mapping\.json"):
            read_msvd_names(write(tmp_path / "id_mapping.json", content).parent)


def test_answers_are_ordered_by_their_labels(tmp_path: Path):
    path = write(tmp_path / "train_ans2label.json", {"cat": 1, "a dog": 0, "two": 2})
    assert read_answers(path, FLAG) == ["a dog", "cat", "two"]
    for content in ({"cat": 0, "dog": 2}, {"cat": 0, "dog": 0}, ["cat"], {"cat": "x"}):
        with pytest.raises(ValueError, match="labels from 0"):
            read_answers(write(path, content), FLAG)


def test_the_most_frequent_answers_are_counted_without_regard_to_case_and_spaces():
    answers = ["Dog", "cat", "dog ", "two  men", "two men", "", "bird", "dog"]
    questions = [Question(str(i), "v", "q", answer) for i, answer in enumerate(answers)]
    assert most_frequent_answers(questions) == ["dog", "two men", "bird", "cat"]
    assert most_frequent_answers(questions, 2) == ["dog", "two men"]


def test_questions_by_video_in_the_order_of_their_first():
    questions = [Question(str(i), video, "q", "a") for i, video in enumerate("baab")]
    assert by_video(questions) == {"b": [0, 3], "a": [1, 2]}


def test_the_real_files_are_read_whole(shared: Path):
    folder = shared / "realdata/msvd_qa"
    names = read_msvd_names(folder)
    assert len(names) == 1970
    youtube = dict(line.split() for line in (folder / "youtube_mapping.txt").read_text().splitlines() if line)
    assert {f"vid{number}": name for number, name in names.items()} == {
        number: name for name, number in youtube.items()
    }
    counts = {"train": 30_933, "val": 6_415, "test": 13_157}
    splits = {name: read_msvd(folder / f"{name}_qa.json", names, FLAG) for name in counts}
    assert {name: len(questions) for name, questions in splits.items()} == counts
    ids = {question.question_id for questions in splits.values() for question in questions}
    assert len(ids) == sum(counts.values())
    several = sum(len(normalised(question.answer).split()) > 1 for question in splits["train"])
    assert several < 0.05 * counts["train"]
    questions = read_msrvtt(shared / "realdata/msrvtt_qa/val.jsonl", FLAG)
    answers = read_answers(shared / "realdata/msrvtt_qa/train_ans2label.json", FLAG)
    assert (len(questions), len(by_video(questions)), len(answers)) == (12_278, 497, 1500)
    outside = Counter(question.answer not in set(answers) for question in questions)
    assert outside[True] == 859


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("id_mapping.json", '{"1": ["a"]}', "video 1: .* is no video id"),
        ("id_mapping.json", '{"1": null}', "video 1: None is no video id"),
        ("id_mapping.json", '{"1": "../a"}', "video 1: .* is no video id"),
        ("id_mapping.json", '{"1": "a", "01": "b"}', "two names have the same number"),
        ("youtube_mapping.txt", "a vid1\nb vid1\n", "two names have the same number"),
        ("youtube_mapping.txt", "a vid1\nb\n", "not enough values"),
        ("youtube_mapping.txt", "a vid1\r../b vid2\r", "video 2: .* is no video id"),
    ],
)
def test_names_that_mean_something_else_are_errors(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_bytes(content.encode())
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        read_msvd_names(tmp_path)


@pytest.mark.parametrize(
    "labels", [{"dog": True, "cat": 0}, {"dog": 0.0}, {"dog": None}, {"dog": [0]}, {"dog": 1}, [0], 3]
)
def test_labels_that_are_no_numbers_in_order_are_errors(tmp_path: Path, labels: Any):
    with pytest.raises(ValueError, match=r"a\.json: not \{answer: label\}"):
        read_answers(write(tmp_path / "a.json", labels), "--flag")
