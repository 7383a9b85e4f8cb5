"""The process that asks Java for tokens and METEOR."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocoevalcap.tokenizer import ptbtokenizer

from tests.utils.evaluation.test_caption_metrics import PTB_EXAMPLES, needs_java
from utils.evaluation.java_scorers import JAVA_OPTIONS, JavaError, last_words, main, ptb_tokens


@needs_java
def test_tokens_of_the_ptb_tokenizer():
    assert dict(zip(PTB_EXAMPLES, ptb_tokens(list(PTB_EXAMPLES)), strict=True)) == PTB_EXAMPLES


@needs_java
@pytest.mark.skipif(not os.access(Path(ptbtokenizer.__file__).parent, os.W_OK), reason="it writes into its package")
def test_tokens_are_those_of_pycocoevalcap():
    captions = {text: [{"caption": text}] for text in PTB_EXAMPLES}
    expected = ptbtokenizer.PTBTokenizer().tokenize(captions)
    assert [tokens for (tokens,) in expected.values()] == ptb_tokens(list(captions))[: len(expected)]


@pytest.fixture
def plain_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a java of the given shell script, which knows the file of texts as $file, before all others."""

    def make(script: str) -> None:
        (tmp_path / "java").write_text(f"#!/bin/sh\nfor file; do :; done\n{script}\n")
        (tmp_path / "java").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


def ask(request: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the child process answers."""
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    assert main([]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_line_that_java_gives_belongs_to_a_text_and_loses_its_punctuation(plain_java):
    plain_java('tr A-Z a-z < "$file"')
    assert ptb_tokens(["A dog , runs .", "", "Two Men -- sing ! "]) == ["a dog runs", "", "two men sing "]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo a dog", "ended with exit code 0 and 1 of 2 lines$"),
        ('cat "$file"; echo one more', "exit code 0 and 3 of 2 lines$"),
        ('cat "$file"; echo >&2 first; echo >&2 "  no heap "; exit 3', "exit code 3 and 2 of 2 lines: no heap$"),
    ],
)
def test_lines_that_do_not_fit_the_texts_are_an_error_with_javas_last_words(plain_java, script: str, message: str):
    plain_java(script)
    with pytest.raises(JavaError, match=message):
        ptb_tokens(["a dog", "a cat"])


def test_the_request_is_answered_in_java_that_does_not_depend_on_the_users_language(
    plain_java, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1g")
    plain_java('echo "$JAVA_TOOL_OPTIONS"')
    reply = ask({"task": "ptb", "texts": ["one"]}, monkeypatch, capsys)
    assert reply == {"answer": [f"-Xmx1g {JAVA_OPTIONS}"]}


def test_a_java_that_fails_is_a_reply_too(
    plain_java, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "")
    plain_java("exit 5")
    assert "exit code 5" in ask({"task": "ptb", "texts": ["one"]}, monkeypatch, capsys)["error"]
    (tmp_path / "java").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "java" in ask({"task": "ptb", "texts": ["one"]}, monkeypatch, capsys)["error"]


def test_last_words_are_the_last_line_that_is_not_empty():
    assert last_words(b"at Main\n  Exception: no heap \n\n") == ": Exception: no heap"
    assert last_words(b"") == last_words(None) == last_words(b"\n \n") == ""
    assert last_words(b"\xff broken") == ": \ufffd broken"
