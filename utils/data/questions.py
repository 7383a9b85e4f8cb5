"""From flags to the data of question answering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dataloaders.caption_split import CaptionSplit
from dataloaders.datasets import csv_files
from dataloaders.question_samples import UNKNOWN, AnswerCode
from dataloaders.questions import (
    MAX_ANSWERS,
    Question,
    most_frequent_answers,
    read_answers,
    read_msrvtt,
    read_msvd,
    read_msvd_names,
)
from modules.config import ModelConfig, setting
from utils.data.clips import Log, SplitClips, open_task_clips, whole_questions
from utils.settings.arguments import OWN, TaskArguments

# Released flags that were never read.
NEVER_READ = {"msrvtt_train_csv": True, "msrvtt_val_csv": True, "msrvtt_train_json": True, "resume": True}


@dataclass
class AnswerArguments(TaskArguments):
    """Flags of question answering. Those of the data set that is not chosen have no effect."""

    DATA_TYPES: ClassVar[tuple[str, ...]] = ("msrvtt_qa", "msvd_qa", OWN)

    msrvtt_qa_train_json: str | None = setting(None, "MSRVTT-QA: training questions (jsonl)")
    msrvtt_qa_val_json: str | None = setting(None, "MSRVTT-QA: validation questions")
    msrvtt_qa_test_json: str | None = setting(None, "MSRVTT-QA: test questions")
    msrvtt_qa_anslabel_json: str | None = setting(
        None, "MSRVTT-QA: {answer: label} of the answers to choose from; default: the most frequent training answers"
    )
    msrvtt_features_path: str | None = setting(None, "MSRVTT-QA: folder of the videos; or --features_path")
    msvd_qa_train_json: str | None = setting(None, "MSVD-QA: training questions (a JSON list)")
    msvd_qa_val_json: str | None = setting(None, "MSVD-QA: validation questions")
    msvd_qa_test_json: str | None = setting(None, "MSVD-QA: test questions")
    msvd_qa_anslabel_json: str | None = setting(None, "MSVD-QA: as --msrvtt_qa_anslabel_json")
    msvd_features_path: str | None = setting(None, "MSVD-QA: folder of the videos; or --features_path")
    msvd_qa_names: str | None = setting(
        None, "MSVD-QA: folder of id_mapping.json or youtube_mapping.txt; default: that of the questions"
    )
    max_answers: int = setting(MAX_ANSWERS, "answers to choose from when no file lists them", minimum=1)
    questions_per_clip: int = setting(8, "training questions that share the work for a clip, at most", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.features_path = self.path("features_path") or self.features_path

    def path(self, name: str) -> str | None:
        """The value of a flag of the chosen data set; None for one's own, which has no such flags."""
        return None if self.is_own else getattr(self, f"{self.data_set}_{name}")

    def required(self, name: str) -> str:
        """As `path`; ValueError if it was not given."""
        value = self.path(name)
        if value is None:
            raise ValueError(f"--{self.data_set}_{name} is required")
        return value


def has_validation(args: AnswerArguments) -> bool:
    """Whether there is a validation split: where its questions are given."""
    if args.is_own:
        return args.has_own_validation(csv_files.QUESTIONS)
    return args.path("qa_val_json") is not None


@dataclass(frozen=True)
class QuestionClips:
    """Questions of a split whose videos are there, and the clips."""

    questions: list[Question]
    clips: SplitClips


def read_questions(args: AnswerArguments, name: str) -> list[Question]:
    """Questions of the `train`, `val` or `test` split."""
    if args.is_own:
        return csv_files.read_questions(args.table(name))[0]
    path, own = args.required(f"qa_{name}_json"), f"--{args.data_set}_qa_{name}_json"
    if args.data_set == "msrvtt":
        return read_msrvtt(path, own)
    return read_msvd(path, read_msvd_names(args.msvd_qa_names or Path(path).parent), own)


def choose_answers(args: AnswerArguments, log: Log) -> list[str]:
    """Classes for training: the listed answers, or the most frequent ones of the training questions."""
    listed = args.path("qa_anslabel_json")
    if listed:
        answers = read_answers(listed, f"--{args.data_set}_qa_anslabel_json")
        log(f"answers: {len(answers)} of {listed}")
        return answers
    answers = most_frequent_answers(read_questions(args, "train"), args.max_answers)
    log(f"answers: the {len(answers)} most frequent of the training questions")
    return answers


def open_questions(args: AnswerArguments, config: ModelConfig, name: str, code: AnswerCode, log: Log) -> QuestionClips:
    """Open questions, videos and objects of a split, before the process group starts: it may build the object store.

    Questions with an empty text are left out and counted, in training those too whose answer the model cannot give.

    Raises:
        FileNotFoundError, ValueError: questions or all videos are missing, or damaged.
        BadVideos: some evaluation videos are missing and --on_bad_video is error.
    """
    questions = whole_questions(read_questions(args, name), name, log)
    if name == "train":
        questions = answerable(questions, code, log)
    files = csv_files.read_questions(args.table(name))[1] if args.is_own else None
    split = CaptionSplit.from_pairs([], [question.video_id for question in questions], files=files)
    clips = open_task_clips(args, config, split, name, log)
    present = set(clips.split.video_ids)
    kept = [question for question in questions if question.video_id in present]
    log(f"{name}: {len(kept)} questions on {len(present)} videos")
    return QuestionClips(kept, clips)


def answerable(questions: Sequence[Question], code: AnswerCode, log: Log) -> list[Question]:
    """The questions whose answer the model can give; the others are counted. ValueError if there are none."""
    kept = [question for question in questions if code.target(question.answer) != UNKNOWN]
    if len(kept) < len(questions):
        log(f"train: {len(questions) - len(kept)} of {len(questions)} questions have other answers and are left out")
    if not kept:
        raise ValueError("no training question has an answer that the model can give: do questions and answers match?")
    return kept
