"""Characters that no file can hold, and those that a terminal would obey."""

from __future__ import annotations

import json

import pytest

from modules.characters import printable, printable_json, printable_lines, printable_message, whole_characters

HOSTILE = [
    "\x1b[2J\x1b]0;title\x07", "\x9b31m", "\x7f", "\b\b", "\u202etxt.exe", "\u2066", "\u200f", "\u2028", "\udcff", "\0",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_terminal_is_sent_no_control_character(text: str):
    for shown in (printable(f"v{text}1"), printable_message(f"v{text}1")):
        assert shown.startswith("v\\") and shown.isprintable() and shown.endswith("1")
    document = json.dumps([f"v{text}1"], ensure_ascii=False)
    assert printable_json(document).isprintable() and json.loads(printable_json(document)) == [f"v{text}1"]


@pytest.mark.parametrize("text", ["ein Gru\u00df", "\u732b \U0001f600", "a\\b 'c'", ""])
def test_other_text_is_shown_as_it_is(text: str):
    assert printable(text) == printable_message(text) == printable_json(text) == text


def test_a_line_end_of_data_fakes_no_line():
    assert printable("a\nerror: b\tc\r\n") == "a\\nerror: b\\tc\\r\\n"
    assert printable_message("left out:\n  a\r\nerror: b\rc") == "left out:\n      a\n    error: b\\rc"


def test_what_no_file_can_hold_is_replaced_and_counted():
    assert whole_characters("a\ud83d\0\U0001f600") == ("a\ufffd\ufffd\U0001f600", 2)


def test_lines_stay_lines_and_are_printable():
    assert printable_lines("a\tb\x1b\nc\x85") == "a\\tb\\x1b\nc\\x85"
