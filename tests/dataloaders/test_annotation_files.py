"""Annotation files that are missing or foreign, and videos without caption."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from dataloaders.annotation_files import annotation_file, is_text_record, keep_captioned
from modules.foreign_text import read_json

CAPTIONS = Path("captions.json")


def test_a_missing_file_is_named_with_what_it_holds_and_its_flag(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"list\.txt: no such list of videos \(--data_path\)"):
        annotation_file(tmp_path / "list.txt", "list of videos")
    with pytest.raises(FileNotFoundError, match=r"no such list of videos \(--train_csv\)"):
        annotation_file(tmp_path, "list of videos", "--train_csv")
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
