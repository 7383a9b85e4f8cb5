"""Tables of videos and captions: whose rows are captions of which video, and where that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from utils.preparation.caption_rows import CaptionSource, find_video, open_table
from utils.preparation.webvid_rows import BAD_ID, EMPTY_CAPTION, BadCsv, Row, WebVidSource

ALL = range(1000)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_further_rows_of_a_video_are_its_captions(tmp_path: Path):
    path = write(
        tmp_path / "a.csv",
        "id,video,caption\n1,x/a.mp4,a dog\n2,b,\n3,./x//a.mp4,\n4,b, a cow \n5,x/a.mp4,a cat\n6,b,nan\n7,c.v2,a pig\n",
    )
    source = open_table(path)
    assert isinstance(source, CaptionSource) and source.num_rows == 7
    rows = list(source.rows(3, ALL))
    assert rows[0] == Row(0, "a", "a dog", "", None, video="x/a.mp4", has_further=True)
    assert [row.video_id for row in rows] == ["a", "b", "a", "b", "a", "b", "c.v2"]
    assert [row.fault_kind for row in rows] == [None, EMPTY_CAPTION, EMPTY_CAPTION, None, None, EMPTY_CAPTION, None]
    assert [row.is_further for row in rows] == [False, False, False, False, True, False, False]
    assert rows[3].caption == "a cow" and not rows[6].has_further
    assert list(source.rows(3, {1})) == rows[3:6]


@pytest.mark.parametrize("ending", [".tsv", ".jsonl"])
def test_other_tables_have_the_same_names(tmp_path: Path, ending: str):
    rows = [("a.mp4", 'a "big", dog'), ("b.mp4", "a cat")]
    if ending == ".tsv":
        lines = ["video\tcaption", 'a.mp4\t"a ""big"", dog"', "b.mp4\ta cat"]
    else:
        lines = [json.dumps({"video": video, "caption": caption, "split": "train"}) for video, caption in rows]
        lines.append('{"video": 7, "caption": null}')
    source = open_table(write(tmp_path / f"a{ending}", "\n".join(lines)))
    found = list(source.rows(9, ALL))
    assert [(row.video, row.caption) for row in found[:2]] == rows
    if ending == ".jsonl":
        assert (found[2].video_id, found[2].fault_kind) == ("7", EMPTY_CAPTION)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../a.mp4,a dog", "leads out of the folder"),
        ("x/../../a.mp4,a dog", "leads out of the folder"),
        ("/etc/passwd,a dog", "is absolute"),
        ("C:/a.mp4,a dog", "is absolute"),
        ("..\\a.mp4,a dog", "backslashes"),
        ("a\x1b[2J.mp4,a dog", "is no path of a video"),
        ("a\u202e.mp4,a dog", "is no path of a video"),
        (",a dog", "is no path of a video"),
        (".,a dog", "is no path of a video"),
        ("x" * 300 + ",a dog", "is no path of a video"),
        ("x/" * 600 + "a,a dog", "is no path of a video"),
        ("a.mp4,a dog,more", "3 fields, the first row has 2"),
    ],
)
def test_paths_out_of_the_folder_are_named_with_their_line(tmp_path: Path, line: str, message: str):
    path = write(tmp_path / "a.csv", f"video,caption\nb.mp4,a cat\n{line}\n")
    with pytest.raises(BadCsv, match=rf"a\.csv, line 3: .*{message}"):
        open_table(path)


@pytest.mark.parametrize(
    ("first", "second"), [("x/a.mp4", "y/a.mp4"), ("a.mp4", "a.webm"), ("a", "x/a"), ("a.MP4", "a.mp4")]
)
def test_an_id_of_two_files_is_an_error(tmp_path: Path, first: str, second: str):
    path = write(tmp_path / "a.csv", f"video,caption\n{first},a dog\nb,a cat\n{second},a cow\n")
    with pytest.raises(BadCsv, match=rf"line 4: '{second}' and '{first}' of line 2 have the id 'a'"):
        open_table(path)


def test_a_path_may_lack_its_extension_in_some_rows(tmp_path: Path):
    path = write(tmp_path / "a.csv", "video,caption\nx/a,a dog\nx/a.mp4,a cat\nx/a,a cow\n")
    assert [row.is_further for row in open_table(path).rows(9, ALL)] == [False, True, True]
    path = write(tmp_path / "b.csv", "video,caption\na,a dog\na.mp4,a cat\na.webm,a cow\n")
    with pytest.raises(BadCsv, match=r"line 4: 'a\.webm' and 'a\.mp4' of line 3 have the id 'a'"):
        open_table(path)


def test_of_a_table_with_splits_the_training_rows_are_read(tmp_path: Path):
    rows = ["test/a.mp4,a dog,test", "train/a.mp4,a cat,train", "b,a pig,val", "train/a,a cow,train"]
    source = open_table(write(tmp_path / "a.csv", "\n".join(["video,caption,split", *rows])))
    assert isinstance(source, CaptionSource) and (source.num_rows, source.other_rows) == (2, 2)
    assert [(row.video, row.caption) for row in source.rows(9, ALL)] == [("train/a.mp4", "a cat"), ("train/a", "a cow")]
    assert source.other_rows == 2
    with pytest.raises(BadCsv, match=r"b\.csv, line 2: split is 'dev', none of train, val, test"):
        open_table(write(tmp_path / "b.csv", "video,caption,split\na,a dog,dev\n"))


def test_a_name_that_can_be_no_id_is_a_fault_of_its_row(tmp_path: Path):
    path = write(tmp_path / "a.csv", "video,caption\nx/None.mp4,a dog\nb,a cat\n")
    assert [row.fault_kind for row in open_table(path).rows(9, ALL)] == [BAD_ID, None]


def test_the_columns_decide_the_form(tmp_path: Path):
    assert isinstance(open_table(write(tmp_path / "a.csv", "videoid,name,video\n1,a dog,x\n")), WebVidSource)
    with pytest.raises(BadCsv, match="has the columns video and caption, and WebVid's videoid and name"):
        open_table(write(tmp_path / "b.csv", "videoid,name,video,caption\n"))
    with pytest.raises(BadCsv, match=r"c\.csv: no column name and videoid; .*one of your own video, caption"):
        open_table(write(tmp_path / "c.csv", "file,caption\n"))
    with pytest.raises(BadCsv, match=r"d\.tsv: no column caption and video"):
        open_table(write(tmp_path / "d.tsv", "video,caption\na,a dog\n"))
    with pytest.raises(BadCsv, match="UTF-16"):
        (tmp_path / "e.csv").write_bytes("video,caption\n".encode("utf-16"))
        open_table(tmp_path / "e.csv")


@pytest.mark.parametrize(
    "line", ['["a"]', '{"video": "a"}', '{"video": "a", "caption": ["x"]}', '{"video": ["a"], "caption": "x"}']
)
def test_lines_of_json_without_their_values_are_errors(tmp_path: Path, line: str):
    path = write(tmp_path / "a.jsonl", f'{{"video": "b", "caption": "a dog"}}\n{line}\n')
    with pytest.raises(BadCsv, match=r"a\.jsonl, line 2: "):
        open_table(path)


def test_no_rows_are_no_clips(tmp_path: Path):
    source = open_table(write(tmp_path / "a.csv", "video,caption\n"))
    assert source.num_rows == 0 and list(source.rows(9, ALL)) == []


def test_a_video_is_found_with_or_without_its_extension(tmp_path: Path):
    for name in ("x/a.mp4", "x/b.WEBM", "bare", "c.v2.mov", "two.mp4", "two.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for path, name in {
        "x/a.mp4": "x/a.mp4",
        "x/a": "x/a.mp4",
        "x/b": "x/b.WEBM",
        "bare": "bare",
        "c.v2": "c.v2.mov",
    }.items():
        assert find_video(tmp_path, path) == tmp_path / name
    assert find_video(tmp_path, "x/a.webm") == f"no video at {tmp_path}/x/a.webm"
    assert find_video(tmp_path, "x") == f"no video at {tmp_path}/x, with a usual extension or without one"
    assert find_video(tmp_path, "two") == (
        f"several videos at {tmp_path}/two.mp4, {tmp_path}/two.avi: write the path with its extension"
    )
