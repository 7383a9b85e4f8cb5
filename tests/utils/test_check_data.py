"""Every planted fault in a folder of 100 clips is found, and nothing else; what the command prints and returns."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.videos import write_video
from utils import check_data

CLIPS, FRAMES = 100, 4
LABEL_MAP = {"label_to_idx": {"dog": 1, "cat": 2}, "idx_to_label": {"1": "dog", "2": "cat"}}


class DataSet:
    """An MSR-VTT captioning set: video0 to video99, the last 20 for testing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.videos, self.objects = folder, folder / "videos", folder / "objects"
        self.ids = [f"video{number}" for number in range(CLIPS)]
        self.train, self.test = self.ids[:80], self.ids[80:]
        self.captions = [{"video_id": i, "caption": f"a dog in {i}"} for i in self.ids]
        self.objects.mkdir(parents=True)
        first = write_video(self.videos / "video0.mp4", 40, size=(32, 24))
        frame = {"objects": [{"class": "dog", "rect": [2, 2, 20, 20], "conf": 0.9}]}
        for video_id in self.ids:
            if video_id != "video0":
                shutil.copy(first, self.video(video_id))
            self.write_objects(video_id, [frame] * FRAMES)

    def video(self, video_id: str) -> Path:
        return self.videos / f"{video_id}.mp4"

    def write_objects(self, video_id: str, frames: list[Any]) -> None:
        (self.objects / f"{video_id}.json").write_text(json.dumps(frames))

    def check(self, *more: str) -> tuple[int, set[tuple[str, str, str]]]:
        """Run the command: exit status, and (severity, kind, id) of every line of its file."""
        for name, ids in (("train", self.train), ("test", self.test)):
            (self.folder / f"{name}.csv").write_text("".join(f"{line}\n" for line in ("video_id", *ids)))
        (self.folder / "data.json").write_text(json.dumps({"sentences": self.captions}))
        (self.folder / "map.json").write_text(json.dumps(LABEL_MAP))
        flags = ["--datatype", "msrvtt_caption", "--train_csv", "train.csv", "--val_csv", "test.csv"]
        flags += ["--data_path", "data.json", "--features_path", "videos", "--object_path", "objects"]
        places = [flag if flag.startswith("--") or "_caption" in flag else str(self.folder / flag) for flag in flags]
        places += ["--need_object", "--labelmap_path", str(self.folder / "map.json"), "--max_frames", str(FRAMES)]
        status = check_data.main([*places, "--output_dir", str(self.folder / "out"), "--workers", "1", *more])
        with (self.folder / "out" / "data_check.tsv").open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return status, {(row["severity"], row["kind"], row["id"]) for row in rows}


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path)


def test_every_planted_fault_is_found_and_nothing_else(data: DataSet, capsys: pytest.CaptureFixture[str]):
    data.video("video1").unlink()
    whole = data.video("video2").read_bytes()
    data.video("video2").write_bytes(whole[: len(whole) // 2])
    data.video("video3").write_bytes(b"")
    data.video("video4").write_bytes(b"no video at all" * 20)
    data.write_objects("video5", [{"objects": []}] * (FRAMES - 1))
    data.write_objects("video6", [{"objects": [{"class": "unicorn", "rect": [2, 2, 9, 9], "conf": 0.9}]}] * FRAMES)
    data.write_objects("orphan", [{"objects": []}] * FRAMES)
    data.train.append("video7")
    data.captions[8]["caption"] = "  "
    (data.objects / "video9.json").unlink()
    (data.objects / "video10.json").write_text("[{")
    write_video(data.video("video11"), 15, size=(32, 24))
    shutil.copy(data.video("video0"), data.video("unlisted"))
    data.write_objects("video90", [{"objects": [{"class": "dog", "rect": [50, 50, 60, 60], "conf": 0.9}]}] * FRAMES)
    status, found = data.check()
    assert status == 1
    assert found == {
        ("error", "missing_video", "video1"),
        ("error", "truncated_video", "video2"),
        ("error", "empty_video", "video3"),
        ("error", "unreadable_video", "video4"),
        ("error", "wrong_frame_count", "video5"),
        ("error", "unknown_class", "video6"),
        ("note", "no_objects", "video6"),
        ("note", "orphan_objects", "orphan"),
        ("note", "repeated_id", "video7"),
        ("error", "empty_caption", "video8"),
        ("error", "missing_objects", "video9"),
        ("error", "broken_objects", "video10"),
        ("note", "short_video", "video11"),
        ("note", "unreferenced_video", "unlisted"),
        ("error", "outside_box", "video90"),
        ("note", "no_objects", "video90"),
    }
    out = capsys.readouterr().out
    assert "train 80" in out and "test 20" in out
    assert "training can start, without what the errors name" in out


def test_a_sound_data_set_has_no_findings_also_with_two_workers(data: DataSet, capsys: pytest.CaptureFixture[str]):
    assert data.check() == (0, set())
    assert "training can start: 0 findings" in capsys.readouterr().out
    assert data.check("--workers", "2") == (0, set())


def no_video_at_all(data: DataSet) -> None:
    for video_id in data.train:
        data.video(video_id).unlink()


def damaged_captions(data: DataSet) -> None:
    data.captions = [{"caption": "of no video"}]


def other_ids(data: DataSet) -> None:
    data.test = ["clip1", "clip2"]


@pytest.mark.parametrize("damage", [no_video_at_all, damaged_captions, other_ids])
def test_what_keeps_training_from_starting_is_status_two(data: DataSet, damage: Callable[[DataSet], None]):
    damage(data)
    status, found = data.check()
    assert status == 2 and any(severity == "stop" for severity, _, _ in found)


def test_real_clips_have_only_what_is_known_of_them(shared: Path, tmp_path: Path):
    real = shared / "realdata"
    flags = ["--datatype", "webvid", "--train_csv", str(real / "webvid" / "results_2M_val.csv"), "--need_object"]
    flags += ["--features_path", str(real / "webvid" / "videos"), "--object_path", str(real / "objects" / "webvid")]
    flags += ["--labelmap_path", str(real / "vinvl" / "label_map.json"), "--output_dir", str(tmp_path)]
    assert check_data.main([*flags, "--workers", "1"]) == 1
    with (tmp_path / "data_check.tsv").open(newline="") as file:
        kinds = [row["kind"] for row in csv.DictReader(file, delimiter="\t")]
    assert sorted(kinds) == ["missing_objects"] * 4 + ["missing_video"] * 4 + ["short_video"]
