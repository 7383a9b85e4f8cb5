"""Rows of a WebVid csv: which can be used, and where their videos may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.preparation.webvid_rows import (
    BAD_ID,
    EMPTY_CAPTION,
    REPEATED_ID,
    BadCsv,
    Row,
    read_rows,
    survey_csv,
    video_places,
)


def test_rows_without_page_dir_column_and_ids_that_no_index_could_hold(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffvideoid,name\n1,one\n"2\t3",tab\n../4,up\n5,\n1,again\n1,"and again"\n', encoding="utf-8")
    num_rows, repeated = survey_csv(path)
    assert (num_rows, len(repeated)) == (6, 1)
    rows = list(read_rows(path, 4, repeated))
    assert [row.shard for row in rows] == [0, 0, 0, 0, 1, 1]
    assert [bool(row.fault) for row in rows] == [False, True, True, True, True, True]
    assert rows[3].fault == "empty caption"
    assert "repeats" in (rows[5].fault or "")
    assert {row.page_dir for row in rows} == {""}


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_each_fault_has_a_kind_and_says_which_row(tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", "videoid,name,page_dir\n1, a dog ,p\n,a cat,p\n2, ,p\n1,a cow,q\n")
    rows = list(read_rows(path, 100, survey_csv(path)[1]))
    assert [row.fault_kind for row in rows] == [None, BAD_ID, EMPTY_CAPTION, REPEATED_ID]
    assert rows[0] == Row(0, "1", "a dog", "p", None)
    assert rows[1].fault == "row 2 of the csv has no usable video id: ''"
    assert rows[3].fault == "row 4 of the csv repeats this id; its first row is used"


@pytest.mark.parametrize("video_id", ["a/b", "a\tb", "a\x1b[2Jb", "a\u202eb", "..", "None", "nan", "x" * 300])
def test_ids_that_name_no_file_or_break_a_line_of_the_index_are_refused(tmp_path: Path, video_id: str):
    path = write_csv(tmp_path / "a.csv", f'videoid,name\n"{video_id}",a dog\n')
    [row] = read_rows(path, 100, set())
    assert row.fault_kind == BAD_ID and repr(video_id) in (row.fault or "")


def test_a_csv_of_titles_alone_has_no_rows(tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", "videoid,name\n")
    assert survey_csv(path) == (0, set()) and list(read_rows(path, 100, set())) == []


def test_a_file_that_is_no_csv_of_webvid_is_an_error(tmp_path: Path):
    with pytest.raises(BadCsv, match=r"a\.csv: no column name and videoid; found .*; WebVid's csv has"):
        survey_csv(write_csv(tmp_path / "a.csv", "id,caption\n1,a dog\n"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (b"1,a caf\xe9,p\n", r"line 3: not UTF-8 \(byte 0xe9\)"),
        (b"1,a \0dog,p\n", "line 3: a NUL character"),
        (b"1,a dog, running,p\n", "line 3: 4 fields, the first row has 3"),
        (b"1\n", "line 3: 1 fields"),
        (b'1,"a dog,p\n2,a cat,p\n', "lines 3 to 4: unexpected end of data; is a quote open"),
        (b"1," + b"x" * 140_000 + b",p\n", "line 3: field larger than field limit"),
    ],
    ids=["latin-1", "nul", "comma", "short", "quote", "huge"],
)
def test_rows_that_would_mean_something_else_are_errors_and_not_skipped(tmp_path: Path, rows: bytes, message: str):
    (tmp_path / "b.csv").write_bytes(b"videoid,name,page_dir\n0,a man,p\n" + rows)
    with pytest.raises(BadCsv, match=rf"b\.csv, {message}.*WebVid's csv has"):
        survey_csv(tmp_path / "b.csv")
    with pytest.raises(BadCsv, match=rf"b\.csv, {message}"):
        list(read_rows(tmp_path / "b.csv", 10, set()))


@pytest.mark.parametrize("caption", ["nan", "None", "null", "[]", "\"['a dog', 'a cat']\""])
def test_captions_that_a_program_wrote_for_none_are_empty(tmp_path: Path, caption: str):
    path = write_csv(tmp_path / "a.csv", f"videoid,name\n1,{caption}\n")
    assert [row.fault_kind for row in read_rows(path, 10, set())] == [EMPTY_CAPTION]


@pytest.mark.parametrize("page_dir", ["../..", "/etc", "a/../../b", "d" * 300])
def test_a_page_leads_out_of_no_folder(page_dir: str):
    assert video_places(Path("videos"), page_dir, "7") == [Path("videos/7.mp4")]


def test_a_video_lies_in_the_folder_of_its_page_or_beside_it():
    videos = Path("videos")
    assert video_places(videos, "001_050", "7") == [videos / "001_050" / "7.mp4", videos / "7.mp4"]
    assert video_places(videos, "", "7") == [videos / "7.mp4"]
