"""One clip of a shard that is checked: its record as pre-training reads it, and its object file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dataloaders.frames import FrameSettings
from dataloaders.stored_clips import Features, ShardReader
from tests.tfrecords import encode, record
from tests.utils.checks.test_clips import DOG, SETTINGS, write_objects
from utils.checks.clips import ClipResult
from utils.checks.findings import Finding
from utils.checks.records import RecordSettings, RecordTask, check_record

JPEG = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
PLAIN = RecordSettings(SETTINGS, None, False)


def features(frames: int = 5, **changes: Any) -> dict[str, list]:
    """A record of 64x48 frames, one per second of a video of 10 frames per second and 128x96 pixels."""
    base: dict[str, list] = {
        Features.IMAGE: [JPEG] * frames, Features.FORMAT: [b"jpeg"], Features.VIDEO_ID: [b"v"], Features.WIDTH: [128],
        Features.HEIGHT: [96], Features.STORED_WIDTH: [64], Features.STORED_HEIGHT: [48], Features.FPS: [10.0],
        Features.FRAME_INDICES: [10 * number for number in range(frames)],
    }  # fmt: skip
    return {name: values for name, values in {**base, **changes}.items() if values}


def released(frames: int = 5) -> dict[str, list]:
    """A released record, which says nothing but the frames."""
    return {Features.IMAGE: [bytes(256 * 256 * 3 * frames)]}


def check(
    folder: Path,
    content: dict[str, list] | bytes,
    settings: RecordSettings = PLAIN,
    size: tuple[int, int] | None = None,
) -> ClipResult:
    """The result for clip v, whose record is the second of its shard."""
    first = record(b"another")
    payload = content if isinstance(content, bytes) else record(encode(content))
    (folder / "a.tfrecord").write_bytes(first + payload)
    task = RecordTask("v", 0, str(folder / "a.tfrecord"), len(first), size)
    result = check_record(task, settings, ShardReader(folder))
    for finding in result.findings:
        assert finding.video_id == "v" and task.shard not in finding.detail and not finding.detail.startswith("v: ")
    return result


def kinds(result: ClipResult) -> list[str]:
    return [finding.kind for finding in result.findings]


@pytest.mark.parametrize("content", [features(), released()], ids=["own", "released"])
def test_a_sound_record_has_no_findings(tmp_path: Path, content: dict[str, list]):
    assert check(tmp_path, content) == ClipResult([], True, 0)


def test_the_record_of_another_clip_is_lost(tmp_path: Path):
    result = check(tmp_path, features(video_id=[b"w"]))
    assert kinds(result) == ["other_clip"] and not result.is_readable and "of video w" in result.findings[0].detail


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (record(encode(features()))[:-30], "the file ends inside the record"),
        (record(encode(features()))[:100] + bytes(20) + record(encode(features()))[120:], "fails its checksum"),
        (bytes(100), "no record starts here"),
        (record(b"\xff\xff"), "not a tf.train.Example"),
        (features(image=[]), "no feature `image` with frames"),
        (features(frame_indices=[0, 10]), "5 frames but 2 frame numbers"),
    ],
    ids=["cut", "content", "header", "example", "frames", "numbers"],
)
def test_a_place_without_a_sound_record_is_a_lost_clip(tmp_path: Path, content: dict[str, list] | bytes, reason: str):
    result = check(tmp_path, content)
    assert kinds(result) == ["damaged_record"] and not result.is_readable and reason in result.findings[0].detail


@pytest.mark.parametrize(("bad", "is_lost"), [(0, True), (1, False), (2, True), (4, True)])
def test_only_frames_that_training_picks_are_decoded(tmp_path: Path, bad: int, is_lost: bool):
    """Three of five are picked: the first, the middle and the last."""
    images = [JPEG] * 5
    images[bad] = JPEG[:-100]
    result = check(tmp_path, features(image=images))
    assert kinds(result) == (["undecodable_frame"] if is_lost else []) and result.is_readable != is_lost


def with_rule(**choices: Any) -> RecordSettings:
    return replace(PLAIN, clip=replace(SETTINGS, frames=FrameSettings(**choices)))


def test_a_clip_without_frames_of_the_rate_is_left_out(tmp_path: Path):
    result = check(tmp_path, features(), with_rule(feature_framerate=2))
    assert kinds(result) == ["missing_rate"] and not result.is_readable
    assert "--feature_framerate 2" in result.findings[0].detail
    assert check(tmp_path, features(), with_rule(feature_framerate=0.5)).findings == []


def test_frames_are_picked_as_the_rule_says(tmp_path: Path):
    images = [JPEG[:-100], *[JPEG] * 4]
    assert kinds(check(tmp_path, features(image=images), with_rule(slice_framepos=0))) == ["undecodable_frame"]
    assert check(tmp_path, features(image=images), with_rule(slice_framepos=1)).findings == []


def test_a_record_of_few_frames_is_noted_and_stays(tmp_path: Path):
    result = check(tmp_path, features(2))
    assert result.is_readable and [finding[0::3] for finding in result.findings] == [
        ("short_video", "2 candidate frames, fewer than 3")
    ]


def test_a_shard_that_goes_away_loses_its_clips(tmp_path: Path):
    task = RecordTask("v", 0, str(tmp_path / "none.tfrecord"), 0, None)
    result = check_record(task, PLAIN, ShardReader(tmp_path))
    assert kinds(result) == ["damaged_record"] and not result.is_readable


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """A folder for the object file of clip v."""
    (tmp_path / "objects").mkdir()
    return tmp_path / "objects"


def reading(objects: Path, needs_size: bool = False, **choices: Any) -> RecordSettings:
    return RecordSettings(replace(SETTINGS, **choices), objects, needs_size)


def test_the_object_file_is_checked_beside_the_record(objects: Path, tmp_path: Path):
    absent = check(tmp_path, features(), reading(objects))
    assert absent == ClipResult([Finding("missing_objects", "v", str(objects), "no v.json")], True, 0)
    write_objects(objects / "v.json", DOG)
    assert check(tmp_path, features(), reading(objects)) == ClipResult([], True, 1, 3)
    assert kinds(check(tmp_path, features(video_id=[b"w"]), reading(objects))) == ["other_clip"]
    write_objects(objects / "v.json", DOG, frames=2)
    lost = check(tmp_path, features(video_id=[b"w"]), reading(objects))
    assert kinds(lost) == ["other_clip", "wrong_frame_count"] and lost.object_files == 1


@pytest.mark.parametrize(("content", "size"), [(features(), None), (released(), (128, 96)), (released(), None)])
def test_boxes_beyond_the_frame_are_told_where_the_videos_size_is_known(
    objects: Path, tmp_path: Path, content: dict[str, list], size: tuple[int, int] | None
):
    write_objects(objects / "v.json", DOG, {**DOG, "rect": [200, 1, 220, 20]})
    is_known = Features.WIDTH in content or size is not None
    assert kinds(check(tmp_path, content, reading(objects), size)) == (["outside_box"] if is_known else [])
    assert check(tmp_path, content, reading(objects, has_original_boxes=False), size).findings == []


def needing(folder: Path, objects: Path, content: dict[str, list], size: tuple[int, int] | None = None) -> list[str]:
    return kinds(check(folder, content, reading(objects, needs_size=True), size))


def test_a_size_is_missed_only_where_there_are_objects_to_map_and_a_clip_to_map_them_in(objects: Path, tmp_path: Path):
    write_objects(objects / "v.json", DOG)
    assert needing(tmp_path, objects, released()) == ["unknown_size"]
    assert needing(tmp_path, objects, released(), (128, 96)) == needing(tmp_path, objects, features()) == []
    assert needing(tmp_path, objects, {**released(), Features.VIDEO_ID: [b"w"]}) == ["other_clip"]
    (objects / "v.json").write_text(json.dumps({}))
    assert needing(tmp_path, objects, released()) == ["broken_objects"]


def test_where_objects_are_needed_and_come_from_a_store_a_size_is_missed_too(tmp_path: Path):
    settings = RecordSettings(SETTINGS, None, needs_size=True)
    assert kinds(check(tmp_path, released(), settings)) == ["unknown_size"]


def test_a_record_on_which_a_process_dies_is_damaged():
    task = RecordTask("v", 3, "a.tfrecord", 7, None)
    assert task.unreadable("died") == Finding("damaged_record", "v", "a.tfrecord", "died")
