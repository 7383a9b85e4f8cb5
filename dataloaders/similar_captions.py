"""Which samples stand in one batch: such as their captions alone hardly tell apart.

Of a few clips drawn at random hardly two differ in one thing only, so that losses over a batch soon have nothing left
to tell apart. Grouped mini-batch sampling (Byun et al., GRIT-VLP, ECCV 2022), by the words of the captions instead of
what a model makes of them: known before training, and the same on all ranks and after a resume.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from dataloaders.caption_split import CaptionSplit

WORD = re.compile(r"\w+")
STEPS = 1000  # of a word's weight: whole numbers, so that sums are exact and orders the same on every processor


class SimilarCaptions:
    """Fills batches with groups: a sample, and those whose captions are most similar to its own.

    Captions are compared by tf-idf, all of a clip together. Samples of one clip, and of clips that share a caption, are
    kept out of each other's groups as long as others are left: nothing tells them apart.

    Args:
        split: clips with their captions.
        videos: (N,) index into the split's clips of each sample.
        among: samples out of which a group is put together; more make more similar groups.
        group: samples of a group, best a divisor of the batch, whose edge cuts groups else; 0: the whole batch is one.
        after: epochs before, whose batches stay as they were drawn.
    """

    def __init__(self, split: CaptionSplit, videos: np.ndarray, among: int, group: int = 0, after: int = 0) -> None:
        captions = list(split.by_video().values())
        self.videos, self.among, self.group, self.after = videos, among, group, after
        self.words = _weighted_words([[WORD.findall(text.lower()) for text in texts] for texts in captions])
        self.lengths = np.sqrt(np.asarray(self.words.multiply(self.words).sum(axis=1))).ravel()
        self.lengths[self.lengths == 0] = 1.0
        self.shared = _shared_texts(captions)

    def __call__(self, order: np.ndarray, size: int, epoch: int) -> np.ndarray:
        """The samples of `order`, a whole number of batches of `size`, put together anew.

        The first sample of a group is the first of those left in `order`; a shuffled order makes other groups, and
        puts others beside each other.
        """
        if epoch < self.after:
            return order
        part, group = max(self.among // size, 1) * size, self.group or size
        return np.concatenate(
            [order[:0], *(self._groups(order[i : i + part], group) for i in range(0, len(order), part))]
        )

    def _groups(self, order: np.ndarray, size: int) -> np.ndarray:
        videos = self.videos[order]
        words, lengths = self.words[videos], self.lengths[videos]
        alike = defaultdict(list)  # places in `order` by what makes samples the same
        for place, video in enumerate(videos):
            for text in self.shared[video]:
                alike[text].append(place)
        is_free = np.ones(len(order), bool)
        chosen: list[int] = []
        while len(chosen) < len(order):
            anchor = int(is_free.argmax())
            similarity = (words @ words[anchor].T).toarray().ravel() / lengths
            ranked = np.argsort(np.where(is_free, -similarity, np.inf), kind="stable")[: len(order) - len(chosen)]
            group: list[int] = []
            same: set[int] = set()
            for place in [anchor, *ranked.tolist()]:
                if len(group) == size:
                    break
                if place not in same:
                    group.append(place)
                    same.update(*(alike[text] for text in self.shared[videos[place]]), [place])
            if len(group) < size:
                taken = set(group)
                group += [place for place in ranked.tolist() if place not in taken][: size - len(group)]
            is_free[group] = False
            chosen += group
        return order[chosen]


def _weighted_words(texts: Sequence[Sequence[Sequence[str]]]) -> csr_matrix:
    """Of each clip, how often its captions have each word, times the word's weight: none if every clip has it."""
    counts = [Counter(word for words in clip for word in words) for clip in texts]
    clips = Counter(word for count in counts for word in count)
    column = {word: place for place, word in enumerate(sorted(clips))}
    weight = {word: round(STEPS * math.log(len(counts) / clips[word])) for word in column}
    entries = [(row, column[word], n * weight[word]) for row, count in enumerate(counts) for word, n in count.items()]
    rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
    return csr_matrix((np.array(values, np.float64), (rows, columns)), shape=(len(counts), len(column)))


def _shared_texts(captions: Sequence[Sequence[str]]) -> list[list[int | str]]:
    """Of each clip what makes it the same as others: captions that several clips have, and itself (its number)."""
    clips = Counter(text for texts in captions for text in set(texts))
    return [[number, *(text for text in set(texts) if clips[text] > 1)] for number, texts in enumerate(captions)]
