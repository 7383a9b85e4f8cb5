"""A text as set matching reads it: its tokens, which of them are nouns and verbs, and the word of each."""

from __future__ import annotations

from typing import NamedTuple

from dataloaders.samples import Sample, tag_part, text_part
from dataloaders.tagging import Tagger, tag_caption
from modules.tokenizer import ClipTokenizer, split_words


class TaggedText(NamedTuple):
    """A text of L tokens, start and end included.

    part: `text_ids`, `text_mask`, `noun_mask`, `verb_mask` and `word_ends` (W,), for `collate`. words: all of the text.
    word_numbers: L numbers in `words`, the same for the pieces of one word; -1 for the start and the end token.
    """

    part: Sample
    words: list[str]
    word_numbers: list[int]


def tagged_text(text: str, tokenizer: ClipTokenizer, tagger: Tagger, max_words: int) -> TaggedText:
    """Encode and tag a text, cut to `max_words` tokens, as pre-training does."""
    tagged = tag_caption(text, tokenizer, tagger)
    part = text_part(tagged.ids, tokenizer, max_words)
    part |= tag_part(tagged.ids, tagged.is_noun, tagged.is_verb, tokenizer, max_words)
    _, numbers = tokenizer.encode_words(text)
    return TaggedText(part, split_words(text), [-1, *numbers[: int(part["text_mask"].sum()) - 2], -1])
