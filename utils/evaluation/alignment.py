"""Which words trajectories are matched to: measured within each caption, by the assignment that pre-training solves.

A *thing* is a noun of the caption whose class has a trajectory: of a class with two trajectories and one noun there is
one thing, and with two nouns two, and either noun is right for either trajectory. It is right if a trajectory of its
class is matched to it. Chance is what a random one-to-one assignment of the same numbers of trajectories and words
gives, computed exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any, NamedTuple, cast

import numpy as np
from scipy.optimize import linear_sum_assignment

from dataloaders.label_map import class_names, load_label_map
from dataloaders.plurals import is_named
from dataloaders.retrieval import ClipReader
from dataloaders.samples import collate
from dataloaders.tagged_text import TaggedText, tagged_text
from dataloaders.tagging import Tagger, make_tagger
from modules.batch import Batch, to_device
from modules.fusion_encoder import VideoTokens
from modules.objectives.set_matching import OBJECT_NOUN, SetMatching
from modules.tasks.task_model import TaskModel
from modules.tokenizer import ClipTokenizer
from utils.evaluation.bootstrap import ratio_interval
from utils.settings.groups import UseSettings

TEXTS_TOGETHER = 256  # matched at once


class Matched(NamedTuple):
    """Counts of one caption, each followed by what chance gives.

    things, right: nouns that have a trajectory of their class, and those matched to one. trajectories: of the clip.
    in_caption, named: those whose class is a noun of the caption, and of these the ones matched to such a noun.
    in_caption_end: of these the ones matched to the end token. pairs, end: matched trajectories, and those of them
    matched to the end token.
    """

    things: int
    right: int
    right_by_chance: float
    trajectories: int
    in_caption: int
    named: int
    named_by_chance: float
    in_caption_end: int
    in_caption_end_by_chance: float
    pairs: int
    end: int
    end_by_chance: float


class Share(NamedTuple):
    """A share by clip, (V,) each: its sum is sum(top) / sum(bottom), and sum(chance) / sum(bottom) by chance."""

    top: np.ndarray
    bottom: np.ndarray
    chance: np.ndarray | None = None


class Figure(NamedTuple):
    """A share in percent, its 95 % interval (bootstrap over clips), what chance gives, and what it is a share of."""

    percent: float
    low: float
    high: float
    chance: float | None
    of: int


def count_matches(
    classes: Sequence[str],
    text: TaggedText,
    noun_positions: Sequence[int],
    matched: Mapping[int, int],
    *,
    end_is_word: bool,
) -> Matched:
    """Compare the words that trajectories are matched to with the names of their classes.

    Args:
        classes: class name of each of N trajectories.
        text: the caption.
        noun_positions: positions in the text that may be matched, the end token's last.
        matched: position by trajectory.
        end_is_word: the end token is assigned as a word among others, and not to whatever has no word.
    """
    *nouns, end = noun_positions
    pieces: dict[int, list[int]] = {}  # positions by word
    for position in nouns:
        pieces.setdefault(text.word_numbers[position], []).append(position)
    fits = np.zeros((len(classes), len(pieces)), dtype=bool)
    for row, name in enumerate(classes):
        fits[row] = [is_named(text.words[number], name) for number in pieces]
    of_word = {number: column for column, number in enumerate(pieces)}
    got = {row: of_word[text.word_numbers[at]] for row, at in matched.items() if at != end}
    named = {row: word for row, word in got.items() if fits[row, word]}
    in_caption = [bool(own.any()) for own in fits]
    # A random assignment is part of a permutation of so many.
    size = max(len(classes), len(nouns) + end_is_word, 1)
    ended = len(classes) / size if end_is_word else max(0, len(classes) - len(nouns))
    lengths = np.array([len(positions) for positions in pieces.values()], dtype=int)
    missed = [  # a word is, by chance, if none of its pieces falls to a trajectory of its class
        comb(size - of_class, length) / comb(size, length)
        for of_class, length in zip(fits.sum(0).tolist(), lengths.tolist(), strict=True)
    ]
    return Matched(
        things=int(fits[linear_sum_assignment(fits, maximize=True)].sum()),
        right=len(set(named.values())),
        right_by_chance=sum(1 - share for share in missed),
        trajectories=len(classes),
        in_caption=sum(in_caption),
        named=len(named),
        named_by_chance=float((fits @ lengths).sum() / size),
        in_caption_end=sum(in_caption[row] for row, at in matched.items() if at == end),
        in_caption_end_by_chance=sum(in_caption) * ended / max(1, len(classes)),
        pairs=len(matched),
        end=sum(at == end for at in matched.values()),
        end_by_chance=ended,
    )


class CaptionMatching:
    """Matches trajectories of encoded clips with the nouns of their captions.

    Args:
        model: has trajectories and the objective of matching.
        captions: of each clip, by id.
        reader: of the clips, which knows their objects.
        names: class names by index.
        tagger: says which words are nouns.
    """

    def __init__(
        self,
        model: TaskModel,
        captions: Mapping[str, Sequence[str]],
        reader: ClipReader,
        names: Sequence[str],
        tagger: Tagger,
    ) -> None:
        self.model, self.captions, self.reader, self.names, self.tagger = model, captions, reader, names, tagger
        self.tokenizer = ClipTokenizer(model.config.vocab_size)

    def __call__(self, batch: Batch, video: VideoTokens) -> list[list[Matched]]:
        """For each clip of a batch on the device the counts of each of its captions; none of one that is unreadable."""
        found: list[list[Matched]] = [[] for _ in batch["video_id"]]
        texts = [
            (row, self._tagged(caption))
            for row, video_id in enumerate(batch["video_id"])
            if not batch["bad_video"][row]
            for caption in self.captions.get(video_id, ())
        ]
        classes = {row: self.classes(batch, row) for row in {row for row, _ in texts}}
        for start in range(0, len(texts), TEXTS_TOGETHER):
            part = texts[start : start + TEXTS_TOGETHER]
            solved = self._solve(batch, video, part)
            end_is_word = not self.model.objective(SetMatching).is_contrastive
            for (row, text), (positions, matched) in zip(part, solved, strict=True):
                found[row].append(count_matches(classes[row], text, positions, matched, end_is_word=end_is_word))
        return found

    def classes(self, batch: Batch, row: int) -> list[str]:
        """Class names of a clip's trajectories, in the model's order."""
        listed = batch["trajectory_ids"][row].tolist()[: batch["trajectory_counts"][row]]
        record = self.reader.record(batch["video_id"][row])
        classes = record.named_trajectories(self.names) if record else {}
        return [classes[index] for index in listed]

    def _tagged(self, caption: str) -> TaggedText:
        return tagged_text(caption, self.tokenizer, self.tagger, self.model.config.max_words)

    def _solve(
        self, batch: Batch, video: VideoTokens, texts: Sequence[tuple[int, TaggedText]]
    ) -> list[tuple[list[int], dict[int, int]]]:
        """Positions that may be matched, and the position by trajectory, of each text with the clip of its row."""
        rows = [row for row, _ in texts]
        counts = [batch["trajectory_counts"][row] for row in rows]
        of_texts = cast(Batch, {**collate([text.part for _, text in texts]), "trajectory_counts": counts})
        device = batch["trajectory_ids"].device
        on_device, matching = to_device(of_texts, device), self.model.objective(SetMatching)
        chosen = video.select(batch["trajectory_ids"].new_tensor(rows))
        scores = matching.scores(on_device, chosen, self.model.encode_text(on_device["text_ids"]), {OBJECT_NOUN})
        pairs = matching.solve(of_texts, scores)[OBJECT_NOUN]
        matched: list[dict[int, int]] = [{} for _ in rows]
        for sample, row, word in zip(*pairs, strict=True):
            matched[sample][row] = word
        return list(zip(matching.words(of_texts)[OBJECT_NOUN], matched, strict=True))


def caption_matching(
    model: TaskModel, captions: Mapping[str, Sequence[str]], reader: ClipReader, settings: UseSettings
) -> CaptionMatching | None:
    """The measure for a model and its clips; None without trajectories, without the objective, or without objects.

    Raises:
        FileNotFoundError, ValueError, ImportError: there is no label map or no tagger; the message says how to get it.
    """
    has_objective = any(isinstance(objective, SetMatching) for objective in model.objectives)
    if not model.config.has_trajectories or not has_objective or reader.objects is None:
        return None
    names = class_names(load_label_map(settings.labelmap_path))
    return CaptionMatching(model, captions, reader, names, make_tagger(settings.tagger))


def shares(clips: Sequence[Sequence[Matched]]) -> dict[str, Share]:
    """The shares that are reported, by name, of clips with the counts of their captions; those of nothing are left out.

    `nouns`: things that are right; `nouns_{n}`: of captions with n things. `end`: matched trajectories that get the end
    token. `in_caption`: trajectories whose class is in the caption; `named` and `in_caption_end`: of these the ones
    that get a noun of their class, and the end token.
    """

    def by_clip(name: str, things: int | None = None) -> np.ndarray:
        wanted = ((one for one in clip if things in (None, one.things)) for clip in clips)
        return np.array([sum(getattr(one, name) for one in clip) for clip in wanted], dtype=np.float64)

    def share(top: str, bottom: str, things: int | None = None) -> Share:
        chance = by_clip(f"{top}_by_chance", things) if f"{top}_by_chance" in Matched._fields else None
        return Share(by_clip(top, things), by_clip(bottom, things), chance)

    found = {"nouns": share("right", "things")}
    for things in sorted({one.things for clip in clips for one in clip} - {0}):
        found[f"nouns_{things}"] = share("right", "things", things)
    found["end"] = share("end", "pairs")
    found["in_caption"] = share("in_caption", "trajectories")
    found |= {name: share(name, "in_caption") for name in ("named", "in_caption_end")}
    return {name: one for name, one in found.items() if one.bottom.sum()}


def alignment_metrics(clips: Sequence[Sequence[Matched]]) -> dict[str, float | int]:
    """`alignment_{name}` of `shares` in percent, with `_chance` where there is one, and `alignment_things`."""
    found: dict[str, float | int] = {"alignment_things": sum(one.things for clip in clips for one in clip)}
    for name, one in shares(clips).items():
        found[f"alignment_{name}"] = _percent(one.top, one.bottom)
        if one.chance is not None:
            found[f"alignment_{name}_chance"] = _percent(one.chance, one.bottom)
    return found


def figure(share: Share) -> Figure:
    """A share with its interval."""
    low, high = ratio_interval(share.top, share.bottom)
    chance = None if share.chance is None else _percent(share.chance, share.bottom)
    return Figure(_percent(share.top, share.bottom), 100 * low, 100 * high, chance, round(share.bottom.sum()))


def _percent(top: np.ndarray, bottom: np.ndarray) -> float:
    return 100 * float(top.sum() / bottom.sum())


def alignment_lines(figures: Mapping[str, Any]) -> list[str]:
    """A table for people of `figures` by the words of each row."""
    width = max(map(len, figures))
    lines = [f"{'':{width}}  {'%':>5}  {'95 % interval':>14}  {'chance':>6}  {'of':>6}"]
    for words, one in figures.items():
        interval, chance = f"{one.low:.1f} to {one.high:.1f}", "" if one.chance is None else f"{one.chance:.1f}"
        lines.append(f"{words:{width}}  {one.percent:5.1f}  {interval:>14}  {chance:>6}  {one.of:6}")
    return lines
