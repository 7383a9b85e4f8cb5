"""Captions alone, of every form of caption file, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from dataloaders.caption_files import caption_texts, captions_by_video

PAIRS = [("v1", "a dog"), ("v2", "two cats, running"), ("v1", "the dog")]
RECORDS = [{"video_id": video, "caption": text} for video, text in PAIRS]


def written(folder: Path, form: str) -> Path:
    """The captions of PAIRS in a form."""
    if form == "msvd":
        path = folder / "raw-captions.pkl"
        path.write_bytes(pickle.dumps({"v1": [["a", "dog"], ["the", "dog"]], "v2": [["two", "cats,", "running"]]}))
        return path
    lsmdc = "".join(f"{video}\t0\t1\t0\t1\t{text}\n" for video, text in PAIRS)
    texts = {
        "msrvtt": ("d.json", json.dumps({"videos": [], "sentences": RECORDS})),
        "webvid": ("d.json", json.dumps(RECORDS)),
        "didemo": ("d.json", json.dumps([{"video": video, "description": text} for video, text in PAIRS])),
        "jsonl": ("d.jsonl", "".join(f"{json.dumps(record)}\n" for record in RECORDS)),
        "lsmdc": ("d.csv", lsmdc),
        "csv": ("d.csv", 'video,caption\nv1,a dog\nv2,"two cats, running"\nv1,the dog\n'),
        "msrvtt csv": ("d.csv", 'key,video_id,sentence\n0,v1,a dog\n1,v2,"two cats, running"\n2,v1,the dog\n'),
        "webvid csv": ("d.csv", 'videoid,name,page_dir\nv1,a dog,p\nv2,"two cats, running",p\nv1,the dog,p\n'),
        "tsv": ("d.tsv", "video\tcaption\nv1\ta dog\nv2\ttwo cats, running\nv1\tthe dog\n"),
    }
    path = folder / texts[form][0]
    path.write_text(texts[form][1])
    return path


FORMS = ["msvd", "msrvtt", "webvid", "didemo", "jsonl", "lsmdc", "csv", "msrvtt csv", "webvid csv", "tsv"]


@pytest.mark.parametrize("form", FORMS)
def test_captions_of_every_form_are_read_all_or_of_some_videos(tmp_path: Path, form: str):
    path = written(tmp_path, form)
    assert sorted(caption_texts(path)) == sorted(text for _, text in PAIRS)
    assert list(caption_texts(path, ["v2", "v9"])) == ["two cats, running"]
    with pytest.raises(ValueError, match=r"no caption of the listed videos \(--captions\)"):
        list(caption_texts(path, ["v9"]))
    assert captions_by_video(path) == {"v1": ["a dog", "the dog"], "v2": ["two cats, running"]}


@pytest.mark.parametrize(("name", "text"), [("c.txt", "a dog\n\n the dog \n"), ("c.json", '["a dog", "", "the dog"]')])
def test_captions_without_videos(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    assert list(caption_texts(tmp_path / name)) == ["a dog", "the dog"]
    with pytest.raises(ValueError, match="does not say which video a caption is of"):
        list(caption_texts(tmp_path / name, ["v1"]))
    with pytest.raises(ValueError, match=r"does not say which video a caption is of \(--captions\)"):
        captions_by_video(tmp_path / name)


def test_what_stands_for_a_missing_caption_is_passed_over(tmp_path: Path):
    (tmp_path / "c.csv").write_text("video,caption\nv,nan\nv,\nv,a dog\nv,None\n")
    assert list(caption_texts(tmp_path / "c.csv")) == ["a dog"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", "\n", r"c\.txt: no caption \(--coverage\)"),
        ("c.json", "[]", r"c\.json: no caption"),
        ("c.json", "[5]", r"c\.json: row 0 is '5', neither a text nor a record"),
        ("c.json", '[{"title": "x"}]', r"row 0 has none of caption, sentence, .*; it has title"),
        ("c.json", "{}", "has no list 'sentences'"),
        ("c.jsonl", '{"caption": 5}', "c\\.jsonl, line 1: \"caption\" is '5', not a text"),
        ("c.csv", "video,words\nv,a dog\n", r"c\.csv, line 2 has none of caption"),
        ("c.pkl", "x", r"c\.pkl cannot be read"),
    ],
)
def test_files_of_another_form_are_named(tmp_path: Path, name: str, content: Any, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(caption_texts(tmp_path / name, flag="--coverage"))


def test_a_file_that_is_not_there_is_named_by_its_flag(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such file of captions \(--captions\)"):
        list(caption_texts(tmp_path / "none.txt"))


def test_a_table_of_blank_captions_has_none_by_video(tmp_path: Path):
    (tmp_path / "c.csv").write_text("video,caption\nv, \nw,nan\n")
    with pytest.raises(ValueError, match=r"c.csv: no caption \(--captions\)"):
        captions_by_video(tmp_path / "c.csv")
