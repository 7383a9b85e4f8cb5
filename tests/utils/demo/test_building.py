"""The demo world on disk: made once, made anew when anything that it depends on changes, and nothing else touched."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from utils.demo.building import MARKER, write_world
from utils.demo.clips import ClipSettings

COUNTS = {"train_clips": 3, "val_clips": 0, "test_clips": 3, "reserve": 0, "same_shape": False}


def write(folder: Path, **changes: Any) -> str | None:
    """A world of six short clips in the formats of two data sets; `changes` are of its choices."""
    choices: dict[str, Any] = {**COUNTS, "seed": 0, "size": 32, "seconds": 1.0, "fps": 4.0, "feature_framerate": 2.0}
    choices |= {"max_frames": 2, "msvd_clips": 0, "lsmdc_clips": 0, "didemo_clips": 0, **changes}
    settings = {name: value for name, value in choices.items() if name in ClipSettings._fields}
    return write_world(ClipSettings(output_dir=folder, **settings), choices, 1)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_world_says_what_was_made(tmp_path: Path):
    lines = (write(tmp_path / "world") or "").splitlines()
    assert lines[0] == "train      3 clips (1 with 1, 1 with 2, 1 with 3 things)"
    assert lines[1] == "val        0 clips (0 with 1, 0 with 2, 0 with 3 things)"
    assert lines[2].startswith("test       3 clips (") and lines[3] == "webvid     3 videos"
    assert lines[4:8] == ["msrvtt     6 videos", "msvd       0 videos", "lsmdc      0 videos", "didemo     0 videos"]
    assert lines[8].endswith(" ms per clip")
    assert {path.name for path in (tmp_path / "world").iterdir()} == {MARKER, "label_map.json", "webvid", "msrvtt"}


def test_a_finished_world_is_kept_as_it_is(tmp_path: Path):
    write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert write(tmp_path) is None
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("changes", [{"seed": 1}, {"train_clips": 4}, {"same_shape": True}, {"max_frames": 3}], ids=str)
def test_another_world_takes_the_place_of_the_one_before(tmp_path: Path, changes: dict[str, Any]):
    write(tmp_path / "one")
    write(tmp_path / "fresh", **changes)
    assert write(tmp_path / "one", **changes) is not None
    found = content(tmp_path / "one")
    assert found == content(tmp_path / "fresh")
    assert json.loads(found[MARKER])["settings"].items() >= changes.items()


def test_a_world_that_was_not_finished_is_made_anew(tmp_path: Path):
    write(tmp_path)
    whole = content(tmp_path)
    state = json.loads((tmp_path / MARKER).read_bytes())
    (tmp_path / MARKER).write_text(json.dumps({**state, "complete": False}))
    (tmp_path / "label_map.json").unlink()
    (tmp_path / "webvid" / "leftover.mp4").touch()
    assert write(tmp_path) is not None and content(tmp_path) == whole


def test_a_world_of_another_version_is_made_anew(tmp_path: Path):
    write(tmp_path)
    state = json.loads((tmp_path / MARKER).read_bytes())
    state["settings"]["world_version"] -= 1
    (tmp_path / MARKER).write_text(json.dumps(state))
    assert write(tmp_path) is not None and write(tmp_path) is None


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "webvid").mkdir()
    (tmp_path / "webvid" / "mine.mp4").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and was not written by this command"):
        write(tmp_path)
    assert content(tmp_path) == {"webvid/mine.mp4": b"mine"}


def test_what_others_put_beside_a_world_stays(tmp_path: Path):
    write(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "path.index").write_text("mine")
    write(tmp_path, seed=1)
    assert (tmp_path / "shards" / "path.index").read_text() == "mine"


def test_too_many_held_out_clips_are_an_error_and_no_world(tmp_path: Path):
    with pytest.raises(ValueError, match="fewer validation and test clips"):
        write(tmp_path, test_clips=2000)
    assert not json.loads((tmp_path / MARKER).read_bytes())["complete"]


def test_the_label_map_counts_each_detection_once(tmp_path: Path):
    write(tmp_path)
    clips = [json.loads(path.read_bytes()) for path in (tmp_path / "msrvtt" / "objects").glob("*.json")]
    classes = Counter(item["class"] for frames in clips for frame in frames for item in frame["objects"])
    counted = json.loads((tmp_path / "label_map.json").read_bytes())["object_count"]
    assert {name: count for name, count in counted.items() if count} == classes and len(clips) == 6
