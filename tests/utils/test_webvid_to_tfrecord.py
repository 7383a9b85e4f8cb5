"""The shard writer. What imports TensorFlow runs in processes of its own, without PyTorch; there are four."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dataloaders.frames import UnreadableVideo
from dataloaders.tfrecord import ShardReader, StoredClip, iterate_records
from tests.videos import write_video
from utils.preparation import shards
from utils.preparation.clip_encoding import encode_clip
from utils.preparation.shards import Settings, convert_row
from utils.preparation.webvid_rows import Row, read_rows, survey_csv
from utils.webvid_to_tfrecord import main

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "utils/webvid_to_tfrecord.py"

# Converts in both formats, reads the shards with TensorFlow's own reader, and runs into a file size limit.
CONVERT_AND_READ = """
import hashlib, json, resource, sys
from pathlib import Path
from utils.webvid_to_tfrecord import main
if __name__ == "__main__":
    out, common = Path(sys.argv[1]), sys.argv[2:]
    codes = [main([*common, "--output_dir", str(out / "jpeg"), "--clips_per_shard", "3"])]
    codes.append(main([*common, "--output_dir", str(out / "raw"), "--frame_format", "raw", "--size", "32"]))
    import tensorflow as tf
    records = {}
    for shard in sorted(out.glob("*/path-*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            images = list(feature["image"].bytes_list.value)
            records[shard.parent.name + "/" + feature["video_id"].bytes_list.value[0].decode()] = {
                "image": [hashlib.md5(image).hexdigest() for image in images],
                "frame_indices": list(feature["frame_indices"].int64_list.value),
                "fps": list(feature["fps"].float_list.value),
            }
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    codes.append(main([*common, "--output_dir", str(out / "full"), "--frame_format", "raw"]))
    print(json.dumps({"codes": codes, "torch": "torch" in sys.modules, "records": records}))
"""

# Stops at a chosen point: (signal, "encode", video id) or (signal, "rename", file name).
CONVERT_AND_STOP = """
import os, signal, sys
from pathlib import Path
from utils import webvid_to_tfrecord
from utils.preparation import shards
number, point, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
replace, serialise = os.replace, shards._serialise
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


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv, and videos of most of its rows."""
    folder = tmp_path_factory.mktemp("source")
    videos = folder / "videos"
    write_video(videos / "001_050/a1.mp4", 25)
    write_video(videos / "a2.mp4", 31, fps=29.97)
    write_video(videos / "001_050/a3.mp4", 8, size=(400, 320))
    write_video(videos / "a4.mp4", 45, size=(48, 64))
    write_video(videos / "a5.mp4", 12)
    (videos / "broken.mp4").write_bytes(b"no video")
    rows = [
        ("a1", "a red square is moving, slowly", "001_050"),
        ("gone", "never downloaded", "001_050"),
        ("a2", 'a "quoted" caption', "001_050"),
        ("a1", "a second row of a1", "001_050"),
        ("a3", "a large clip", "001_050"),
        ("broken", "a damaged file", ""),
        ("a5", "  ", ""),
        ("", "a row without an id", ""),
        ("a4", "Überraschung\nin two lines", ""),
    ]
    with (folder / "webvid.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["videoid", "name", "page_idx", "page_dir", "duration", "contentUrl"])
        writer.writerows([(video_id, name, 1, page, "PT00H00M17S", "") for video_id, name, page in rows])
    return folder


def common_arguments(source: Path) -> list[str]:
    return ["--csv", str(source / "webvid.csv"), "--video_dir", str(source / "videos"), "--workers", "2"]


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    """Folder with jpeg/ and raw/, what TensorFlow read there, and stderr."""
    out = tmp_path_factory.mktemp("converted")
    process = run(CONVERT_AND_READ, out, *common_arguments(source))
    assert process.returncode == 0, process.stderr
    return out, json.loads(process.stdout.splitlines()[-1]), process.stderr


def stored_clips(folder: Path) -> Iterator[tuple[str, StoredClip]]:
    reader = ShardReader(folder)
    for line in (folder / "path.index").read_text().splitlines():
        video_id, shard, offset = line.split("\t")
        yield video_id, reader.read(shard, int(offset), video_id)


def frame_numbers(clip: StoredClip) -> list[int]:
    assert clip.frame_indices is not None
    return clip.frame_indices.tolist()


def test_jpeg_shards_labels_and_report(source: Path, converted: tuple[Path, dict, str]):
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
    assert report["written"] == 4
    assert [clip["video_id"] for clip in report["skipped"]] == ["gone", "a1", "broken", "a5", ""]
    reasons = [clip["reason"] for clip in report["skipped"]]
    expected = ["001_050/gone.mp4 or", "row 4 of the csv repeats", "broken.mp4: not a video", "empty caption", "row 8"]
    assert all(part in reason for part, reason in zip(expected, reasons, strict=True)), reasons
    assert report["settings"]["size"] == 256


def test_raw_shards_are_as_released(converted: tuple[Path, dict, str]):
    clips = dict(stored_clips(converted[0] / "raw"))
    assert list(clips) == ["a1", "a2", "a3", "a4"]
    assert (clips["a4"].width, clips["a4"].height) == (48, 64)
    frames = clips["a4"].decode([0, 4])
    assert frames[1].shape == (32, 32, 3)
    assert abs(frames[1].mean() - 80) < 3


def test_tensorflow_reads_the_same_with_checksums(converted: tuple[Path, dict, str]):
    out, tensorflow, _ = converted
    read = {f"{name}/{key}": clip for name in ("jpeg", "raw") for key, clip in stored_clips(out / name)}
    assert set(tensorflow["records"]) == set(read)
    for key, clip in read.items():
        assert tensorflow["records"][key]["frame_indices"] == frame_numbers(clip)
        assert tensorflow["records"][key]["fps"] == [clip.fps]
    assert sum(1 for _ in iterate_records(out / "raw/path-00000.tfrecord")) == 4


def test_full_disk_is_a_clear_error(converted: tuple[Path, dict, str]):
    out, tensorflow, stderr = converted
    assert tensorflow["codes"][2] == 1
    assert "path-00000.tfrecord: cannot be written" in stderr
    assert "run again" in stderr
    assert not list((out / "full").glob("path*.tfrecord"))


def test_stopped_anywhere_and_run_again_ends_the_same(
    source: Path, converted: tuple[Path, dict, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [*common_arguments(source), "--output_dir", str(tmp_path / "out"), "--clips_per_shard", "3"]
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


def test_records_of_an_unfinished_shard_are_used_again(converted: tuple[Path, dict, str], tmp_path: Path):
    whole = converted[0] / "raw/path-00000.tfrecord"
    records = list(iterate_records(whole))
    (tmp_path / "parts").mkdir()
    temporary = tmp_path / "path-00000.tfrecord.tmp"
    temporary.write_bytes(whole.read_bytes()[: records[3][0] - 5])  # killed while the third was written
    shards._save_beginnings(tmp_path)
    temporary.write_bytes(b"a shorter beginning, of a run that was killed sooner")
    shards._save_beginnings(tmp_path)
    assert not temporary.exists()
    saved = shards._saved_offsets(tmp_path, 0)
    assert saved == {"a1": records[0][0], "a2": records[1][0]}
    settings = Settings("", "raw", 32, 1, None, 1000)
    row = Row(0, "a2", "caption", "", None, saved["a2"])
    assert convert_row(row, tmp_path / "no videos", tmp_path, settings) == records[1][1]


def test_other_settings_than_the_begun_output_are_an_error(
    source: Path, converted: tuple[Path, dict, str], capsys: pytest.CaptureFixture[str]
):
    out = str(converted[0] / "jpeg")
    assert main([*common_arguments(source), "--output_dir", out, "--size", "128"]) == 1
    message = capsys.readouterr().err
    assert "size 256 there, 128 now; clips_per_shard 3 there, 1000 now" in message
    assert "another --output_dir" in message


def test_shards_of_others_are_not_overwritten(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "path.index").write_text("x\ty\t0\n")
    assert main([*common_arguments(source), "--output_dir", str(tmp_path)]) == 1
    assert "did not write" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["id,text\n1,x\n", "", "videoid,page_dir\n1,x\n"])
def test_csv_without_its_columns_is_an_error(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.csv").write_text(content)
    assert main(["--csv", str(tmp_path / "a.csv"), "--video_dir", str(tmp_path), "--output_dir", str(tmp_path)]) == 1
    assert "no column" in capsys.readouterr().err


def test_wrong_flags_are_errors(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    good = [*common_arguments(source), "--output_dir", str(tmp_path)]
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


def test_rows_without_page_dir_column_and_ids_that_no_index_could_hold(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffvideoid,name\n1,one\n"2\t3",tab\n../4,up\n5\n1,again\n1,"and again"\n', encoding="utf-8")
    num_rows, repeated = survey_csv(path)
    assert (num_rows, len(repeated)) == (6, 1)
    rows = list(read_rows(path, 4, repeated))
    assert [row.shard for row in rows] == [0, 0, 0, 0, 1, 1]
    assert [bool(row.fault) for row in rows] == [False, True, True, True, True, True]
    assert rows[3].fault == "empty caption"
    assert "repeats" in (rows[5].fault or "")
    assert {row.page_dir for row in rows} == {""}


def test_frames_are_never_enlarged_and_keep_their_aspect(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 12, size=(160, 96))
    small = encode_clip(path, 48, 90)
    assert (small.original_size, small.stored_size, small.frame_indices) == ((160, 96), (80, 48), [0, 10])
    assert encode_clip(path, 256, 90).stored_size == (160, 96)
    raw = encode_clip(path, 128, None, feature_framerate=5)
    assert raw.stored_size == (128, 128)
    assert np.frombuffer(raw.images[0], np.uint8).size == len(raw.frame_indices) * 128 * 128 * 3
    with pytest.raises(UnreadableVideo):
        encode_clip(tmp_path / "gone.mp4", 48, 90)


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
