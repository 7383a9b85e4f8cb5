"""The shard writer. What imports TensorFlow runs in processes of its own, without PyTorch; there are four."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataloaders.stored_clips import StoredClip
from dataloaders.tfrecord import iterate_records
from tests.utils.conversion import ROOT, Converted, common_arguments, convert_all, files_of, run, stored_clips
from tests.utils.tars import sample, write_tar
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
    assert files_of(tmp_path / "out") == files_of(converted[0] / "jpeg")


def test_tar_files_and_parts_give_the_same_as_one_csv(
    webvid_source: Path, converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """In three parts, and from tar files in two shards."""
    labels = json.loads((converted[0] / "jpeg/frozen_train_labels.json").read_bytes())
    for number, label in enumerate(labels):
        [video] = (webvid_source / "videos").rglob(f"{label['video_id']}.mp4")
        write_tar(tmp_path / f"{number}.tar", sample(label["video_id"], video.read_bytes(), label["caption"]))
    tars = ["--tar", f"{tmp_path}/{{0..1}}.tar", f"{tmp_path}/[23].tar", "--workers", "2"]
    parts = [*common_arguments(webvid_source), "--output_dir", str(tmp_path / "parts"), "--clips_per_shard", "3"]
    printed = convert_all(
        [*tars, "--output_dir", str(tmp_path / "tars"), "--clips_per_shard", "3"],
        *([*parts, "--part", f"{index}/3"] for index in range(3)),
    )
    assert "4 clips written, 0 rows skipped" in printed
    assert "2 clips written, 1 rows skipped in part 0/3; when all parts are there: --merge --output_dir" in printed
    by_id = {}
    for folder in (converted[0] / "jpeg", tmp_path / "tars"):
        records = [payload for path in sorted(folder.glob("path-*")) for _, payload in iterate_records(path)]
        by_id[folder.name] = dict(zip((video_id for video_id, _ in stored_clips(folder)), records, strict=True))
    assert by_id["tars"] == by_id["jpeg"] and list(by_id["tars"]) == [label["video_id"] for label in labels]
    assert json.loads((tmp_path / "tars/frozen_train_labels.json").read_bytes()) == labels
    assert not (tmp_path / "parts/path.index").exists()
    assert main(["--merge", "--output_dir", str(tmp_path / "parts")]) == 0
    assert "4 clips written, 5 rows skipped" in capsys.readouterr().out
    assert files_of(tmp_path / "parts") == files_of(converted[0] / "jpeg")


def test_a_merge_of_no_parts_and_bad_tars_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--output_dir", str(tmp_path / "out")]
    assert main(["--merge", *out]) == 1
    assert "no parts are here to merge: convert with --part i/n first" in capsys.readouterr().err
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    assert main(["--tar", str(tmp_path / "a.tar"), *out]) == 1
    assert "compressed with gzip; unpack it first" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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


@pytest.mark.slow
def test_real_clips_in_tar_files_are_those_of_the_csv_record_for_record(shared: Path, tmp_path: Path):
    webvid = shared / "realdata/webvid"
    videos = {path.stem: path for path in (webvid / "videos").rglob("*.mp4")}
    with (webvid / "results_2M_val.csv").open(newline="") as file:
        rows = [(row["videoid"], row["name"]) for row in csv.DictReader(file)]
    there = [(video_id, caption) for video_id, caption in rows if video_id in videos]
    for number, (video_id, caption) in enumerate(there):
        members = sample(video_id, videos[video_id].read_bytes(), caption, has_text=number % 2 == 0)
        write_tar(tmp_path / f"{number:05d}.tar", members)
    csv_flags = ["--csv", str(webvid / "results_2M_val.csv"), "--video_dir", str(webvid / "videos")]
    tar_flags = ["--tar", f"{tmp_path}/{{00000..{len(there) - 1:05d}}}.tar"]
    out = {name: ["--workers", "2", "--output_dir", str(tmp_path / name)] for name in ("csv", "tar")}
    convert_all([*csv_flags, *out["csv"]], [*tar_flags, *out["tar"]])
    for name in ("path-00000.tfrecord", "path.index", "frozen_train_labels.json"):
        assert (tmp_path / "csv" / name).read_bytes() == (tmp_path / "tar" / name).read_bytes()
    assert len((tmp_path / "tar/path.index").read_text().splitlines()) == len(there) == 5
