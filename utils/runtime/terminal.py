"""What commands print and log: text of data, such as ids, captions and file names, is escaped before it is shown."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TextIO

from modules.characters import printable, printable_json, printable_message


class ShownFormatter(logging.Formatter):
    """Log records as they may be shown on a terminal (`printable_message`)."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return printable_message(super().format(record))


def log_to_stderr(level: int) -> None:
    """Show what the packages log from a level on, for commands without a run's folder; other handlers may have more."""
    handler = logging.StreamHandler()
    handler.setLevel(level)
    handler.setFormatter(ShownFormatter("%(message)s"))
    logging.basicConfig(level=min(level, logging.WARNING), handlers=[handler])


def show(message: str) -> None:
    """Print a message, which may have several lines, on the standard output."""
    _write(printable_message(message), sys.stdout)


def show_lines(lines: Iterable[str]) -> None:
    """Print lines on the standard output; a line end inside one of them, which is data's, is escaped."""
    _write("\n".join(map(printable, lines)), sys.stdout)


def show_json(text: str) -> None:
    """Print a JSON text on the standard output, with the same content."""
    _write(printable_json(text), sys.stdout)


def show_error(message: object) -> None:
    """Print a message, which may have several lines, on the standard error output."""
    _write(printable_message(str(message)), sys.stderr)


def _write(text: str, stream: TextIO) -> None:
    # A terminal of another encoding shows what it can.
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
