"""The shard writer. What imports TensorFlow runs in processes of its own, without PyTorch; there are four."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataloaders.stored_clips import StoredClip
from dataloaders.tfrecord import iterate_records
from tests.utils.conversion import ROOT, Converted, common_arguments, run, stored_clips
from utils.webvid_to_tfrecord import main

COMMAND = ROOT / "utils/webvid_to_tfrecord.py"

# Stops at a chosen point: (signal, "encode", video id) or (signal, "rename", file name).
CONVERT_AND_STOP = """
import os, signal, sys
from pathlib import Path
from utils import webvid_to_tfrecord
from utils.preparation import shards
number, point, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
replace, serialise = os.replace, shards._serialise
# A shell has what it starts in the background ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
def stopping_replace(source, target):
    if point == "rename" and Path(target).name == name:
        os.kill(os.getpid(), number)
    replace(source, target)
def stopping_serialise(tf, video_id, *rest):
    if point == "encode" and video_id == name:
        os.kill(os.getpid(), number)
    return serialise(tf, video_id, *rest)
if __name__ == "__main__":
    os.replace, shards._serialise = stopping_replace, stopping_serialise
    sys.exit(webvid_to_tfrecord.main(sys.argv[4:]))
"""


def frame_numbers(clip: StoredClip) -> list[int]:
    assert clip.frame_indices is not None
    return clip.frame_indices.tolist()


def test_jpeg_shards_labels_and_report(webvid_source: Path, converted: Converted):
    out, tensorflow, _ = converted
    assert tensorflow["codes"][:2] == [0, 0]
    assert not tensorflow["torch"]
    clips = dict(stored_clips(out / "jpeg"))
    assert list(clips) == ["a1", "a2", "a3", "a4"]
    assert sorted(path.name for path in (out / "jpeg").glob("path-*")) == [
        f"path-{number:05d}.tfrecord" for number in range(3)
    ]
    assert frame_numbers(clips["a1"]) == [0, 10, 20]
    assert frame_numbers(clips["a2"]) == [0, 30]
    assert clips["a2"].fps == pytest.approx(29.97)
    assert (clips["a1"].width, clips["a1"].height) == (clips["a1"].stored_width, clips["a1"].stored_height) == (64, 48)
    assert (clips["a3"].width, clips["a3"].height) == (400, 320)
    assert (clips["a3"].stored_width, clips["a3"].stored_height) == (320, 256)
    for frame, index in zip(clips["a4"].decode(range(5)), range(0, 45, 10), strict=True):
        assert frame.shape == (64, 48, 3)
        assert abs(frame.mean() - 2 * index) < 3
    labels = json.loads((out / "jpeg/frozen_train_labels.json").read_text())
    assert [label["video_id"] for label in labels] == list(clips)
    assert labels[1] == {"video_id": "a2", "caption": 'a "quoted" caption'}
    assert labels[3]["caption"] == "Überraschung\nin two lines"
    report = json.loads((out / "jpeg/report.json").read_text())
    assert report["written"] == 4 and report["notes"] == []
    assert [clip["video_id"] for clip in report["skipped"]] == ["gone", "a1", "broken", "a5", ""]
    reasons = [clip["reason"] for clip in report["skipped"]]
    expected = ["001_050/gone.mp4 or", "row 4 of the csv repeats", "broken.mp4: not a video", "empty caption", "row 8"]
    assert all(part in reason for part, reason in zip(expected, reasons, strict=True)), reasons
    assert report["settings"]["size"] == 256


def test_raw_shards_are_as_released(converted: Converted):
    clips = dict(stored_clips(converted[0] / "raw"))
    assert list(clips) == ["a1", "a2", "a3", "a4"]
    assert (clips["a4"].width, clips["a4"].height) == (48, 64)
    frames = clips["a4"].decode([0, 4])
    assert frames[1].shape == (32, 32, 3)
    assert abs(frames[1].mean() - 80) < 3


def test_tensorflow_reads_the_same_with_checksums(converted: Converted):
    out, tensorflow, _ = converted
    read = {f"{name}/{key}": clip for name in ("jpeg", "raw") for key, clip in stored_clips(out / name)}
    assert set(tensorflow["records"]) == set(read)
    for key, clip in read.items():
        assert tensorflow["records"][key]["frame_indices"] == frame_numbers(clip)
        assert tensorflow["records"][key]["fps"] == [clip.fps]
    assert sum(1 for _ in iterate_records(out / "raw/path-00000.tfrecord")) == 4


def test_full_disk_is_a_clear_error(converted: Converted):
    out, tensorflow, stderr = converted
    assert tensorflow["codes"][2] == 1
    assert "path-00000.tfrecord: cannot be written" in stderr
    assert "run again" in stderr
    assert not list((out / "full").glob("path*.tfrecord"))


@pytest.mark.slow
def test_stopped_anywhere_and_run_again_ends_the_same(
    webvid_source: Path, converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [*common_arguments(webvid_source), "--output_dir", str(tmp_path / "out"), "--clips_per_shard", "3"]
    interrupted = run(CONVERT_AND_STOP, 2, "encode", "a2", *arguments)
    assert interrupted.returncode == 130, interrupted.stderr
    assert interrupted.stderr.endswith("interrupted: the finished shards are kept, run again to go on\n")
    assert (tmp_path / "out/path-00000.tfrecord.tmp").stat().st_size > 1000  # a1, which is kept
    # Between the second shard and its companion: the first is complete by now, the second is made again.
    assert run(CONVERT_AND_STOP, 9, "rename", "00001.json", *arguments).returncode == -9
    parts = tmp_path / "out/parts"
    assert (parts / "00000.json").exists()
    assert not (parts / "00001.json").exists()
    assert not (tmp_path / "out/path.index").exists()
    first_shard = (tmp_path / "out/path-00000.tfrecord").stat()
    assert run(CONVERT_AND_STOP, 9, "rename", "report.json", *arguments).returncode == -9
    # Nothing is left to convert, so this needs no TensorFlow and can run here.
    assert main(arguments) == 0
    assert "4 clips written, 5 rows skipped" in capsys.readouterr().out
    assert (tmp_path / "out/path-00000.tfrecord").stat().st_mtime_ns == first_shard.st_mtime_ns
    expected = {path.name: path.read_bytes() for path in (converted[0] / "jpeg").iterdir() if path.is_file()}
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert found == expected


def test_other_settings_than_the_begun_output_are_an_error(
    webvid_source: Path, converted: Converted, capsys: pytest.CaptureFixture[str]
):
    out = str(converted[0] / "jpeg")
    assert main([*common_arguments(webvid_source), "--output_dir", out, "--size", "128"]) == 1
    message = capsys.readouterr().err
    assert "size 256 there, 128 now; clips_per_shard 3 there, 1000 now" in message
    assert "another --output_dir" in message


def test_shards_of_others_are_not_overwritten(webvid_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "path.index").write_text("x\ty\t0\n")
    assert main([*common_arguments(webvid_source), "--output_dir", str(tmp_path)]) == 1
    assert "did not write" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["id,text\n1,x\n", "", "videoid,page_dir\n1,x\n"])
def test_csv_without_its_columns_is_an_error(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.csv").write_text(content)
    assert main(["--csv", str(tmp_path / "a.csv"), "--video_dir", str(tmp_path), "--output_dir", str(tmp_path)]) == 1
    assert "no column" in capsys.readouterr().err


def test_wrong_flags_are_errors(webvid_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = [*common_arguments(webvid_source), "--output_dir", str(tmp_path)]
    cases = {
        "--colour": "unrecognized",
        "--workers 0": "above 0",
        "--csv /nowhere": "no such file",
        "--feature_framerate 0": "above 0",
    }
    for flags, message in cases.items():
        with pytest.raises(SystemExit):
            main([*good, *flags.split()])
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_real_clips_and_the_missing_ones(shared: Path, tmp_path: Path):
    webvid = shared / "realdata/webvid"
    command = [sys.executable, str(COMMAND), "--csv", str(webvid / "results_2M_val.csv"), "--workers", "2"]
    command += ["--video_dir", str(webvid / "videos"), "--output_dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=tmp_path)
    stated = json.loads((shared / "realdata/objects/frames.json").read_text())
    clips = dict(stored_clips(tmp_path))
    assert len(clips) == 5
    for video_id, clip in clips.items():
        assert set(stated[video_id]["frame_indices"]) <= set(frame_numbers(clip))
        assert (clip.width, clip.height, clip.stored_height) == (596, 336, 256)
        clip.decode(range(clip.num_frames))
    report = json.loads((tmp_path / "report.json").read_text())
    missing = ["6251156", "1009929137", "1020335461", "30287869"]
    assert [clip["video_id"] for clip in report["skipped"]] == missing
