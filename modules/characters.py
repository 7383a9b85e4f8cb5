"""Characters of foreign text: which no file can hold, and which a terminal must not be sent."""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"
UNWRITABLE = re.compile(r"[\0\ud800-\udfff]")
# C0 but for tab and line feed, DEL, C1, marks of writing direction, line separators, halves of characters.
UNSHOWN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
CONTROL = re.compile(rf"[{UNSHOWN}]")
CONTROL_OR_BREAK = re.compile(rf"[{UNSHOWN}\t\n]")
JSON_CONTROL = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")
CONTINUED = "\n    "


def whole_characters(text: str) -> tuple[str, int]:
    """Text without NULs and halves of characters (lone surrogates), which files cannot hold; how many were replaced."""
    return UNWRITABLE.subn(REPLACEMENT, text)


def printable(text: str) -> str:
    """Text of data as one line that a terminal shows and never obeys: control characters stand as escapes."""
    return CONTROL_OR_BREAK.sub(_escape, text)


def printable_lines(text: str) -> str:
    """As `printable`, but line ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def printable_message(text: str) -> str:
    r"""A message of one or more lines for a terminal or a log.

    Escaped as by `printable`, but for its line ends. Lines after the first are indented: what data puts behind a line
    end cannot pass for a message of its own.
    """
    return CONTROL.sub(_escape, text.replace("\r\n", "\n")).replace("\n", CONTINUED)


def printable_json(text: str) -> str:
    """A JSON text with the same content, in which every control character is an escape of JSON."""
    return JSON_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
