"""What the rules of dataloaders/tag_rules.py change in a file of captions, beside what the tagger's library says.

    python -m tests.tag_changes raw-captions.pkl [--show 60] [--seed 0]

It counts the -ing forms right behind a form of "be" that are verbs, and all words that change, and prints the words
that change most. With --show it prints that many captions at random among those that change, to be read.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from dataloaders.caption_files import caption_texts
from dataloaders.tag_rules import BE, VERB, correct_kinds
from dataloaders.tagging import TAGGERS, Tagger, make_tagger, split_negations
from modules.tokenizer import split_words

NAMES = ("other", "noun", "verb")
MOST = 12


@dataclass
class Changes:
    """Counts over captions; a caption that occurs n times counts n times."""

    words: int = 0
    behind_be: int = 0  # -ing forms
    verbs_before: int = 0  # of these
    verbs_after: int = 0
    changed: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # word, kind before, kind after
    captions: list[str] = field(default_factory=list)  # different ones that change, the changed words marked


def measure(captions: Iterable[str], tagger: Tagger) -> Changes:
    """Tag captions without and with the rules."""
    found = Changes()
    for caption, times in Counter(captions).items():
        words = split_negations(split_words(caption))
        before = tagger.library_kinds(words) if words else []
        after = correct_kinds(words, before)
        found.words += times * len(words)
        for place, word in enumerate(words):
            if place and words[place - 1] in BE and word.endswith("ing") and word != "being":
                found.behind_be += times
                found.verbs_before += times * (before[place] == VERB)
                found.verbs_after += times * (after[place] == VERB)
            if before[place] != after[place]:
                found.changed[word, NAMES[before[place]], NAMES[after[place]]] += times
        if before != after:
            pairs = zip(words, before, after, strict=True)
            found.captions.append(
                " ".join(word if old == new else f"[{word}: {NAMES[old]} > {NAMES[new]}]" for word, old, new in pairs)
            )
    return found


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", help="as for utils/build_label_map.py --captions")
    parser.add_argument("--tagger", choices=tuple(TAGGERS), default="hanta")
    parser.add_argument("--show", type=int, default=0, help="captions to print")
    parser.add_argument("--seed", type=int, default=0, help="of their draw")
    args = parser.parse_args(argv)
    found = measure(caption_texts(args.captions), make_tagger(args.tagger))
    share = 100 / max(1, found.behind_be)
    print(
        f'-ing forms behind "be": {found.behind_be}; verbs: {found.verbs_before} ({share * found.verbs_before:.2f} %) '
        f"before, {found.verbs_after} ({share * found.verbs_after:.2f} %) after"
    )
    changed = found.changed.total()
    print(f"words changed: {changed} of {found.words} ({100 * changed / max(1, found.words):.2f} %)")
    for (word, before, after), count in found.changed.most_common(MOST):
        print(f"  {word}: {before} > {after}, {count}")
    shown = np.random.default_rng(args.seed).permutation(len(found.captions))[: args.show]
    for place in shown:
        print(found.captions[place])


if __name__ == "__main__":
    main()
