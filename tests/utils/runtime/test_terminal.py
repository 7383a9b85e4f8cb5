"""What commands print: data is shown, and neither obeyed nor taken for a line of the program."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from utils.runtime.terminal import ShownFormatter, show, show_error, show_json, show_lines

ID = "v\x1b[31m\nerror: faked\u202e"


def test_messages_lines_and_documents_are_escaped(capsys: pytest.CaptureFixture[str]):
    show(f"one\n{ID}")
    show_lines([ID, "two"])
    show_json(json.dumps([ID], ensure_ascii=False))
    show_error(ValueError(ID))
    out, err = capsys.readouterr()
    assert out.splitlines()[:4] == [
        "one", "    v\\x1b[31m", "    error: faked\\u202e", "v\\x1b[31m\\nerror: faked\\u202e"
    ]  # fmt: skip
    assert out.splitlines()[4] == "two" and json.loads(out.splitlines()[5]) == [ID]
    assert err == "v\\x1b[31m\n    error: faked\\u202e\n"


def test_a_terminal_of_another_encoding_shows_what_it_can(monkeypatch: pytest.MonkeyPatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", narrow)
    show("Gr\u00fc\u00dfe \u732b")
    narrow.seek(0)
    assert narrow.read() == "Gr\u00fc\u00dfe \\u732b\n"


def test_log_records_are_escaped_with_their_tracebacks():
    try:
        raise ValueError(ID)
    except ValueError:
        record = logging.LogRecord("utils", logging.ERROR, "", 1, "left out: %s", (ID,), sys.exc_info())
    lines = ShownFormatter("%(levelname)s %(message)s").format(record).splitlines()
    assert lines[0] == "ERROR left out: v\\x1b[31m"
    assert all(line.startswith("    ") and line.isprintable() for line in lines[1:]) and len(lines) > 4
