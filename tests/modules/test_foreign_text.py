"""Files from strangers: read as they are meant, or refused with file, line and remedy; never a traceback."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modules import foreign_text
from modules.foreign_text import (
    caption_text,
    iterate_lines,
    read_bytes,
    read_json,
    read_json_lines,
    read_lines,
    read_plain_pickle,
    read_rows,
    read_table,
    read_text,
    video_id,
    video_path,
)

WIDE = ("utf-16", "utf-16le", "utf-16be", "utf-32", "utf-32le", "utf-32be")
READERS: dict[str, Callable[[Path], Any]] = {
    "text": read_text,
    "lines": lambda path: list(read_lines(path)),
    "json": read_json,
    "jsonl": lambda path: list(read_json_lines(path)),
    "csv": lambda path: list(read_table(path)),
    "csv, streamed": lambda path: list(read_table(path, is_streamed=True)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "given.txt"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_text_is_the_same_with_and_without_a_mark(path: Path, mark: bytes):
    path.write_bytes(mark + "video_id,sentence\nv1,ein Gru\u00df\n".encode())
    assert list(read_table(path)) == [(2, {"video_id": "v1", "sentence": "ein Gru\u00df"})]
    path.write_bytes(mark + b'["v1"]')
    assert read_json(path) == ["v1"] == [value[0] for _, value in read_json_lines(path)]
    path.write_bytes(mark + b"\n v1 \r\n\nv2")
    assert list(read_lines(path)) == [(2, "v1"), (4, "v2")]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\nc,d\ncaf\xe9,e\n", r"given\.txt, line 3: not UTF-8 \(byte 0xe9\); save it as UTF-8"),
        (b'["a","b"]\n["c","\0d"]\n', r"given\.txt, line 2: a NUL character"),
        *(("a,b\n".encode(name), rf"given\.txt: {name[:6].upper()} text; save it as UTF-8.*{name}") for name in WIDE),
        (gzip.compress(b"a,b\n"), r"given\.txt: compressed with gzip; unpack it first"),
        (bz2.compress(b"a,b\n"), r"given\.txt: compressed with bzip2; unpack it first"),
        (lzma.compress(b"a,b\n"), r"given\.txt: compressed with xz; unpack it first"),
        (b"PK\x03\x04\x14\0\x06\0xl/workbook.xml", r"given\.txt: a zip archive or an Excel workbook; .* csv in UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", r"given\.txt: an Excel workbook; save the sheet as csv"),
        (pickle.dumps({"a": 1}), r"given\.txt: a pickle and no text"),
    ],
    ids=["latin-1", "nul", *WIDE, "gzip", "bzip2", "xz", "xlsx", "xls", "pickle"],
)
def test_what_is_no_utf_8_text_is_refused_by_line(path: Path, reader: str, content: bytes, message: str):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
def test_files_that_are_not_there_too_large_or_no_files_are_named(path: Path, reader: str, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"given\.txt"):
        READERS[reader](path)
    path.mkdir()
    with pytest.raises(ValueError, match=r"given\.txt: cannot be read: Is a directory"):
        READERS[reader](path)
    path.rmdir()
    path.symlink_to("elsewhere")
    with pytest.raises(FileNotFoundError, match=r"given\.txt: is a link to elsewhere, which is not there"):
        READERS[reader](path)
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever
    with pytest.raises(ValueError, match=r"given\.txt: cannot be read: Is a pipe or a device; name a file"):
        READERS[reader](path)
    path.unlink()
    path.write_bytes(b"12345")
    monkeypatch.setattr(foreign_text, "MAX_BYTES", 4)
    if "streamed" in reader:  # of which nothing is kept
        assert READERS[reader](path) == []
        return
    with pytest.raises(ValueError, match=r"given\.txt: 5 bytes, more than the 4"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_may_not_be_read_is_named(path: Path, reader: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path.write_text("a")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match=r"given\.txt: cannot be read: Permission denied"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", [read_text, read_bytes, lambda path: list(iterate_lines(path))])
def test_a_file_that_changes_while_it_is_read_is_refused(path: Path, reader: Any, monkeypatch: pytest.MonkeyPatch):
    """Half of one file and half of another is neither."""
    status, calls = os.fstat, 0

    def growing(descriptor: int) -> os.stat_result:
        nonlocal calls
        calls += 1
        if calls == 2:
            with path.open("a") as file:
                file.write("v3\n")
        return status(descriptor)

    path.write_text("v1\nv2\n")
    monkeypatch.setattr(os, "fstat", growing)
    with pytest.raises(ValueError, match=r"given\.txt: was changed while it was read; try again when it is written"):
        reader(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_lines_are_the_same_with_every_line_end(path: Path, end: str, size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(foreign_text, "PART", size)
    path.write_bytes(end.join(["id,text", "", "a,\u00fc\u2028x", '"b","1\u00df"', ""]).encode())
    assert list(read_lines(path)) == [(1, "id,text"), (3, "a,\u00fc\u2028x"), (4, '"b","1\u00df"')]
    assert list(read_table(path)) == [(3, {"id": "a", "text": "\u00fc\u2028x"}), (4, {"id": "b", "text": "1\u00df"})]
    assert "".join(line for _, line in iterate_lines(path)) == path.read_bytes().decode()


def test_a_line_or_a_row_without_end_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(foreign_text, "MAX_LINE", 100)
    monkeypatch.setattr(foreign_text, "PART", 10)
    path.write_text("a\n" + "b" * 200)
    with pytest.raises(ValueError, match=r"given\.txt, line 2: more than 100 characters; is it another kind of file"):
        list(read_lines(path))
    path.write_text("a,b\n" + ',"\n"' * 50)
    with pytest.raises(ValueError, match=r"given\.txt, lines 2 to \d+: a row of more than 100 characters"):
        list(read_table(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": NaN}', "NaN is no value of JSON"),
        ("[-Infinity]", "-Infinity is no value of JSON"),
        ("[1e999]", "1e999 is no number that can be held"),
        ('[{"v1": 1, "v2": 2, "v1": 3}]', "a dictionary has 'v1' twice"),
        ("[1] [2]", "Extra data"),
        ("[1],", "Extra data"),
        ("", "Expecting value"),
        ("<!DOCTYPE html>", "Expecting value"),
    ],
)
def test_what_json_does_not_know_or_means_two_things_is_refused(path: Path, content: str, message: str):
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"given\.txt is not JSON: {message}"):
        read_json(path)
    path.write_text(f"[0]\n{content or 'x'}\n")
    with pytest.raises(ValueError, match=rf"given\.txt, line 2 is not JSON: {message}"):
        list(read_json_lines(path))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [150, 2_500, 100_000])
def test_json_that_is_nested_too_deeply_is_refused(path: Path, opening: str, depth: int):
    closing = "]" if opening == "[" else "}"
    path.write_text(opening * depth + "1" + closing * depth)
    with pytest.raises(ValueError, match=r"given\.txt: lists inside each other, more than 100 deep"):
        read_json(path)
    path.write_text(opening * 90 + "1" + closing * 90)
    assert read_json(path)


def test_what_is_not_json_is_said_with_the_line(path: Path):
    path.write_text('{"a": 1')
    with pytest.raises(ValueError, match=r"given\.txt is not JSON: .*is the file complete\?"):
        read_json(path)
    path.write_text('[1]\n\n{"a": }\n')
    with pytest.raises(ValueError, match=r"given\.txt, line 3 is not JSON"):
        list(read_json_lines(path))
    path.write_text("9" * 5000)
    with pytest.raises(ValueError, match=r"given\.txt is not JSON: .*4300 digits"):
        read_json(path)


def test_halves_of_characters_are_replaced_and_counted(path: Path, caplog: pytest.LogCaptureFixture):
    """A result that holds one could not be written."""
    path.write_text('{"caption \\udcff": ["a \\ud83d b", "\\ud83d\\ude00"]}')
    found = read_json(path)
    assert found == {"caption \ufffd": ["a \ufffd b", "\U0001f600"]} and json.dumps(found, ensure_ascii=False).encode()
    assert "given.txt: 2 halves of characters (lone surrogates) or NULs are replaced" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "v1,a dog, running\n",
            "line 2: 3 fields, the first row has 2; a field with ',' in it stands in double quotes",
        ),
        ("v1,a dog\nv2\n", "line 3: 1 fields"),
        ('v1,a dog\nv2,"a cat\nv3,a cow\nv4,a hen\n', "lines 3 to 5: unexpected end of data; is a quote open"),
        ('v1,"a" dog\n', "line 2: .* is a quote open"),
        ("v1," + "x" * 150_000 + "\n", r"line 2: field larger than field limit \(131072\)"),
    ],
    ids=["comma", "short", "quote", "quote inside", "huge"],
)
def test_rows_that_would_mean_something_else_are_refused_by_line(path: Path, rows: str, message: str):
    path.write_text("video_id,sentence\n" + rows)
    with pytest.raises(ValueError, match=rf"given\.txt, {message}"):
        list(read_table(path))


def test_quoted_fields_hold_commas_and_line_ends_and_blank_rows_are_left_out(path: Path):
    path.write_text('id,text\r\n\r\na,"one, two"\r\nb,"three\nfour"\r\n,\r\nc,"a ""quote"""\r\n', newline="")
    expected = [(3, "a", "one, two"), (4, "b", "three\nfour"), (7, "c", 'a "quote"')]
    assert [(line, row["id"], row["text"]) for line, row in read_table(path, ("id", "text"))] == expected


