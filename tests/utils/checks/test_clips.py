"""One clip that is checked: its video as training reads it, and its object files against that video."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import pytest

from dataloaders.frames import FrameSettings
from dataloaders.object_records import REPORT_FOLDER, ObjectSettings
from modules.utils_object_tractor import PROBLEMS
from tests.videos import write_video
from utils.checks.clips import OBJECT_KINDS, ClipResult, ClipSettings, ClipTask, check_all, check_clip, check_objects
from utils.checks.findings import KINDS, Finding

SETTINGS = ClipSettings(3, FrameSettings(), 3, ObjectSettings(2, 3), True, {"label_to_idx": {"dog": 1}})
DOG = {"class": "dog", "rect": [1, 1, 20, 20], "conf": 0.9}


def write_objects(path: Path, *objects: dict[str, Any], frames: int = 3) -> str:
    """An object file whose frames all hold the same objects."""
    path.write_text(json.dumps([{"objects": list(objects)}] * frames))
    return str(path)


def kinds(result: ClipResult) -> list[str]:
    return [finding.kind for finding in result.findings]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Three candidate frames of 64x48."""
    return write_video(tmp_path / "v.mp4", 30)


def test_a_sound_clip_has_no_findings(video: Path, tmp_path: Path):
    objects = write_objects(tmp_path / "v.json", DOG)
    assert check_clip(ClipTask("v", str(video), None, (objects,)), SETTINGS) == ClipResult([], True, 1, 3)
    assert check_clip(ClipTask("v", str(video), None, ()), SETTINGS) == ClipResult([], True, 0)


@pytest.mark.parametrize(
    ("content", "kind", "detail"),
    [
        (b"", "empty_video", "zero bytes"),
        (b"not a video" * 100, "unreadable_video", "not a video that FFmpeg can open"),
    ],
)
def test_files_without_a_frame(tmp_path: Path, content: bytes, kind: str, detail: str):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    result = check_clip(ClipTask("v", str(path), None, ()), SETTINGS)
    assert kinds(result) == [kind] and not result.is_readable
    assert result.findings[0][1:3] == ("v", str(path)) and result.findings[0].detail.startswith(detail)


def test_a_file_that_ends_early_is_truncated_whether_frames_of_it_decode_or_not(video: Path):
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    result = check_clip(ClipTask("v", str(video), None, ()), SETTINGS)
    assert kinds(result) == ["truncated_video"] and not result.is_readable
    assert str(video) not in result.findings[0].detail, "the file has a column of its own"


def test_a_video_of_fewer_candidates_than_are_picked_is_noted_and_stays(tmp_path: Path):
    path = write_video(tmp_path / "v.mp4", 12)
    result = check_clip(ClipTask("v", str(path), None, ()), SETTINGS)
    assert result.is_readable
    assert result.findings == [Finding("short_video", "v", str(path), "2 candidate frames in 1.2 s, fewer than 3")]
    assert check_clip(ClipTask("v", str(path), None, ()), replace(SETTINGS, min_candidates=2)).findings == []


def test_of_a_missing_video_the_objects_are_checked_all_the_same(tmp_path: Path):
    objects = write_objects(tmp_path / "v.json", DOG, frames=2)
    result = check_clip(ClipTask("v", None, None, (objects,)), SETTINGS)
    assert kinds(result) == ["wrong_frame_count"] and not result.is_readable and result.object_files == 1


def test_a_file_that_goes_away_while_it_is_checked_is_a_finding(tmp_path: Path):
    result = check_clip(ClipTask("v", str(tmp_path / "gone.mp4"), None, ()), SETTINGS)
    assert kinds(result) == ["unreadable_video"] and not result.is_readable


def test_videos_in_an_lmdb_are_named_by_folder_and_key(video: Path, tmp_path: Path):
    folder = tmp_path / "videos.lmdb"
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as writing:
        writing.put(b"v", video.read_bytes())
        writing.put(b"w", b"")
    assert check_clip(ClipTask("v", None, str(folder), ()), SETTINGS) == ClipResult([], True, 0)
    result = check_clip(ClipTask("w", None, str(folder), ()), SETTINGS)
    assert result.findings == [Finding("empty_video", "w", f"{folder}, key 'w'", "zero bytes")]
    absent = check_clip(ClipTask("x", None, str(folder), ()), SETTINGS)
    assert kinds(absent) == ["unreadable_video"] and absent.findings[0].file == str(folder)


def test_boxes_beyond_the_frame_are_told_by_the_size_of_the_video(video: Path, tmp_path: Path):
    objects = write_objects(tmp_path / "v.json", DOG, {**DOG, "rect": [100, 1, 120, 20]})
    task = ClipTask("v", str(video), None, (objects,))
    assert kinds(check_clip(task, SETTINGS)) == ["outside_box"]
    assert check_clip(task, replace(SETTINGS, has_original_boxes=False)).findings == []
    assert check_clip(task._replace(video=None), SETTINGS).findings == []


