"""Which of all words of a world trajectories and action queries are nearest to, whatever a caption says.

The text tower is causal and its tokens are contextual: training matches with the token of a word within a caption. Here
each word's token is the mean of its tokens in sentences of the world's own wording, and likewise the end token of the
sentences of a verb, which stands for nothing as it does in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from dataloaders.plurals import is_named
from modules.batch import Batch
from modules.fusion_encoder import VideoTokens
from modules.objectives.set_matching import ACTION_VERB, OBJECT_NOUN, SetMatching
from modules.tasks.task_model import TaskModel
from modules.tokenizer import ClipTokenizer, split_words
from utils.evaluation.alignment import TEXTS_TOGETHER, Share
from utils.runtime.distributed import Runtime


class Sentence(NamedTuple):
    """A text of the world, and the noun and the verb in it that it is made for."""

    text: str
    noun: str
    verb: str


class TrueWords(NamedTuple):
    """Nouns and verbs that are true of a clip."""

    nouns: Set[str]
    verbs: Set[str]


class Opened(NamedTuple):
    """Counts of one clip.

    trajectories, right: those whose class is a true noun, and of these the ones nearest to it. verbs, true, hit:
    different verbs that the action queries name, those that are true, and what is both.
    """

    trajectories: int
    right: int
    right_by_chance: float
    verbs: int
    true: int
    hit: int
    hit_by_chance: float


class Columns(NamedTuple):
    """Tokens (K, E) that are compared, and the word that each is a piece of; None for an end token."""

    tokens: Tensor
    words: list[str | None]


class OpenWords:
    """Tokens of a world's words, by a model's text tower.

    Args:
        model: has trajectories or actions, and the objective of matching.
        sentences: every one with one word that is its noun, and one that is its verb.
    """

    def __init__(self, model: TaskModel, sentences: Sequence[Sentence], runtime: Runtime) -> None:
        self.model = model
        self.nouns, self.verbs = (list(dict.fromkeys(words)) for words in list(zip(*sentences, strict=True))[1:])
        sums: dict[tuple[str, str, int], Tensor] = {}
        counts: dict[tuple[str, str, int], int] = {}
        for start in range(0, len(sentences), TEXTS_TOGETHER):
            for place, token in self._tokens(sentences[start : start + TEXTS_TOGETHER], runtime):
                sums[place] = sums.get(place, 0) + token
                counts[place] = counts.get(place, 0) + 1
        means = {place: total / counts[place] for place, total in sums.items()}
        self.columns = {OBJECT_NOUN: _columns(means, ("noun",)), ACTION_VERB: _columns(means, ("verb", "end"))}

    @torch.no_grad()
    def _tokens(self, sentences: Sequence[Sentence], runtime: Runtime) -> list[tuple[tuple[str, str, int], Tensor]]:
        """Tokens by kind, word and number of the piece."""
        tokenizer = ClipTokenizer(self.model.config.vocab_size)
        padded = [tokenizer.to_tensor_ids(sentence.text, self.model.config.max_words) for sentence in sentences]
        encoded = self.model.encode_text(torch.from_numpy(np.stack([ids for ids, _ in padded])).to(runtime.device))
        found: list[tuple[tuple[str, str, int], Tensor]] = []
        for sentence, (_, mask), tokens in zip(sentences, padded, encoded.float(), strict=True):
            words, (_, numbers) = split_words(sentence.text), tokenizer.encode_words(sentence.text)
            for kind, word in (("noun", sentence.noun), ("verb", sentence.verb)):
                at = [place for place, number in enumerate(numbers, 1) if words[number] == word]
                at = at[-1:] if self.model.objective(SetMatching).is_contrastive else at
                found += [((kind, word, piece), tokens[place]) for piece, place in enumerate(at)]
            found.append((("end", sentence.verb, 0), tokens[int(mask.sum()) - 1]))
        return found

    def __call__(
        self, batch: Batch, video: VideoTokens, classes: Sequence[Sequence[str]], true: Sequence[TrueWords]
    ) -> list[Opened]:
        """Counts of each clip of a batch on the device.

        Args:
            classes: class names of each clip's trajectories.
            true: of each clip. A trajectory of another class, which a detector made up, has no right noun.
        """
        near, named = self._nearest(video, OBJECT_NOUN), self._nearest(video, ACTION_VERB)
        found = []
        for row, (own, there) in enumerate(zip(classes, true, strict=True)):
            known = [(place, noun) for place, name in enumerate(own) for noun in there.nouns if is_named(noun, name)]
            verbs = set(named[row]) - {None} if named else set()
            found.append(
                Opened(
                    trajectories=len(known),
                    right=sum(near[row][place] == noun for place, noun in known),
                    right_by_chance=len(known) / len(self.nouns),
                    verbs=len(verbs),
                    true=len(there.verbs) if named else 0,
                    hit=len(verbs & there.verbs),
                    hit_by_chance=len(verbs) * len(there.verbs) / len(self.verbs),
                )
            )
        return found

    def _nearest(self, video: VideoTokens, name: str) -> list[list[str | None]]:
        """The word with the best score of each token of each clip; nothing where the model lacks such tokens."""
        columns, matching = self.columns[name], self.model.objective(SetMatching)
        clips, count = len(video.frames), len(columns.words)
        every = torch.ones(clips, count, dtype=torch.bool, device=columns.tokens.device)
        texts = cast(Batch, {"text_lengths": every.sum(1), "noun_mask": every, "verb_mask": every})
        scores = matching.scores(texts, video, columns.tokens.expand(clips, -1, -1), {name})
        if name not in scores:
            return []
        return [[columns.words[best] for best in rows] for rows in scores[name].argmax(-1).tolist()]


def _columns(means: Mapping[tuple[str, str, int], Tensor], kinds: Sequence[str]) -> Columns:
    places = [place for place in means if place[0] in kinds]
    words = [None if kind == "end" else word for kind, word, _ in places]
    return Columns(torch.stack([means[place] for place in places]), words)


def open_shares(clips: Sequence[Opened]) -> dict[str, Share]:
    """`open_nouns`, and of the verbs `precision`, `recall` and `f1`; those of nothing are left out.

    Chance: a noun drawn evenly for each trajectory, and in each clip as many different verbs as are named, drawn
    evenly.
    """
    by_name = {name: np.array([getattr(one, name) for one in clips], dtype=np.float64) for name in Opened._fields}
    hit, chance = by_name["hit"], by_name["hit_by_chance"]
    found = {
        "open_nouns": Share(by_name["right"], by_name["trajectories"], by_name["right_by_chance"]),
        "precision": Share(hit, by_name["verbs"], chance),
        "recall": Share(hit, by_name["true"], chance),
        "f1": Share(2 * hit, by_name["verbs"] + by_name["true"], 2 * chance),
    }
    return {name: one for name, one in found.items() if one.bottom.sum()}
