"""Samples of question answering: a clip, read once, with several questions on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset

from dataloaders.questions import Question, by_video, normalised
from dataloaders.retrieval import ClipReader, VideoDataset
from dataloaders.samples import Replacements, Sample, collate
from modules.batch import Batch
from modules.random_streams import numpy_generator, sample_key
from modules.tokenizer import ClipTokenizer

UNKNOWN = -1  # target of an answer that the model cannot give
QUESTION_TENSORS = ("text_ids", "text_mask", "answer", "random_keys")


@dataclass
class AnswerCode:
    """Converts answers to targets of the model, and its predictions to answers.

    Attributes:
        answers: classes of the classifier; None: a target is the id of the answer's first token, as released.
    """

    answers: Sequence[str] | None
    tokenizer: ClipTokenizer = field(default_factory=ClipTokenizer)

    def __post_init__(self) -> None:
        self._labels = {normalised(answer): label for label, answer in enumerate(self.answers or ())}

    def target(self, answer: str) -> int:
        """Class or token id; UNKNOWN for an answer outside the classes, or without any token."""
        if self.answers is not None:
            return self._labels.get(normalised(answer), UNKNOWN)
        return next(iter(self.tokenizer.encode(answer)), UNKNOWN)

    def answer(self, target: int) -> str:
        """The answer that a prediction stands for."""
        return normalised(self.answers[target] if self.answers is not None else self.tokenizer.decode([target]))


class _Questions:
    """Encodes questions as tensors."""

    def __init__(self, questions: Sequence[Question], code: AnswerCode, max_words: int) -> None:
        self.questions, self.code, self.max_words = questions, code, max_words

    def sample(self, places: Sequence[int], keys: Sequence[int]) -> Sample:
        """`text_ids`, `text_mask` (Q, W), `answer` (Q,) and `random_keys` (Q,) of the questions at these places."""
        chosen = [self.questions[place] for place in places]
        encoded = [self.code.tokenizer.to_tensor_ids(question.question, self.max_words) for question in chosen]
        return {
            "text_ids": torch.from_numpy(np.stack([ids for ids, _ in encoded])),
            "text_mask": torch.from_numpy(np.stack([mask for _, mask in encoded])),
            "answer": torch.tensor([self.code.target(question.answer) for question in chosen]),
            "random_keys": torch.tensor(keys),
        }


class QuestionTrainDataset(Dataset[Sample]):
    """A clip with up to `per_clip` of its questions per item, addressed by (epoch, index).

    Every question comes once in an epoch; which ones share an item is drawn anew in each. A clip that cannot be read is
    replaced by the next one with up to `per_clip` of its questions, and listed in `skipped`.

    Args:
        questions: each with a target (`AnswerCode.target`) and a video.
    """

    def __init__(self, questions: Sequence[Question], reader: ClipReader, code: AnswerCode, per_clip: int) -> None:
        self.reader, self.per_clip = reader, per_clip
        self.encoder = _Questions(questions, code, reader.settings.max_words)
        places = by_video(questions)
        self.video_ids = list(places)
        self.places = [np.array(own) for own in places.values()]
        parts = [(len(own) + per_clip - 1) // per_clip for own in self.places]
        self.item_video = np.repeat(np.arange(len(parts)), parts)
        self.first_item = np.cumsum(parts) - parts
        self.replacements = Replacements()

    def __len__(self) -> int:
        return len(self.item_video)

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        epoch, index = where
        seed, count = self.reader.settings.seed, len(self.video_ids)
        key = sample_key(seed, epoch, index)
        first = int(self.item_video[index])

        def make(attempt: int) -> Sample:
            video = (first + attempt) % count
            part = index - int(self.first_item[first]) if not attempt else 0
            clip = self.reader.read(self.video_ids[video], key)
            places = self._part(epoch, video, part)
            keys = [sample_key(key, 0, place) for place in places]
            return {**clip, **self.encoder.sample(places, keys), "video_id": self.video_ids[video], "index": index}

        return self.replacements.sample(count, make)

    def _part(self, epoch: int, video: int, part: int) -> list[int]:
        """The `part`-th share of a video's questions in this epoch's order."""
        own = self.places[video]
        key = sample_key(self.reader.settings.seed, epoch, video)
        order = numpy_generator(key, "questions").permutation(len(own))
        return own[order[part * self.per_clip : (part + 1) * self.per_clip]].tolist()


class QuestionDataset(Dataset[Sample]):
    """A clip with all its questions per item, addressed by (0, index).

    An item is the clip as in `VideoDataset`, the tensors of its questions, and `places`, their indices in the list.
    """

    def __init__(self, questions: Sequence[Question], reader: ClipReader, code: AnswerCode) -> None:
        self.encoder = _Questions(questions, code, reader.settings.max_words)
        places = by_video(questions)
        self.places = list(places.values())
        self.clips = VideoDataset(list(places), reader)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        places = self.places[where[1]]
        return {**self.clips[where], **self.encoder.sample(places, [0] * len(places)), "places": places}


def collate_questions(samples: Sequence[Sample]) -> Batch:
    """`collate`, with the questions of all clips one after the other, and `text_clip` (Q,), the clip of each."""
    texts = {name: torch.cat([sample[name] for sample in samples]) for name in QUESTION_TENSORS}
    counts = torch.tensor([len(sample["answer"]) for sample in samples])
    texts["text_clip"] = torch.arange(len(samples)).repeat_interleave(counts)
    clips = [{name: value for name, value in sample.items() if name not in QUESTION_TENSORS} for sample in samples]
    return collate(clips, **texts)
