"""Flags of question answering: which files they name, and which answers there are to choose from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataloaders.question_samples import AnswerCode
from modules.config import ModelConfig
from tests.world import Downstream
from utils.data.questions import AnswerArguments, choose_answers, open_questions, read_questions

QUESTIONS = [
    {"answer": answer, "question": f"what is {i}?", "video_id": "video0"}
    for i, answer in enumerate(["dog", "cat", "dog", "a cat", "cat", "dog", "rare"])
]


def arguments(folder: Path, **flags: Any) -> AnswerArguments:
    base: dict[str, Any] = {"output_dir": str(folder / "run"), "do_train": True, "datatype": "msrvtt_qa"}
    return AnswerArguments(**{**base, **flags})


@pytest.fixture
def train_json(tmp_path: Path) -> str:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return str(path)


def test_flags_of_the_chosen_data_set_count(tmp_path: Path, train_json: str):
    args = arguments(tmp_path, msrvtt_features_path="v", msvd_features_path="w", msrvtt_qa_train_json=train_json)
    assert args.features_path == "v" and len(read_questions(args, "train")) == 7
    with pytest.raises(ValueError, match="--msrvtt_qa_test_json is required"):
        read_questions(args, "test")
    args = arguments(tmp_path, datatype="msvd_qa", features_path="x", msrvtt_features_path="v")
    assert args.features_path == "x"
    with pytest.raises(ValueError, match="--msvd_qa_train_json is required"):
        choose_answers(args, print)
    with pytest.raises(ValueError, match="--datatype youcook_qa: choose one of msrvtt_qa, msvd_qa"):
        arguments(tmp_path, datatype="youcook_qa")


def test_answers_are_those_listed_or_the_most_frequent(tmp_path: Path, train_json: str):
    listed = tmp_path / "ans2label.json"
    listed.write_text(json.dumps({"cat": 1, "bird": 0}))
    args = arguments(tmp_path, msrvtt_qa_train_json=train_json, msrvtt_qa_anslabel_json=str(listed))
    said: list[str] = []
    assert choose_answers(args, said.append) == ["bird", "cat"]
    args = arguments(tmp_path, msrvtt_qa_train_json=train_json, max_answers=2)
    assert choose_answers(args, said.append) == ["dog", "cat"]
    assert said[0].startswith("answers: 2 of ") and said[1] == "answers: the 2 most frequent of the training questions"


def test_training_questions_with_other_answers_are_left_out_and_counted(
    downstream: Downstream, tmp_path: Path, train_json: str
):
    videos = downstream.paths("msrvtt")["VIDEOS"]
    args = arguments(tmp_path, msrvtt_qa_train_json=train_json, msrvtt_features_path=videos)
    said: list[str] = []
    found = open_questions(args, ModelConfig(), "train", AnswerCode(("dog", "cat")), said.append)
    assert [question.answer for question in found.questions] == ["dog", "cat", "dog", "cat", "dog"]
    assert "train: 2 of 7 questions have other answers and are left out" in said
    with pytest.raises(ValueError, match="no training question has an answer that the model can give"):
        open_questions(args, ModelConfig(), "train", AnswerCode(("bird",)), said.append)