def test_a_missing_or_doubled_column_is_named(path: Path):
    path.write_text("video_id,caption\nv1,x\n")
    with pytest.raises(ValueError, match=r"given\.txt: no column sentence; found \['video_id', 'caption'\]"):
        list(read_table(path, ("video_id", "sentence")))
    path.write_text("a,a\n1,2\n")
    with pytest.raises(ValueError, match="two columns of one name"):
        list(read_table(path))
    path.write_text("a\tb\n1\t2\n")
    assert [row.fields for row in read_rows(path, "\t")] == [["a", "b"], ["1", "2"]]


@pytest.mark.parametrize(
    ("value", "path"),
    [(" a/b c.mp4 ", "a/b c.mp4"), ("./a//b/./v", "a/b/v"), ("..v", "..v"), (7, "7"), ("nan/a", "nan/a")],
)
def test_paths_of_videos_lie_below_a_folder(value: Any, path: str):
    assert video_path(value, "x") == path


@pytest.mark.parametrize(
    ("value", "why"),
    [
        *[
            (value, "no path of a video")
            for value in ("", " ", ".", "./", "None", "a\0b", "a\n/b", "x/" * 501, 1.5, True)
        ],
        *[(value, "no path of a video") for value in (None, ["a"], "a/" + "x" * 201, "\ufffd")],
        *[(value, "leads out of the folder") for value in ("..", "../a", "a/../../b", "a/../b")],
        *[(value, "is absolute") for value in ("/a", "//a", "C:/a", "c:")],
        *[(value, "has backslashes") for value in ("a\\b", "\\\\host\\a", "C:\\a")],
    ],
)
def test_what_is_no_path_below_a_folder_is_refused_with_the_reason(value: Any, why: str):
    with pytest.raises(ValueError, match=f"^list, line 3: .*{why}"):
        video_path(value, "list, line 3")


