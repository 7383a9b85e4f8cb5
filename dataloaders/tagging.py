"""Part of speech of every caption piece: which tokens are nouns and which are verbs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from HanTa import HanoverTagger as hanta

from dataloaders.tag_rules import NOUN, VERB, correct_kinds
from modules.tokenizer import ClipTokenizer, split_words

SPACY_MODEL = "en_core_web_sm"
CACHED_ANALYSES = 1 << 17
LONGEST_WORD = 40  # letters that are analysed; HanTa's time grows with their square, and few words are longer


class Tagger(ABC):
    """Gives each word of a sentence its part of speech: what a library says, corrected by `tag_rules`.

    `name` is the choice of `--tagger`; it is recorded in caches and in a run's configuration.
    """

    name: str

    def kinds(self, words: Sequence[str]) -> list[int]:
        """Return NOUN, VERB or 0 for each of the words, which are those of `modules.tokenizer.split_words`."""
        if not words:
            return []
        split = split_negations(words)
        return correct_kinds(split, self.library_kinds(split))

    @abstractmethod
    def library_kinds(self, words: Sequence[str]) -> list[int]:
        """Return what the library says of one or more words, whose negations are split: NOUN, VERB or 0 for each."""


class TaggedCaption(NamedTuple):
    """A caption's pieces, without start and end; L of them."""

    ids: np.ndarray  # (L,) int64
    is_noun: np.ndarray  # (L,) bool
    is_verb: np.ndarray  # (L,) bool


def tag_caption(caption: str, tokenizer: ClipTokenizer, tagger: Tagger) -> TaggedCaption:
    """Encode a caption and tag its pieces; every piece of a word carries the word's tag."""
    words = split_words(caption)
    pieces = [tokenizer.word_ids(word) for word in words]
    lengths = [len(ids) for ids in pieces]
    kinds = np.repeat(np.array(tagger.kinds(words), dtype=np.int64), lengths)
    ids = np.array([index for word in pieces for index in word], dtype=np.int64)
    return TaggedCaption(ids, kinds == NOUN, kinds == VERB)


class _Analyser(hanta.HanoverTagger):
    """HanTa's tagger remembering its analyses of words that are not in its lexicon; the tags are the same."""

    def __init__(self, filename: str) -> None:
        super().__init__(filename)
        self._analyses: dict[str, list[tuple[int, float]]] = {}

    def analyze_forward(self, word: str) -> list[tuple[int, float]]:
        """HanTa's analysis of a word, made once."""
        analysis = self._analyses.get(word)
        if analysis is None:
            if len(self._analyses) >= CACHED_ANALYSES:
                self._analyses.clear()
            analysis = self._analyses[word] = super().analyze_forward(word)
        return analysis


class HantaTagger(Tagger):
    """HanTa with the English model inside its package: pure Python, no download.

    It speaks the tags of the British National Corpus (C5): NN* and NP* are nouns; VV*, VD* and VH* verbs; VB* is only
    "be".
    """

    name = "hanta"

    def __init__(self) -> None:
        # By its full path: the library would prefer a file of this name in the working directory.
        self._tagger = _Analyser(str(Path(hanta.__file__).parent / "morphmodel_en.pgz"))

    def tags(self, words: Sequence[str]) -> list[str]:
        """Return the C5 tag of each of one or more words."""
        # Captions are in lower case here, so capitals must not count against proper names.
        return self._tagger.tag_sent([word[:LONGEST_WORD] for word in words], taglevel=0, casesensitive=False)

    def library_kinds(self, words: Sequence[str]) -> list[int]:
        """Return NOUN, VERB or 0 for each word."""
        return [kind_of_c5(tag) for tag in self.tags(words)]


def kind_of_c5(tag: str) -> int:
    """Return NOUN, VERB or 0 for a C5 tag."""
    if tag.startswith(("NN", "NP")):
        return NOUN
    return VERB if tag.startswith(("VV", "VD", "VH")) else 0


def split_negations(words: Sequence[str]) -> list[str]:
    """Move the n of "don" + "'t" (CLIP's split) to "do" + "n't" (the split of taggers); the number of words stays."""
    moved = list(words)
    for index in range(1, len(moved)):
        if moved[index] == "'t" and len(moved[index - 1]) > 1 and moved[index - 1].endswith("n"):
            moved[index - 1], moved[index] = moved[index - 1][:-1], "n't"
    return moved


class SpacyTagger(Tagger):
    """spaCy's small English model; both spaCy and the model are optional to install."""

    name = "spacy"

    def __init__(self) -> None:
        try:
            import spacy
            from spacy.tokens import Doc
        except ImportError as error:
            raise ImportError(
                f"--tagger spacy needs spaCy ({error}): pip install spacy, or use --tagger hanta"
            ) from error
        try:
            self._pipeline: Any = spacy.load(SPACY_MODEL, disable=["parser", "ner", "lemmatizer"])
        except OSError as error:
            raise ImportError(f"--tagger spacy needs its model: python -m spacy download {SPACY_MODEL}") from error
        self._doc: Callable[..., Any] = Doc

    def library_kinds(self, words: Sequence[str]) -> list[int]:
        """Return NOUN, VERB or 0 for each word; auxiliaries ("is", "can") are not verbs."""
        document = self._pipeline(self._doc(self._pipeline.vocab, words=list(words)))
        kinds = {"NOUN": NOUN, "PROPN": NOUN, "VERB": VERB}
        return [kinds.get(token.pos_, 0) for token in document]


TAGGERS: dict[str, Callable[[], Tagger]] = {"hanta": HantaTagger, "spacy": SpacyTagger}


def make_tagger(name: str) -> Tagger:
    """Return the tagger called `name` ("hanta" or "spacy").

    Raises:
        ValueError: for another name.
        ImportError: if the package or model of the tagger is not installed; the message says how to install it.
    """
    if name not in TAGGERS:
        raise ValueError(f"tagger {name!r} is unknown; it must be one of {', '.join(TAGGERS)}")
    return TAGGERS[name]()
