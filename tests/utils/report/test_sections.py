"""What of the tasks' files the page shows."""

from __future__ import annotations

from tests.utils.report.quickstart import THINGS
from utils.report.sections import checked, spread


def test_examples_are_spread_over_the_list():
    assert spread(range(100), 4) == [0, 25, 50, 75] and spread(range(3), 10) == [0, 1, 2] and spread([], 3) == []


def test_words_of_a_caption_are_checked_thing_by_thing():
    words, missed = checked("a blue ring is resting and a blue star is growing and a ring is resting", THINGS)
    assert words == [
        [("blue", False), ("ring", True), ("resting", True)],
        [("blue", True), ("star", True), ("growing", True)],
        [("ring", False), ("resting", False)],
    ]
    assert missed == 0 and checked("nothing", THINGS) == ([], 2)
