"""Progressive verbs and frequently mistaken words, whatever the tagger says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataloaders.caption_files import caption_texts
from dataloaders.tag_rules import NO_PROGRESSIVES, NOUN, VERB, correct_kinds, progressives
from dataloaders.tagging import HantaTagger, split_negations
from modules.tokenizer import split_words
from tests.tag_changes import measure


@pytest.fixture(scope="module")
def tagger() -> HantaTagger:
    return HantaTagger()


def words_of(sentence: str) -> list[str]:
    return split_negations(split_words(sentence))


@pytest.mark.parametrize(
    ("sentence", "verbs"),
    [
        ("A cat is growing", ["growing"]),
        ("I am, you are, we were, it was cutting", ["cutting"]),
        ("a man has been cutting and may be cooking", ["cutting", "cooking"]),
        ("I'm typing, they're dicing, it's raining, who's singing", ["typing", "dicing", "raining", "singing"]),
        ("a dog isn't barking and cats aren't meowing", ["barking", "meowing"]),
        ("he is not sleeping and she is now slowly peeling it", ["sleeping", "peeling"]),
        ("they are both still skateboarding", ["skateboarding"]),
        ("a man is sitting and cutting", ["sitting", "cutting"]),
        ("a man is sitting, cooking, and then quietly eating", ["sitting", "cooking", "eating"]),
        ("he is slipping while riding a bike and cutting boards", ["slipping", "riding"]),
        ("she is going swimming", ["going"]),
        ("it is being cut", []),
        ("the wall is a building and is something", []),
        ("they are evening clothing", []),
        ("he is king of the ring, it is spring and that is string", []),
        ("this is interesting and was amazing", []),
        ("the very boring thing is very exciting", []),
        ("there are playing cards", []),
        ("a man's cutting board and women's swimming pools", []),
        ("a man is on the floor cutting", []),
        ("being and being being", []),
        ("is", []),
        ("", []),
    ],
)
def test_an_ing_form_behind_be_is_a_verb(sentence: str, verbs: list[str]) -> None:
    words = words_of(sentence)
    places = progressives(words)
    assert [words[place] for place in places] == verbs
    for kind in (0, NOUN, VERB):
        corrected = correct_kinds(words, [kind] * len(words))
        assert [corrected[place] for place in places] == [VERB] * len(verbs)


def test_what_is_no_progressive_keeps_the_kind_of_the_tagger() -> None:
    for word in sorted(NO_PROGRESSIVES | {"ring", "string"}):
        for kind in (0, NOUN, VERB):
            assert correct_kinds(["it", "is", word], [0, 0, kind]) == [0, 0, kind]


def test_a_colour_before_a_noun_is_no_noun() -> None:
    words = ["a", "black", "cat", "in", "black", "and", "red"]
    assert correct_kinds(words, [0, NOUN, NOUN, 0, NOUN, 0, NOUN]) == [0, 0, NOUN, 0, NOUN, 0, NOUN]
    assert correct_kinds(["black", "orange", "juice"], [NOUN] * 3) == [0, NOUN, NOUN]


@pytest.mark.parametrize(
    ("sentence", "nouns", "verbs"),
    [
        ("a cyan ring is growing", ["ring"], ["growing"]),
        ("a man talks while two ferrets eat tofu and a cucumber", ["man", "ferrets", "tofu", "cucumber"],
         ["talks", "eat"]),
        ("a person typing on a man s keyboard", ["person", "man", "keyboard"], ["typing"]),
        ("the woman isn't dicing something", ["woman"], ["dicing"]),
        ("a man's cutting board is a thing", ["man", "board", "thing"], []),
        ("a gamer is playing ping pong", ["gamer", "ping", "pong"], ["playing"]),
        ("a woman doing aerobics", ["woman", "aerobics"], ["doing"]),
    ],
)  # fmt: skip
def test_kinds_with_hanta(tagger: HantaTagger, sentence: str, nouns: list[str], verbs: list[str]) -> None:
    words = split_words(sentence)
    kinds = tagger.kinds(words)
    assert [word for word, kind in zip(words, kinds, strict=True) if kind == NOUN] == nouns
    assert [word for word, kind in zip(words, kinds, strict=True) if kind == VERB] == verbs


def test_changes_are_counted_as_often_as_their_captions(tagger: HantaTagger) -> None:
    found = measure(["a dog is growing", "a dog is running", "a dog is growing", "it is interesting", " "], tagger)
    assert (found.words, found.behind_be, found.verbs_before, found.verbs_after) == (15, 4, 1, 3)
    assert found.changed == {("growing", "other", "verb"): 2}
    assert found.captions == ["a dog is [growing: other > verb]"]


def test_progressives_of_real_captions_are_verbs(shared: Path, tagger: HantaTagger) -> None:
    captions = list(caption_texts(shared / "realdata" / "msvd" / "raw-captions.pkl"))[::40]
    found = measure(captions, tagger)
    assert found.behind_be > 1000 and found.verbs_before < 0.97 * found.behind_be
    assert found.verbs_after >= 0.995 * found.behind_be
    assert 0.002 < found.changed.total() / found.words < 0.01