@pytest.mark.parametrize("value", ["video1", "12@N00_5_ab", "a b", "..v", 7])
def test_ids_are_names_of_files(value: Any):
    assert video_id(value, "x") == str(value)


@pytest.mark.parametrize(
    "value",
    [
        "", "  ", "../v", "/etc/v", "a/b", "a\0b", ".", "..", None, True, 1.5, float("nan"), ["v"], {}, "None", "nan",
        "a\nb", "a\x1b[31m", "a\u202eb", "x" * 201, "\u00e9" * 150, 10**250,
    ],
)  # fmt: skip
def test_what_is_no_name_of_a_file_or_leads_out_of_the_folder_is_no_id(value: Any):
    with pytest.raises(ValueError, match="list, line 3: .* is no video id"):
        video_id(value, "list, line 3")


@pytest.mark.parametrize("value", ["a dog", "", "nan is here", "[music]", "it's none"])
def test_captions_are_text(value: str):
    assert caption_text(value, "x") == value


@pytest.mark.parametrize(
    "value", [None, 3, 1.5, True, ["a dog"], {"a": "dog"}, "nan", " None ", "[]", "['a', 'b']", '["a"]']
)
def test_what_is_no_text_or_was_none_before_it_was_written_is_no_caption(value: Any):
    with pytest.raises(ValueError, match="list, line 3: .* is no caption; correct it or delete the entry"):
        caption_text(value, "list, line 3")


