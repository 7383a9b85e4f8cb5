"""The tokens of a tagged text, and the word of each."""

from __future__ import annotations

from dataloaders.samples import collate
from dataloaders.tagged_text import tagged_text
from dataloaders.tagging import make_tagger
from modules.tokenizer import ClipTokenizer

TEXT = "A triangle, and two stars are spinning"


def test_pieces_have_the_number_of_their_word_and_its_tag():
    tokenizer = ClipTokenizer(2000)  # so few merges leave several pieces of a word
    tagged = tagged_text(TEXT, tokenizer, make_tagger("hanta"), 24)
    assert tagged.words == ["a", "triangle", ",", "and", "two", "stars", "are", "spinning"]
    batch = collate([tagged.part])
    length = int(batch["text_lengths"][0])
    assert len(tagged.word_numbers) == length and tagged.word_numbers[0] == tagged.word_numbers[-1] == -1
    assert tagged.word_numbers.count(1) == len(tokenizer.word_ids("triangle")) > 1
    *nouns, end = batch["noun_positions"][0]
    assert end == length - 1 and {tagged.words[tagged.word_numbers[at]] for at in nouns} == {"triangle", "stars"}
    *verbs, end = batch["verb_positions"][0]
    assert end == length - 1 and {tagged.words[tagged.word_numbers[at]] for at in verbs} == {"spinning"}


def test_a_text_is_cut_between_start_and_end():
    tagged = tagged_text(TEXT, ClipTokenizer(), make_tagger("hanta"), 4)
    assert tagged.word_numbers == [-1, 0, 1, -1] and int(tagged.part["text_mask"].sum()) == 4
