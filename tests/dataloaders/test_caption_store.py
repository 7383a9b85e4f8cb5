"""Streaming caption files, and the flat arrays."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders.caption_store import CaptionArrays, CaptionRow, CaptionWriter, iter_captions, pack_captions
from dataloaders.tagging import TaggedCaption
from modules import foreign_text

ROWS: list[dict[str, Any]] = [
    {"video_id": "a", "caption": 'quotes " and ], [ brackets, commas'},
    {"caption": "日本 \\ \u00e9", "video_id": 17, "more": [1, {"x": []}]},
    {"video_id": "c", "caption": ""},
]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_are_the_same_whatever_is_read_at_a_time(
    tmp_path: Path, size: int, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_text, "PART", size)
    path = tmp_path / "captions.json"
    path.write_text(
        ("\n " if size > 7 else "") + json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert list(iter_captions(path)) == [(str(row["video_id"]), row["caption"]) for row in ROWS]


def test_empty_list(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text("[ ]")
    assert list(iter_captions(tmp_path / "captions.json")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"video_id": "a"}', "not a JSON list"),
        ("", "not a JSON list"),
        ('[{"video_id": "a", "caption": "b"}', "incomplete"),
        ('[{"video_id": "a", "caption": "b"}, {"video', "not valid JSON"),
        ('[{"video_id": "a", "caption": "b"}, {"video_id": "a"}]', "row 1"),
        ('[{"video_id": "a", "caption": null}]', "row 0"),
        ('["a"]', "row 0"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        list(iter_captions(path))
    assert "captions.json" in str(error.value)


def _caption(*ids: int) -> TaggedCaption:
    array = np.array(ids, dtype=np.int64)
    return TaggedCaption(array, array % 3 == 0, array % 3 == 1)


def test_arrays_give_back_what_was_written(tmp_path: Path) -> None:
    chunks = [[("one", _caption(0, 49407)), ("zwei-é", _caption(5))], [("3", _caption(1, 2, 3, 4))]]
    writer = CaptionWriter(tmp_path)
    for number, chunk in enumerate(chunks):
        ids, captions = [name for name, _ in chunk], [caption for _, caption in chunk]
        places = np.arange(len(chunk)) + 10 * number
        writer.extend(ids, places, places * 10**10, pack_captions(captions))
    writer.close()
    arrays = CaptionArrays(tmp_path)
    assert writer.rows == len(arrays) == 3
    for row, (video_id, caption) in enumerate(entry for chunk in chunks for entry in chunk):
        assert arrays.video_id(row) == video_id
        for stored, expected in zip(arrays.caption(row), caption, strict=True):
            assert stored.dtype == expected.dtype
            np.testing.assert_array_equal(stored, expected)
    assert [arrays.place(row) for row in range(3)] == [(0, 0), (1, 10**10), (10, 10**11)]
    assert pickle.loads(pickle.dumps(arrays)).video_id(1) == "zwei-é"
    assert len(pickle.dumps(arrays)) < 1000


def test_captions_of_strangers_are_read_or_refused_with_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "captions.json"
    path.write_bytes(
        b"\xef\xbb\xbf" + b'[{"video_id": 7, "caption": "a \\ud83d dog"}, {"video_id": "b", "caption": "c"}]'
    )
    assert list(iter_captions(path)) == [CaptionRow("7", "a \ufffd dog"), CaptionRow("b", "c")]
    assert "captions.json: 1 halves of characters" in caplog.text
    path.write_bytes(b'[{"video_id": "a", "caption": "caf\xe9"}]')
    with pytest.raises(ValueError, match=r"captions\.json, line 1: not UTF-8 .*save it as UTF-8"):
        list(iter_captions(path))
    for wrong in ("../a", "", None, ["a"], 1.5):
        path.write_text(json.dumps([{"video_id": wrong, "caption": "x"}]))
        with pytest.raises(ValueError, match=r"captions\.json: row 0: .* is no video id"):
            list(iter_captions(path))
    path.write_text('[{"video_id": "a", "caption": ' + "[" * 5000)
    with pytest.raises(ValueError, match=r"captions\.json: row 0: lists inside each other"):
        list(iter_captions(path))
