"""Annotation files that are missing or foreign, and videos without caption."""

from __future__ import annotations

import csv
import json
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataloaders.annotation_files import annotation_file, is_text_record, keep_captioned
from dataloaders.caption_store import iter_captions
from dataloaders.datasets import didemo, lsmdc, msrvtt, msvd
from dataloaders.id_lists import read_ids
from dataloaders.multiple_choice import read_choices
from dataloaders.questions import read_msrvtt
from modules.foreign_text import read_json

CAPTIONS = Path("captions.json")


def test_a_missing_file_is_named_with_what_it_holds_and_its_flag(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"list\.txt: no such list of videos \(--data_path\)"):
        annotation_file(tmp_path / "list.txt", "list of videos")
    with pytest.raises(ValueError, match=r"is a folder or a pipe; the list of videos \(--train_csv\) is a file"):
        annotation_file(tmp_path, "list of videos", "--train_csv")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: is a folder or a pipe"):
        annotation_file(tmp_path / "pipe", "list of videos")
    (tmp_path / "list.txt").symlink_to("gone")
    with pytest.raises(FileNotFoundError, match=r"no such list of videos \(--data_path\), a link to gone, which"):
        annotation_file(tmp_path / "list.txt", "list of videos")
    (tmp_path / "list.txt").touch()
    assert annotation_file(str(tmp_path / "list.txt"), "list of videos") == tmp_path / "list.txt"


def test_json_is_read_whole_and_a_cut_file_is_named(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"caption": "café"}', encoding="utf-8")
    assert read_json(path) == {"caption": "café"}
    for content in (b'{"caption": "caf', b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.json is not JSON: .*is the file complete\?"):
            read_json(path)


@pytest.mark.parametrize(
    ("entry", "is_record"),
    [
        ({"video_id": "v", "caption": "a dog", "more": 3}, True),
        ({"video_id": "v", "caption": ""}, True),
        ({"video_id": "v"}, False),
        ({"video_id": 7, "caption": "a dog"}, False),
        ({"video_id": "v", "caption": None}, False),
        (["video_id", "caption"], False),
        (None, False),
    ],
    ids=str,
)
def test_a_record_has_text_under_every_name(entry: Any, is_record: bool):
    assert is_text_record(entry, "video_id", "caption") == is_record


def test_captioned_videos_keep_their_order(caplog: pytest.LogCaptureFixture):
    assert keep_captioned(["c", "a", "b"], {"a", "b", "c", "d"}, CAPTIONS) == ["c", "a", "b"]
    assert not caplog.records


def test_videos_without_caption_are_counted_and_the_first_are_named(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert keep_captioned(["c", "x", "a", "y"], {"a": ["a dog"], "c": ["a cat"]}, CAPTIONS) == ["c", "a"]
        assert keep_captioned([*"stuvwxa"], {"a"}, CAPTIONS) == ["a"]
    assert [record.getMessage() for record in caplog.records] == [
        "captions.json: no caption of 2 of 4 videos: x, y; they are left out",
        "captions.json: no caption of 6 of 7 videos: s, t, u, v, w, ...; they are left out",
    ]


def test_captions_of_other_videos_are_an_error():
    with pytest.raises(ValueError, match=r"captions\.json: no caption of 2 of 2 videos: a, b; do the list of videos"):
        keep_captioned(["a", "b"], {"c"}, CAPTIONS)


def _json(folder: Path, name: str, content: Any) -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def _msrvtt(folder: Path, video_id: Any, text: Any) -> Any:
    sentences = [{"video_id": "video7010", "caption": "a dog"}, {"video_id": video_id, "caption": text}]
    return list(msrvtt.read_captions(_json(folder, "f", {"sentences": sentences})))


def _msrvtt_csv(folder: Path, video_id: Any, text: Any) -> Any:
    with (folder / "f").open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "sentence"), ("v1", "a dog"), (video_id, text)])
    return msrvtt.read_test_pairs(folder / "f")


def _lsmdc(folder: Path, video_id: Any, text: Any) -> Any:
    (folder / lsmdc.FILES["val"]).write_text(f"v1\t0\t0\t0\t0\ta dog\n{video_id}\t0\t0\t0\t0\t{text}\n")
    return lsmdc.read_split(folder, "val")