def test_a_clip_may_have_an_object_file_in_each_of_several_folders(video: Path, tmp_path: Path):
    files = (write_objects(tmp_path / "a.json", DOG), write_objects(tmp_path / "b.json", DOG, frames=4))
    result = check_clip(ClipTask("v", str(video), None, files), SETTINGS)
    assert [(finding.kind, finding.file) for finding in result.findings] == [("wrong_frame_count", files[1])]
    assert result.is_readable and result.object_files == 2


def test_of_each_problem_of_a_file_one_example_is_named(tmp_path: Path):
    cats = [{**DOG, "class": name} for name in ("cat", "cow")]
    path = write_objects(tmp_path / "v.json", *cats, {**DOG, "rect": [5, 5, 5, 9]})
    result = check_objects("v", path, None, SETTINGS)
    assert result.is_usable and result.files == 1
    assert {(finding.kind, finding.detail) for finding in result.findings} >= {("unknown_class", "'cat' (and 5 more)")}
    assert {finding.kind for finding in result.findings} == {"unknown_class", "degenerate_box", "no_objects"}
    assert all(path not in finding.detail for finding in result.findings)


def test_files_that_give_no_objects_are_told_from_those_with_few(tmp_path: Path):
    (tmp_path / "broken.json").write_text("[")
    broken = check_objects("v", str(tmp_path / "broken.json"), None, SETTINGS)
    assert not broken.is_usable and broken.files == 0 and broken.findings[0].kind == "broken_objects"
    short = check_objects("v", write_objects(tmp_path / "short.json", DOG, frames=2), None, SETTINGS)
    assert not short.is_usable and short.files == 1 and "2 frames, 3 frames are sampled" in short.findings[0].detail
    empty = check_objects("v", write_objects(tmp_path / "empty.json"), None, SETTINGS)
    assert empty.is_usable and [finding.kind for finding in empty.findings] == ["no_objects"]


def test_every_problem_of_an_object_file_is_a_kind_of_finding():
    assert set(OBJECT_KINDS) == set(PROBLEMS) and set(OBJECT_KINDS.values()) <= set(KINDS)


def check_or_die(task: ClipTask) -> ClipResult:
    """What a worker process does here."""
    if task.video_id == "deadly":
        os._exit(5)
    return ClipResult([], True, len(task.objects))


@pytest.mark.slow
def test_a_decoder_that_dies_of_a_clip_costs_that_clip_alone():
    tasks = [ClipTask(video_id, f"{video_id}.mp4", None, ("o",)) for video_id in ("a", "deadly", "b")]
    found = list(check_all(check_or_die, tasks, 3, 2))
    assert [task.video_id for task, _ in found] == ["a", "deadly", "b"]
    assert found[0][1] == found[2][1] == ClipResult([], True, 1)
    reason = "the decoding process died 2 times (exit status 5)"
    assert found[1][1] == ClipResult([Finding("unreadable_video", "deadly", "deadly.mp4", reason)], False, 0)


def test_nothing_to_check_is_no_error():
    assert list(check_all(check_or_die, [], 0, 4)) == []


def fail_or_check(task: ClipTask) -> ClipResult:
    """Raises what no reader expects; a worker imports it by name."""
    if task.video_id == "odd":
        raise RuntimeError("an error of no reader")
    return ClipResult([], True, 0)


def test_an_unexpected_error_is_a_finding_on_its_clip():
    tasks = [ClipTask(video_id, f"{video_id}.mp4", None, ()) for video_id in ("a", "odd", "b")]
    results = [result for _, result in check_all(fail_or_check, tasks, len(tasks), 1)]
    found = Finding("unreadable_video", "odd", "odd.mp4", "RuntimeError: an error of no reader")
    assert results == [ClipResult([], True, 0), ClipResult([found], False, 0), ClipResult([], True, 0)]


def test_a_pipe_is_no_video_and_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "v.mp4")
    result = check_clip(ClipTask("v", str(tmp_path / "v.mp4"), None, ()), SETTINGS)
    assert kinds(result) == ["unreadable_video"] and not result.is_readable


def test_objects_of_other_frames_are_named(video: Path, tmp_path: Path):
    objects = write_objects(tmp_path / "v.json", DOG)
    report = tmp_path / REPORT_FOLDER / "v.json"
    report.parent.mkdir()
    for indices, found in (([0, 10, 20], []), ([0, 11, 20], ["other_frames"])):
        report.write_text(json.dumps({"frame_indices": indices}))
        assert kinds(check_clip(ClipTask("v", str(video), None, (objects,)), SETTINGS)) == found
