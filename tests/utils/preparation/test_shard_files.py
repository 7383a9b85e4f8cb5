"""Files of a folder of shards: when a shard is complete, and the lists of all of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.utils.conversion import SETTINGS, write_companion
from utils.preparation.shard_files import count, is_finished, write_lists


def test_a_shard_is_finished_when_it_has_the_size_that_was_noted(tmp_path: Path):
    write_companion(tmp_path, 1, ["a", "b"])
    assert is_finished(tmp_path, 1) and not is_finished(tmp_path, 0)
    shard = tmp_path / "path-00001.tfrecord"
    shard.write_bytes(b"x")
    assert not is_finished(tmp_path, 1)
    shard.unlink()
    assert not is_finished(tmp_path, 1)


def test_lists_are_of_all_shards_in_order(tmp_path: Path):
    write_companion(tmp_path, 0, ["a", "b"], ("x",))
    write_companion(tmp_path, 1, [], ("y", "z"))
    write_companion(tmp_path, 2, ["c"])
    assert write_lists(tmp_path, 3, SETTINGS) == (3, 3, 3)
    assert (tmp_path / "path.index").read_text() == (
        "a\tpath-00000.tfrecord\t0\nb\tpath-00000.tfrecord\t1\nc\tpath-00002.tfrecord\t0\n"
    )
    labels = json.loads((tmp_path / "frozen_train_labels.json").read_bytes())
    assert labels == [{"video_id": i, "caption": f"a {i}"} for i in "abc"]
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["written"] == 3 and [clip["video_id"] for clip in report["skipped"]] == ["x", "y", "z"]
    assert report["settings"] == dataclasses.asdict(SETTINGS)


def test_further_captions_are_listed_where_their_video_is(tmp_path: Path):
    first = {"video_id": "a", "caption": "one", "offset": 0, "has_further": True}
    further = [{"video_id": name, "caption": "two", "offset": None} for name in ("a", "gone")]
    for number, written in enumerate(([first], further)):
        write_companion(tmp_path, number, [])
        content = {"bytes": 0, "written": written, "skipped": [], "notes": [f"note {number}"]}
        (tmp_path / "parts" / f"{number:05d}.json").write_text(json.dumps(content))
    assert write_lists(tmp_path, 2, SETTINGS) == (1, 2, 1)
    assert (tmp_path / "path.index").read_text() == "a\tpath-00000.tfrecord\t0\n"
    labels = json.loads((tmp_path / "frozen_train_labels.json").read_bytes())
    assert labels == [{"video_id": "a", "caption": "one"}, {"video_id": "a", "caption": "two"}]
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["skipped"] == [{"video_id": "gone", "reason": "its video is skipped: see its first row"}]
    assert (report["written"], report["captions"], report["notes"]) == (1, 2, ["note 0", "note 1"])
    assert count(tmp_path, [0]) == (1, 1, 0) and count(tmp_path, [0, 1]) == (1, 3, 0)


@pytest.mark.parametrize("content", [b"", b'{"bytes": 3, "wri', b"[]", b"\xff\xfe", b"{}"])
def test_a_shard_with_a_damaged_companion_is_written_again(tmp_path: Path, content: bytes):
    write_companion(tmp_path, 1, ["a"])
    assert is_finished(tmp_path, 1)
    (tmp_path / "parts" / "00001.json").write_bytes(content)
    assert not is_finished(tmp_path, 1)