def test_what_no_file_can_hold_is_replaced_in_pickles_too(path: Path, caplog: pytest.LogCaptureFixture):
    path.write_bytes(pickle.dumps({"v1": [["a", "d\ud83dg"], ("\0",)]}))
    assert read_plain_pickle(path) == {"v1": [["a", "d\ufffdg"], ("\ufffd",)]}
    assert "given.txt: 2 halves of characters" in caplog.text


def test_plain_pickles_are_read_and_nothing_else_is(path: Path):
    plain = {"v1": [["a", "dog"], ["two", "dogs"]], "n": (1, 2.5, None)}
    path.write_bytes(pickle.dumps(plain))
    assert read_plain_pickle(path) == plain
    for content in (pickle.dumps(Path("x")), pickle.dumps(plain)[:-9], b"", b"\x80\x04."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"given\.txt cannot be read"):
            read_plain_pickle(path)


@pytest.mark.parametrize("kind", [list, tuple], ids=["lists", "tuples"])
def test_a_pickle_of_few_bytes_that_stands_for_very_many_values_is_refused(path: Path, kind: type):
    value: Any = ["a"]
    for _ in range(60):
        value = kind([value, value])
    path.write_bytes(pickle.dumps({"v": value}))
    assert path.stat().st_size < 2000
    with pytest.raises(ValueError, match=r"given\.txt: \d+ values, lists inside each other"):
        read_plain_pickle(path)
    itself: list[Any] = []
    itself.append(itself)
    path.write_bytes(pickle.dumps(itself))
    with pytest.raises(ValueError, match="lists inside each other"):
        read_plain_pickle(path)


def test_the_cases_are_refused_or_read_as_their_readme_says(shared: Path, caplog: pytest.LogCaptureFixture):
    folder = shared / "cases" / "annotations"
    for name, message in (("comma.csv", "line"), ("quote.csv", "line"), ("latin1.csv", "line .*not UTF-8")):
        with pytest.raises(ValueError, match=rf"{name}, {message}"):
            list(read_table(folder / name))
    assert all("video_id" in row for _, row in read_table(folder / "train_bom.csv", ("video_id",)))
    # From 3.12 on some Pythons parse deeper, and come to where the file is cut.
    cut = "" if sys.version_info < (3, 12) else "| is not JSON"
    with pytest.raises(ValueError, match=rf"deep\.json(: lists inside each other{cut})"):
        read_json(folder / "deep.json")
    with pytest.raises(ValueError, match=r"billion_laughs\.pkl: \d+ values"):
        read_plain_pickle(folder / "billion_laughs.pkl")
    json.dumps(read_json(folder / "surrogate_MSRVTT_data.json"), ensure_ascii=False).encode()
    assert "halves of characters" in caplog.text
