"""Nouns and verbs of captions, aligned with the pieces of the tokenizer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from dataloaders import tagging
from dataloaders.tagging import NOUN, VERB, HantaTagger, Tagger, kind_of_c5, make_tagger, split_negations, tag_caption
from modules.tokenizer import ClipTokenizer, split_words


@pytest.fixture(scope="module")
def tagger() -> HantaTagger:
    return HantaTagger()


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


def words_of(kind: int, tagger: HantaTagger, sentence: str) -> list[str]:
    words = split_words(sentence)
    return [word for word, found in zip(words, tagger.kinds(words), strict=True) if found == kind]


@pytest.mark.parametrize(
    ("sentence", "nouns", "verbs"),
    [
        ("A man is riding a horse", ["man", "horse"], ["riding"]),
        ("Two kids are playing soccer.", ["kids", "soccer"], ["playing"]),
        ("a woman doesn't cut the onions", ["woman", "onions"], ["does", "cut"]),
        ("the red circle is moving behind a green square", ["circle", "square"], ["moving"]),
        ("It is green", [], []),
    ],
)
def test_tags_of_known_sentences(tagger: HantaTagger, sentence: str, nouns: list[str], verbs: list[str]) -> None:
    assert words_of(NOUN, tagger, sentence) == nouns
    # "doesn" and "'t" are the words of the text; the tagger saw "does" and "n't".
    assert [verb.removesuffix("n") if verb == "doesn" else verb for verb in words_of(VERB, tagger, sentence)] == verbs


@pytest.mark.parametrize(
    ("tag", "kind"),
    [("NN1", NOUN), ("NP0", NOUN), ("VVG", VERB), ("VDZ", VERB), ("VHB", VERB), ("VBZ", 0), ("VM0", 0), ("AJ0", 0)],
)
def test_c5_tags(tag: str, kind: int) -> None:
    assert kind_of_c5(tag) == kind


def test_capitals_do_not_change_the_tags(tagger: HantaTagger, tokenizer: ClipTokenizer) -> None:
    plain = tag_caption("a young woman flexing muscles in a gym", tokenizer, tagger)
    titled = tag_caption("A Young Woman Flexing Muscles In A Gym", tokenizer, tagger)
    assert plain.is_noun.tolist() == titled.is_noun.tolist()
    assert plain.is_verb.tolist() == titled.is_verb.tolist()


class _FixedTagger:
    name = "fixed"

    def kinds(self, words: Sequence[str]) -> list[int]:
        return [NOUN if len(word) > 8 else 0 for word in words]


def test_every_piece_of_a_word_has_the_tag_of_the_word(tokenizer: ClipTokenizer) -> None:
    caption = tag_caption("a photobombing !? cat", tokenizer, _FixedTagger())
    pieces = len(tokenizer.word_ids("photobombing"))
    assert pieces > 1
    assert caption.ids.tolist() == tokenizer.encode("a photobombing !? cat")
    assert caption.is_noun.tolist() == [False] + [True] * pieces + [False] * (len(caption.ids) - pieces - 1)
    assert not caption.is_verb.any()


def test_empty_caption_has_no_pieces(tagger: HantaTagger, tokenizer: ClipTokenizer) -> None:
    caption = tag_caption("  ", tokenizer, tagger)
    assert [len(array) for array in caption] == [0, 0, 0]


def test_negations_are_split_as_taggers_do() -> None:
    assert split_negations(["i", "don", "'t", "'t", "n", "'t"]) == ["i", "do", "n't", "'t", "n", "'t"]


def test_remembered_analyses_do_not_change_the_tags(tagger: HantaTagger) -> None:
    words = split_words("a zorblatting skateboarder flurbs the quonkiest")
    assert tagger.tags(words) == tagger.tags(words) == HantaTagger().tags(words)


def test_a_model_file_in_the_working_directory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "morphmodel_en.pgz").write_text("not a model")
    monkeypatch.chdir(tmp_path)
    assert HantaTagger().tags(["horse"]) == ["NN1"]


def test_missing_spacy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ImportError, match="pip install spacy"):
        make_tagger("spacy")


def test_spacy_tags_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"man": "NOUN", "paris": "PROPN", "is": "AUX", "riding": "VERB", "growing": "ADJ", "cyan": "PROPN"}

    def pipeline(words: list[str]) -> list[SimpleNamespace]:
        return [SimpleNamespace(pos_=tags.get(word, "DET")) for word in words]

    pipeline.vocab = None  # type: ignore[attr-defined]
    spacy = SimpleNamespace(load=lambda name, disable: pipeline)
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    tokens = SimpleNamespace(Doc=lambda vocab, words: words)
    monkeypatch.setitem(sys.modules, "spacy.tokens", tokens)
    tagger = make_tagger("spacy")
    assert tagger.kinds(["a", "man", "is", "riding", "paris"]) == [0, NOUN, 0, VERB, NOUN]
    assert tagger.kinds(["a", "cyan", "man", "is", "growing"]) == [0, 0, NOUN, 0, VERB], "corrected as HanTa's"


def test_what_any_library_says_is_corrected() -> None:
    class Silent(Tagger):
        name = "silent"

        def library_kinds(self, words: Sequence[str]) -> list[int]:
            assert list(words) == ["dogs", "do", "n't", "bark", "but", "are", "growing"]
            return [0] * len(words)

    assert Silent().kinds(split_words("dogs don't bark but are growing")) == [0, 0, 0, 0, 0, 0, VERB]
    assert Silent().kinds([]) == []


def test_unknown_tagger_is_an_error() -> None:
    with pytest.raises(ValueError, match="hanta, spacy"):
        make_tagger("nltk")
    assert set(tagging.TAGGERS) == {"hanta", "spacy"}


def test_of_an_endless_word_the_first_letters_are_analysed(tagger: HantaTagger, monkeypatch: pytest.MonkeyPatch):
    lengths = []
    analyse = tagger._tagger.analyze_forward
    monkeypatch.setattr(tagger._tagger, "analyze_forward", lambda word: lengths.append(len(word)) or analyse(word))
    words = ["a", "qwrtz" * 400, "runs"]
    assert len(tagger.kinds(words)) == 3 and lengths and max(lengths) <= tagging.LONGEST_WORD
