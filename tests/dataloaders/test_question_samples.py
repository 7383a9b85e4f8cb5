"""Clips with their questions: each clip read once, each question once per epoch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from dataloaders.decoders import UnreadableVideo
from dataloaders.question_samples import (
    UNKNOWN,
    AnswerCode,
    QuestionDataset,
    QuestionTrainDataset,
    collate_questions,
)
from dataloaders.questions import Question
from dataloaders.retrieval import ClipReader
from dataloaders.samples import SampleSettings
from dataloaders.video_files import VideoFolder
from tests.world import FRAMES, World

SETTINGS = SampleSettings(resolution=32, max_frames=FRAMES, max_words=10)
CODE = AnswerCode(("red", "a dog", "two"))
COUNTS = {"video7010": 5, "video7011": 1, "video7012": 4}
QUESTIONS = [
    Question(f"{video_id}-{n}", video_id, f"what is number {n} ?", CODE.answers[n % 3])
    for n in range(5)
    for video_id, count in COUNTS.items()
    if n < count
]


class CountingReader(ClipReader):
    """Counts how often each clip is read."""

    def read(self, video_id: str, key: int):
        self.reads = getattr(self, "reads", Counter())
        self.reads[video_id] += 1
        return super().read(video_id, key)


@pytest.fixture
def reader(world: World) -> CountingReader:
    return CountingReader(VideoFolder(world.msrvtt / "videos", list(COUNTS)), SETTINGS)


@pytest.fixture
def damaged(world: World, tmp_path: Path) -> ClipReader:
    """The first clip is cut off, the second missing, the third whole."""
    (tmp_path / "video7010.mp4").write_bytes((world.msrvtt / "videos/video7010.mp4").read_bytes()[:900])
    (tmp_path / "video7012.mp4").symlink_to(world.msrvtt / "videos/video7012.mp4")
    return ClipReader(VideoFolder(tmp_path, list(COUNTS)), SETTINGS)


def asked(sample: dict) -> list[str]:
    """Texts of a sample's questions, with the clip's id."""
    texts = [CODE.tokenizer.decode(row.tolist()) for row in sample["text_ids"]]
    return [f"{sample['video_id']}-{text.split()[3]}" for text in texts]


def test_answers_as_classes():
    assert [CODE.target(answer) for answer in ("red", "A  Dog", "two", "blue", "")] == [0, 1, 2, UNKNOWN, UNKNOWN]
    assert CODE.answer(1) == "a dog"


def test_answers_as_first_tokens():
    code = AnswerCode(None)
    stir, cut = code.tokenizer.encode("stir")[0], code.tokenizer.encode("stir-frying")
    assert code.target("stir") == code.target("Stir-frying") == stir == cut[0] and len(cut) > 1
    assert code.answer(stir) == "stir" and code.target("") == UNKNOWN


@pytest.mark.parametrize("per_clip", [1, 2, 4, 8])
def test_every_question_comes_once_per_epoch_in_an_order_of_its_own(reader: CountingReader, per_clip: int):
    data = QuestionTrainDataset(QUESTIONS, reader, CODE, per_clip)
    parts = {video_id: -(-count // per_clip) for video_id, count in COUNTS.items()}
    assert len(data) == sum(parts.values())
    orders = []
    for epoch in range(3):
        samples = [data[epoch, index] for index in range(len(data))]
        assert all(len(sample["answer"]) <= per_clip and sample["skipped"] == [] for sample in samples)
        orders.append([text for sample in samples for text in asked(sample)])
        assert sorted(orders[-1]) == sorted(question.question_id for question in QUESTIONS)
        again = data[epoch, 0]
        assert torch.equal(again["text_ids"], samples[0]["text_ids"])
    assert orders[0] != orders[1]
    assert reader.reads["video7010"] == 3 * parts["video7010"] + 3


def test_texts_and_answers_belong_together_and_keys_differ(reader: CountingReader):
    data = QuestionTrainDataset(QUESTIONS, reader, CODE, 4)
    keys = []
    for index in range(len(data)):
        sample = data[1, index]
        numbers = [int(name.split("-")[1]) for name in asked(sample)]
        assert sample["answer"].tolist() == [number % 3 for number in numbers]
        keys += sample["random_keys"].tolist()
    assert len(set(keys)) == len(keys) == len(QUESTIONS)


def test_an_unreadable_clip_is_replaced_by_another_with_its_own_questions(damaged: ClipReader):
    data = QuestionTrainDataset(QUESTIONS, damaged, CODE, 2)
    sample = data[0, 0]
    assert sample["video_id"] == "video7012" and len(sample["skipped"]) == 2
    assert set(asked(sample)) <= {question.question_id for question in QUESTIONS}
    only = [question for question in QUESTIONS if question.video_id != "video7012"]
    with pytest.raises(UnreadableVideo, match="2 clips in a row cannot be used"):
        QuestionTrainDataset(only, damaged, CODE, 2)[0, 0]


def test_evaluation_reads_a_clip_once_for_all_its_questions(reader: CountingReader):
    data = QuestionDataset(QUESTIONS, reader, CODE)
    batch = collate_questions([data[0, index] for index in range(3)])
    assert reader.reads == Counter(COUNTS.keys())
    assert batch["video"].shape[0] == 3 and batch["text_ids"].shape[0] == len(QUESTIONS)
    assert batch["text_clip"].tolist() == [0] * 5 + [1] + [2] * 4
    order = [place for places in batch["places"] for place in places]
    assert sorted(order) == list(range(len(QUESTIONS)))
    for place, row, answer in zip(order, batch["text_ids"], batch["answer"].tolist(), strict=True):
        assert CODE.tokenizer.decode(row.tolist()) == QUESTIONS[place].question
        assert answer == CODE.target(QUESTIONS[place].answer)
    assert batch["text_lengths"].shape == (len(QUESTIONS),)


def test_unreadable_clips_are_marked_and_keep_their_place(damaged: ClipReader):
    data = QuestionDataset(QUESTIONS, damaged, CODE)
    batch = collate_questions([data[0, index] for index in range(3)])
    assert [bool(reason) for reason in batch["bad_video"]] == [True, True, False]
    assert len(batch["text_ids"]) == len(QUESTIONS)