def _msvd(folder: Path, video_id: Any, text: Any) -> Any:
    content = {"v1": [["a", "dog"]], video_id: [text.split() if isinstance(text, str) else text]}
    (folder / "f").write_bytes(pickle.dumps(content))
    return msvd.read_captions(folder / "f")


def _didemo(folder: Path, video_id: Any, text: Any) -> Any:
    entries = [{"video": "v1.mp4", "description": "a dog"}, {"video": video_id, "description": text}]
    return didemo.read_descriptions(_json(folder, "f", entries))


def _questions(folder: Path, video_id: Any, text: Any) -> Any:
    entries = [{"video_id": "v1", "question": "what", "answer": "dog"}]
    entries.append({"video_id": video_id, "question": text, "answer": "dog"})
    (folder / "f").write_text("\n".join(map(json.dumps, entries)))
    return read_msrvtt(folder / "f", "--flag")


def _choices(folder: Path, video_id: Any, text: Any) -> Any:
    entries = [{"video_id": "v1", "options": ["a", "b"], "answer": 0}]
    entries.append({"video_id": video_id, "options": [text, "b"], "answer": 0})
    (folder / "f").write_text("\n".join(map(json.dumps, entries)))
    return read_choices(folder / "f")


def _labels(folder: Path, video_id: Any, text: Any) -> Any:
    entries = [{"video_id": "v1", "caption": "a dog"}, {"video_id": video_id, "caption": text}]
    return list(iter_captions(_json(folder, "f", entries)))


def _ids(folder: Path, video_id: Any, _: Any) -> Any:
    return read_ids(_json(folder, "f.json", ["v1", video_id]))


SECOND = r"(line 3|line 2|sentence 1|entry 1|row 1|video )"
TYPED = [_msrvtt, _questions, _choices, _labels, _ids]  # readers of ids that a file gives a type
WRITTEN = [_msrvtt_csv, _lsmdc]


@pytest.mark.parametrize("reader", [*TYPED, *WRITTEN])
@pytest.mark.parametrize("video_id", ["../v", "a/b", "..", "None", "nan", "a\x1bb", "x" * 300])
def test_no_reader_takes_an_id_that_leads_elsewhere(tmp_path: Path, reader: Callable[..., Any], video_id: str):
    with pytest.raises(ValueError, match=rf"{SECOND}.*is no video id"):
        reader(tmp_path, video_id, "a cat")


@pytest.mark.parametrize("reader", TYPED)
@pytest.mark.parametrize("video_id", [None, ["v"], {}, 1.5, True, "", " ", "a\0b", "a\nb"])
def test_no_reader_makes_an_id_of_another_value(tmp_path: Path, reader: Callable[..., Any], video_id: Any):
    with pytest.raises(ValueError, match=SECOND):
        reader(tmp_path, video_id, "a cat")


@pytest.mark.parametrize("reader", [_msrvtt, _msvd, _didemo, _questions, _choices, _labels])
@pytest.mark.parametrize("text", [None, 3, 1.5, True, {"a": 1}, [["a"]], [3]])
def test_no_reader_makes_a_text_of_another_value(tmp_path: Path, reader: Callable[..., Any], text: Any):
    with pytest.raises(ValueError, match=SECOND):
        reader(tmp_path, "v2", text)


@pytest.mark.parametrize("reader", [_msrvtt, _msrvtt_csv, _lsmdc, _msvd, _didemo])
@pytest.mark.parametrize("text", ["nan", "None", "null", "['a dog', 'a cat']", "[]"])
def test_no_reader_takes_a_caption_that_was_none_before_it_was_written(
    tmp_path: Path, reader: Callable[..., Any], text: str
):
    with pytest.raises(ValueError, match=rf"{SECOND}.*is no caption; correct it or delete the entry"):
        reader(tmp_path, "v2", text)


@pytest.mark.parametrize("reader", [_msrvtt, _msrvtt_csv, _lsmdc, _msvd, _didemo, _questions, _choices, _labels, _ids])
def test_every_reader_takes_the_same_with_sound_values(tmp_path: Path, reader: Callable[..., Any]):
    assert reader(tmp_path, "v2", "a cat")
