"""Tables of one's own: captions, questions and choices in csv, tsv and json lines."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dataloaders.caption_split import CaptionSplit
from dataloaders.datasets.csv_files import (
    CAPTIONS,
    CHOICES,
    KINDS,
    QUESTIONS,
    Table,
    check_splits,
    has_rows,
    kinds_of,
    object_names,
    read_captions,
    read_choices,
    read_questions,
)

# Two captions of one video, an empty one, a question alone, a choice that says its answer in each way.
ROWS: list[dict[str, str]] = [
    {"split": "train", "video": "a/one.mp4", "caption": "a dog, running"},
    {"split": "train", "video": "./a/one", "caption": 'he says "no"'},
    {"split": "train", "video": "two.webm", "caption": "", "question": "what?", "answer": "a dog"},
    {"split": "val", "video": "three", "caption": "a café", "question": "how many?", "answer": "2"},
    {"split": "test", "video": "four", "caption": "a cow", "option_1": "a cat", "option_2": "a cow", "answer": "2.0"},
    {"split": "test", "video": "b/four", "option_1": "a cat", "option_2": "a hen", "answer": "option_1"},
    {"split": "test", "video": "5", "option_1": "none", "option_2": "7", "answer": "7"},
    {"split": "test", "video": "four", "option_1": "a cat", "option_2": "", "answer": "1"},
]
COLUMNS = ("split", "video", "caption", "question", "answer", "option_1", "option_2")


def write(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> Path:
    """A table in the form that its name says."""
    if path.suffix == ".jsonl":
        lines = [json.dumps({name: row.get(name) for name in columns}) for row in rows]
        path.write_text("".join(line + "\n" for line in lines))
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writerows([columns, *([row.get(name, "") for name in columns] for row in rows)])
    return path


def table(path: Path, split: str = "test", *, is_shared: bool = False) -> Table:
    return Table(path, split, is_shared, "--data_csv" if is_shared else f"--{split}_csv")


def content(found: CaptionSplit) -> Any:
    return found.by_video(), found.captions, found.files


def everything(tables: dict[str, Table]) -> list[Any]:
    """All that the readers find in three splits."""
    return [
        *(content(read_captions(tables[split])) for split in ("train", "val", "test")),
        *(read_questions(tables[split]) for split in ("train", "val")),
        read_choices(tables["test"]),
    ]


def test_one_table_and_three_and_every_form_of_them_give_the_same(tmp_path: Path):
    found = []
    for suffix in (".csv", ".tsv", ".jsonl"):
        path = write(tmp_path / f"all{suffix}", ROWS)
        found.append(everything({split: table(path, split, is_shared=True) for split in ("train", "val", "test")}))
        parts = {}
        for split in ("train", "val", "test"):
            own = [row for row in ROWS if row["split"] == split]
            parts[split] = table(write(tmp_path / f"{split}{suffix}", own, COLUMNS[1:]), split)
        found.append(everything(parts))
    assert all(one == found[0] for one in found[1:])
    train, val, test, asked, _, (items, files) = found[0]
    assert train[0] == {"a/one": ["a dog, running", 'he says "no"']} and train[2] == {"a/one": "a/one.mp4"}
    assert val[0] == {"three": ["a café"]} and test[0] == {"four": ["a cow"]}
    assert asked == ([("1", "two", "what?", "a dog")], {"two": "two.webm"})
    assert [(item.item_id, item.video_id, item.answer) for item in items] == [
        ("1", "four", 1),
        ("2", "b/four", 0),
        ("3", "5", 1),
        ("4", "four", 0),
    ]
    assert [item.is_whole for item in items] == [True, True, True, False]
    assert files == {"four": "four", "b/four": "b/four", "5": "5"}


def test_a_table_says_of_which_tasks_it_has_rows(tmp_path: Path):
    path = write(tmp_path / "all.csv", ROWS)
    tables = {split: table(path, split, is_shared=True) for split in ("train", "val", "test")}
    assert {split: kinds_of(one) for split, one in tables.items()} == {
        "train": [CAPTIONS, QUESTIONS],
        "val": [CAPTIONS, QUESTIONS],
        "test": [CAPTIONS, CHOICES],
    }
    found = {split: [has_rows(one, kind) for kind in KINDS] for split, one in tables.items()}
    assert found == {"train": [True, True, False], "val": [True, True, False], "test": [True, False, True]}


def test_empty_captions_and_rows_without_any_text_are_there_to_be_counted(tmp_path: Path):
    path = write(tmp_path / "a.csv", [{"video": "a"}, {"video": "b", "caption": "x"}], ("video", "caption"))
    assert read_captions(table(path)).by_video() == {"a": [""], "b": ["x"]}
    rows = [{"video": "a"}, {"video": "b", "question": " ", "answer": "x"}]
    path = write(tmp_path / "b.csv", rows, QUESTIONS.columns)
    assert [question.is_whole for question in read_questions(table(path))[0]] == [False, False]
    path = write(tmp_path / "c.csv", [{"video": "a"}], CHOICES.columns)
    assert [item.is_whole for item in read_choices(table(path))[0]] == [False]


def test_columns_that_are_not_read_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    columns = ("", "video", "caption", "fps", "option_1", "option_2", "answer")
    path = write(tmp_path / "a.csv", [{"video": "a", "caption": "x"}] * 3, columns)
    with caplog.at_level(logging.WARNING):
        assert len(read_captions(table(path)).captions) == 3
        read_captions(table(path))
        read_captions(table(path), of_choices=True)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: columns that are not read here: '', 'fps', 'option_1', 'option_2', 'answer'",
        f"{path}: columns that are not read here: '', 'fps'",
    ]


def test_a_byte_order_mark_is_none_of_the_first_columns_name(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfvideo,caption\r\na.mp4,a dog\r\n")
    assert read_captions(table(path)).by_video() == {"a": ["a dog"]}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "video,text\na,x\n", r"no column caption; found \['video', 'text'\].* video, caption among them"),
        ("a.csv", "video;caption\na;x\n", r"no column caption and video; .* with ',' between two"),
        ("a.csv", "a.mp4,a dog\n", r"no column caption and video; found \['a.mp4', 'a dog'\]"),
        ("a.csv", "video,caption\na,one, two\n", "line 2: 3 fields, the first row has 2"),
        ("a.csv", 'video,caption\na,"x\nb,y\n', "lines 2 to 3: .*is a quote open"),
        ("a.csv", "video,caption\nb,x\n../a,x\n", r"line 3: '\.\./a' leads out of the folder"),
        ("a.csv", "video,caption\na/../../b,x\n", "line 2: .* leads out of the folder"),
        ("a.csv", "video,caption\n/etc/a.mp4,x\n", "line 2: .* is absolute; write it relative"),
        ("a.csv", "video,caption\nC:/clips/a.mp4,x\n", "line 2: .* is absolute"),
        ("a.csv", "video,caption\nclips\\a.mp4,x\n", "line 2: .* has backslashes; write / between folders"),
        ("a.csv", "video,caption\n,x\n", "line 2: '' is no path of a video"),
        ("a.csv", "video,caption\nnan,x\n", "line 2: 'nan' is no path of a video"),
        ("a.csv", "video,caption\na\x1b[2J,x\n", "line 2: .* is no path of a video"),
        ("a.csv", "video,caption\na,nan\n", "line 2: 'nan' is no caption"),
        ("a.csv", "video,caption\na.mp4,x\nb.mp4,x\na.avi,y\n", r"line 4: a\.avi and a\.mp4 differ by their extension"),
        ("a.csv", "video,caption,split\na,x,train\n", "line 2: a row of split 'train', read for test"),
        ("a.csv", "video,caption\n", r"no row with a caption \(--test_csv\)"),
        ("a.txt", "video,caption\na,x\n", r"a\.txt: name a table \.csv"),
        ("a.jsonl", '{"video": "a", "caption": "x"}\n{"video": "a"}\n', r"line 2: no caption; found \['video'\]"),
        ("a.jsonl", '["a", "x"]\n', "line 1: .* is no object; lines are"),
        ("a.jsonl", '{"video": "a", "caption": ["x", "y"]}\n', "line 1: caption is .*, neither text nor a number"),
        ("a.jsonl", '{"video": true, "caption": "x"}\n', "line 1: video is True, neither"),
    ],
)
def test_what_is_no_table_of_captions_is_an_error_with_file_and_line(
    tmp_path: Path, name: str, text: str, message: str
):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_captions(table(tmp_path / name))
    assert str(error.value).startswith(str(tmp_path / name))


def test_the_column_split_has_three_values(tmp_path: Path):
    path = tmp_path / "a.csv"
    for value in ("validation", "Test", ""):
        path.write_text(f"video,caption,split\na,x,test\nb,y,{value}\n")
        with pytest.raises(ValueError, match=f"a.csv, line 3: split is '{value}'; write train, val or test"):
            read_captions(table(path, is_shared=True))
    path.write_text("video,caption\na,x\n")
    with pytest.raises(ValueError, match="no column split"):
        read_captions(table(path, is_shared=True))
    path.write_text("video,caption,split\na,x,train\n")
    with pytest.raises(ValueError, match=r"no row with a caption of split test \(--data_csv\)"):
        read_captions(table(path, is_shared=True))
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such table of videos \(--test_csv\)"):
        read_captions(table(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("option_1", "x,1", "no column option_2"),
        ("option_1,option_3", "x,y,1", "no column option_2"),
        ("option_1,option_2,Option3", "x,y,z,1", "column 'Option3'; options are option_1, option_2"),
        ("option_1,option_2,option_03", "x,y,z,1", "column 'option_03'"),
        ("option_1,option_2,option_4", "x,y,z,1", "options are option_1, option_2, ... without a gap"),
        ("option_0,option_1,option_2", "x,y,z,1", "without a gap; found option_0, option_1, option_2"),
        ("option_1,option_2", "x,y,0", "answer '0' is none of the 2 options; write its number, from 1 to 2"),
        ("option_1,option_2", "x,y,3", "answer '3' is none"),
        ("option_1,option_2", "x,y,", "answer '' is none"),
        ("option_1,option_2", "x,y,1.5", "answer '1.5' is none"),
        ("option_1,option_2", "x,y,z", "answer 'z' is none"),
        ("option_1,option_2", "x,x ,1", "option_1 and option_2 are the same"),
        ("option_1,option_2", "2,3,2", "answer '2' may be option_1 or option_2; write the name of the option"),
        ("option_1,option_2,caption", "x,y,y", "no column answer"),
    ],
)
def test_options_are_two_or_more_and_one_is_the_answer(tmp_path: Path, header: str, row: str, message: str):
    path = tmp_path / "a.csv"
    answer = "" if "no column answer" in message else ",answer"
    path.write_text(f"video,{header}{answer}\na,{row}\n")
    with pytest.raises(ValueError, match=message) as error:
        read_choices(table(path))
    assert str(error.value).startswith(str(path)) and ("no column" in message or ", line 2" in str(error.value))


def test_a_choice_counts_from_1_which_the_caption_may_show(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("video,caption,option_1,option_2,option_3,answer\na,y,x,y,z,1\n")
    with pytest.raises(ValueError, match="line 2: the caption is option_2, the answer '1' is option_1; numbers count"):
        read_choices(table(path))
    path.write_text("video,caption,option_1,option_2,option_3,answer\na,other words,x,y,z,3\n")
    assert read_choices(table(path))[0][0].answer == 2
    rows = [{"video": "a", "answer": 1, "option_1": "x", "option_2": "y"}]
    rows.append({**rows[0], "option_3": "z"})
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="line 2: 3 options, but 2 in the rows before"):
        read_choices(table(path))


def test_the_answer_of_a_question_with_options_is_the_text_of_one(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("video,question,option_1,option_2,answer\na,what?,a dog,a cat,2\na,who?,x,y,x\na,how?,,,2\n")
    asked, _ = read_questions(table(path))
    assert [question.answer for question in asked] == ["a cat", "x", "2"]
    path.write_text("video,question,option_1,option_2,answer\na,what?,a dog,a cat,0\n")
    with pytest.raises(ValueError, match="line 2: answer '0' is none of the 2 options"):
        read_questions(table(path))


def test_object_files_lie_as_the_videos_do_or_have_their_names(tmp_path: Path):
    for name in ("a/x.json", "y.json", "x.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert object_names(tmp_path, ["a/x", "b/y", "z"]) == {"b/y": "y"}
    assert object_names(tmp_path, ["a/x", "b/x", "a/y", "c/d/y"]) == {}, "whose x.json and y.json are, is not known"


def test_splits_that_take_two_files_or_two_clips_objects_for_one_are_refused():
    def split(video_id: str, file: str, **names: str) -> CaptionSplit:
        return CaptionSplit.from_pairs([], [video_id], names, {video_id: file})

    check_splits({"train": split("a", "a.mp4"), "test": split("a", "a"), "val": split("b", "b.avi")})
    with pytest.raises(ValueError, match=r"a\.avi and a\.mp4 differ by their extension alone"):
        check_splits({"train": split("a", "a.mp4"), "test": split("a", "a.avi")})
    apart = CaptionSplit.from_pairs([], ["a/x"], {"a/x": "x"}, {"a/x": "a/x"})
    with pytest.raises(ValueError, match=r"x\.json would be the object file of a/x and of b/x"):
        check_splits({"train": apart, "test": CaptionSplit.from_pairs([], ["b/x"], {"b/x": "x"}, {"b/x": "b/x"})})
