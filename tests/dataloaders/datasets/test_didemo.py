"""DiDeMo's lists and descriptions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dataloaders.datasets.didemo import read_names, read_split

NAMES = ["2@N00_5_ab.", "1@N00_7_cd.mov", "3@N00_9_ef.mp4"]


def write(folder: Path, entries: Any) -> Path:
    (folder / "val_list.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (folder / "val_data.json").write_text(json.dumps(entries))
    return folder


def entry(video: str, description: str) -> dict[str, Any]:
    return {"video": video, "description": description, "times": [[0, 1]], "num_segments": 6}


def test_descriptions_of_a_video_become_one_paragraph(tmp_path: Path):
    entries = [
        entry("1@N00_7_cd.mov", "a dog runs."),
        entry("2@N00_5_ab.", "rain"),
        entry("3@N00_9_ef.mp4", "x"),
        entry("1@N00_7_cd.mov", "it stops"),
        entry("1@N00_7_cd.mp4", "a name that is not in the list"),
        entry("8@N00_0_00.mp4", "a video of no list"),
    ]
    split = read_split(write(tmp_path, entries), "val")
    assert split.video_ids == ["2@N00_5_ab", "1@N00_7_cd", "3@N00_9_ef"]
    assert split.captions == ["rain", "a dog runs. it stops", "x"]
    assert split.caption_video.tolist() == [0, 1, 2]
    assert split.object_names == {
        "2@N00_5_ab": "2@N00_5_ab._[0]_[31]",
        "1@N00_7_cd": "1@N00_7_cd.mov_[0]_[31]",
        "3@N00_9_ef": "3@N00_9_ef.mp4_[0]_[31]",
    }


def test_videos_without_description_are_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        split = read_split(write(tmp_path, [entry("1@N00_7_cd.mov", "a dog")]), "val")
    assert split.video_ids == list(split.object_names) == ["1@N00_7_cd"]
    assert "val_data.json: no caption of 2 of 3 videos: 2@N00_5_ab, 3@N00_9_ef; they are left out" in caplog.text
    with pytest.raises(ValueError, match="no caption of 3 of 3 videos"):
        read_split(write(tmp_path, []), "val")


def test_what_is_wrong_with_the_files_is_said(tmp_path: Path):
    folder = write(tmp_path, [entry("1@N00_7_cd.mov", "a dog"), {"video": "2@N00_5_ab."}])
    with pytest.raises(ValueError, match=r"val_data\.json: entry 1 is .*2@N00_5_ab"):
        read_split(folder, "val")
    write(tmp_path, {"video": "1@N00_7_cd.mov"})
    with pytest.raises(ValueError, match=r"val_data\.json is not a list"):
        read_split(folder, "val")
    (folder / "val_data.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"val_data\.json.*--data_path"):
        read_split(folder, "val")
    with pytest.raises(FileNotFoundError, match=r"train_list\.txt.*--data_path"):
        read_split(folder, "train")


def test_the_real_files_are_read(shared: Path):
    folder = shared / "realdata/didemo"
    for name, count in (("train", 8392), ("val", 1065), ("test", 1004)):
        names = read_names(folder, name)
        assert len(names) == count
        assert all(full_name.startswith(f"{video_id}.") for video_id, full_name in names.items())
    for name, count in (("val", 1065), ("test", 1004)):
        split = read_split(folder, name)
        assert len(split.video_ids) == len(split.captions) == len(split.object_names) == count
        listed = set(read_names(folder, name).values())
        entries = json.loads((folder / f"{name}_data.json").read_bytes())
        descriptions = [item["description"] for item in entries if item["video"] in listed]
        assert sum(map(len, split.captions)) == sum(map(len, descriptions)) + len(descriptions) - count
