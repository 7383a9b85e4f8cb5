"""What is written of one demo clip: its videos, once per container, and its truth."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dataloaders.frames import FrameSettings, read_clip
from tests.utils.demo.small_world import read_json
from utils.demo.clips import DATASETS, ClipSettings, is_in, make_clip
from utils.demo.world import COLORS, SceneClip, plan_clips


def test_a_clip_is_encoded_once_per_container(demo_world: Path):
    """Files of one clip in several data sets share an inode: 24 + 15 as .mp4, and 7 + 15 as .avi."""
    places = {"webvid": "videos/*/*", "msrvtt": "videos/*", "didemo": "videos/*"}
    assert len({path.stat().st_ino for name, place in places.items() for path in (demo_world / name).glob(place)}) == 39
    msvd = {path.stat().st_ino for path in (demo_world / "msvd/YouTubeClips").iterdir()}
    lsmdc = {path.stat().st_ino for path in (demo_world / "lsmdc/videos").glob("*/*.avi")}
    assert len(msvd) == 21 and len(lsmdc) == 22 and msvd < lsmdc
    assert len({path.stat().st_ino for path in demo_world.glob("*/objects/*.json")}) == 39


def test_sampled_frames_are_those_of_the_boxes_and_show_the_things(demo_world: Path):
    truths = read_json(demo_world / "msrvtt/truth.json")["videos"]
    right, total = 0, 0
    for name, truth in truths.items():
        clip = read_clip(demo_world / "msrvtt/videos" / f"{name}.mp4", 12, FrameSettings(2))
        assert clip.frame_indices.tolist() == truth["frame_indices"]
        assert [clip.width, clip.height] == truth["size"]
        for frame, boxes in zip(clip.frames, truth["boxes"], strict=True):
            for thing, box in zip(truth["objects"], boxes, strict=True):
                is_lit = thing["motion"] != "blinking"
                if box is not None and is_lit and min(box[2] - box[0], box[3] - box[1]) >= 12:
                    x1, y1, x2, y2 = box
                    distance = np.abs(frame[y1:y2, x1:x2].astype(int) - COLORS[thing["color"]]).max(-1)
                    right += (distance < 60).mean() > 0.04  # the rest is the face and the background
                    total += 1
    assert right / total > 0.97


def settings(folder: Path, **changes: int) -> ClipSettings:
    counts = {"msvd_clips": 2, "lsmdc_clips": 3, "didemo_clips": 0, **changes}
    return ClipSettings(folder, 0, 32, 1.0, 4.0, 2.0, 2, **counts)


def test_training_clips_are_in_webvid_and_the_first_of_them_elsewhere(tmp_path: Path):
    def places(split: str, number: int) -> set[str]:
        clip = SceneClip(split, number, ())
        return {name for name in DATASETS if is_in(name, clip, settings(tmp_path))}

    assert places("train", 1) == {"webvid", "msrvtt", "msvd", "lsmdc"}
    assert places("train", 2) == {"webvid", "msrvtt", "lsmdc"}
    assert places("train", 6512) == {"webvid", "msrvtt"} and places("train", 6513) == {"webvid"}
    assert places("val", 50) == places("test", 50) == {"msrvtt", "msvd", "lsmdc"}


def test_a_clip_is_recorded_under_the_id_that_it_has_in_each_data_set(tmp_path: Path):
    clip = plan_clips(0, 3, 0, 0)[1]
    record = make_clip(clip, settings(tmp_path))
    assert set(record.ids) == {"webvid", "msrvtt", "msvd", "lsmdc"}
    assert record.ids["webvid"] == "1000001" and record.ids["msrvtt"] == "video1"
    for name, video_id in record.ids.items():
        assert (tmp_path / name / "objects" / f"{video_id}.json").is_file()
    found = [item for frame in read_json(tmp_path / "msrvtt/objects/video1.json") for item in frame["objects"]]
    assert record.classes == Counter(item["class"] for item in found)
    assert record.attributes.total() == len(found)
    truth = record.truth
    assert (truth["split"], truth["size"], truth["frame_indices"]) == ("train", [42, 32], [0, 2])
    assert truth["objects"] == [thing._asdict() for thing in clip.scene]
    assert [len(boxes) for boxes in truth["boxes"]] == [len(clip.scene)] * 2


def test_where_files_cannot_be_linked_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_links(*_: object) -> None:
        raise OSError("this file system has no hard links")

    monkeypatch.setattr(os, "link", no_links)
    make_clip(plan_clips(0, 1, 0, 0)[0], settings(tmp_path))
    videos = [*tmp_path.glob("webvid/videos/*/*.mp4"), *tmp_path.glob("msrvtt/videos/*.mp4")]
    assert len(videos) == 2 and videos[0].read_bytes() == videos[1].read_bytes()
    assert len({path.stat().st_ino for path in videos}) == 2


def test_a_clip_does_not_depend_on_the_others_of_its_world(tmp_path: Path):
    clip = plan_clips(0, 3, 0, 0)[2]
    alone, again = (make_clip(clip, settings(tmp_path / name)) for name in ("one", "two"))
    assert alone == again
    other = make_clip(clip._replace(number=5), settings(tmp_path / "three"))
    assert other.truth["boxes"] != alone.truth["boxes"]
