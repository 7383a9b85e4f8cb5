"""What every tagger's parts of speech are corrected by: progressive verbs, and words that are frequently mistaken.

The tables hold only what is frequent in captions of videos and certain; all else is the tagger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

NOUN, VERB = 1, 2
TAGS_VERSION = 2  # raised whenever a caption can get other tags; caches of another version are built again

BE = frozenset(("am", "is", "are", "was", "were", "be", "been", "being", "'m", "'re"))
# Behind these "'s" is "is"; behind a noun it is rather a possessive ("a man's cutting board").
PRONOUNS = frozenset(("he", "she", "it", "that", "who", "what", "everyone", "everybody", "someone", "somebody"))
# May stand between "be" and its verb, beside the words in -ly. Not "very" or "so", which go before adjectives.
ADVERBS = frozenset(
    (
        "not", "n't", "never", "also", "again", "already", "always", "almost", "still", "now", "then", "just", "both",
        "all", "together", "sometimes", "often", "soon", "even", "each",
    )
)  # fmt: skip
CONJUNCTIONS = frozenset(("and", "or", "but", "then", "while", ",", "&", "/"))
VOWELS = frozenset("aeiouy")
# They end in -ing and are no form of a verb, or behind "be" adjectives as often ("is interesting"): the tagger decides.
# Those without a vowel before -ing (ring, king, string, sing) need no entry.
NO_PROGRESSIVES = frozenset(
    (
        "being", "during",
        "something", "anything", "nothing", "everything", "plaything", "morning", "evening", "ceiling", "clothing",
        "underclothing", "wedding", "pudding", "lightning", "earring", "herring", "awning", "inning", "sibling",
        "darling", "duckling", "dumpling", "gosling", "seedling", "viking", "offspring", "shoestring", "bullring",
        "amazing", "amusing", "annoying", "appealing", "astonishing", "boring", "challenging", "charming", "confusing",
        "convincing", "cunning", "daring", "depressing", "disappointing", "disgusting", "disturbing", "embarrassing",
        "entertaining", "exciting", "exhausting", "fascinating", "frightening", "frustrating", "inspiring",
        "interesting", "missing", "ongoing", "outgoing", "outstanding", "overwhelming", "promising", "refreshing",
        "satisfying", "shocking", "stunning", "surprising", "terrifying", "thrilling", "tiring", "willing",
        "unwilling", "sterling",
    )
)  # fmt: skip

# Before a noun they are no nouns. Colours that are things too (orange, olive, rose, gold) are the tagger's.
COLORS = frozenset(
    (
        "black", "white", "gray", "grey", "red", "green", "blue", "yellow", "purple", "pink", "brown", "cyan", "beige",
        "magenta", "turquoise",
    )
)  # fmt: skip
# Words with 20 or more in captions of MSVD, MSR-VTT or the demo world that HanTa takes for something else.
WORD_KINDS = {
    "cyan": 0,  # a name
    "s": 0,  # a name; it is an "'s" that lost its apostrophe
    "tofu": NOUN, "udon": NOUN, "sushi": NOUN,  # unknown words
    "ferret": NOUN, "ferrets": NOUN, "ping": NOUN,  # verbs; "ping pong"
    "cucumber": NOUN, "gamer": NOUN,  # adjectives that end in -er
    "doing": VERB, "playing": VERB, "typing": VERB, "dicing": VERB, "talks": VERB,  # nouns and adjectives
}  # fmt: skip


def correct_kinds(words: Sequence[str], kinds: Sequence[int]) -> list[int]:
    """Return NOUN, VERB or 0 for each word of a sentence.

    Args:
        words: with negations as `tagging.split_negations` splits them.
        kinds: the tagger's NOUN, VERB or 0.
    """
    corrected = [WORD_KINDS.get(word, kind) for word, kind in zip(words, kinds, strict=True)]
    for place in progressives(words):
        corrected[place] = VERB
    for place in range(len(words) - 1):
        if words[place] in COLORS and corrected[place + 1] == NOUN:
            corrected[place] = 0
    return corrected


def progressives(words: Sequence[str]) -> list[int]:
    """Return the places of -ing forms behind a form of "be", also over adverbs, and of those joined to them.

    Behind "there is" the tagger decides: what comes may be a thing ("there are playing cards").
    """
    found: list[int] = []
    state = _State.ELSEWHERE
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if word in BE or (word == "'s" and before in PRONOUNS):
            state = _State.EXPECTED if before != "there" else _State.ELSEWHERE
        elif state is _State.EXPECTED and _is_ing_form(word):
            found.append(place)
            state = _State.FOUND
        elif word in CONJUNCTIONS and (state is _State.FOUND or (state is _State.EXPECTED and before in CONJUNCTIONS)):
            state = _State.EXPECTED
        elif not _is_adverb(word):
            state = _State.ELSEWHERE
    return found


class _State(Enum):
    """Of a sentence's words up to one: whether a progressive may come next, or has just been."""

    ELSEWHERE = 0
    EXPECTED = 1
    FOUND = 2


def _is_ing_form(word: str) -> bool:
    stem = word.removesuffix("ing")
    return stem != word and not VOWELS.isdisjoint(stem) and word not in NO_PROGRESSIVES


def _is_adverb(word: str) -> bool:
    return word in ADVERBS or word.endswith("ly")
