"""From the command line of the check to its report: what is said, what is written, and the exit status."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.utils.checks.test_setup import write_lines
from tests.utils.data.test_captions import write_captions
from tests.videos import write_video
from utils.checks.clips import ClipResult
from utils.checks.findings import COLUMNS
from utils.checks.run import _unusable_splits, run
from utils.checks.setup import ListedSplit


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """A check of two sound clips of WebVid."""
    write_lines(tmp_path / "a.csv", "videoid,name,page_dir", "1,a dog,", "2,a cat,")
    for video_id in ("1", "2"):
        write_video(tmp_path / "videos" / f"{video_id}.mp4", 30)
    flags = ["--datatype", "webvid", "--train_csv", str(tmp_path / "a.csv"), "--output_dir", str(tmp_path / "out")]
    return [*flags, "--features_path", str(tmp_path / "videos"), "--max_frames", "3", "--workers", "1"]


def test_a_sound_data_set_is_two_lines_and_a_file_of_titles(flags: list[str], tmp_path: Path):
    lines, status = run(flags, None)
    output = tmp_path / "out" / "data_check.tsv"
    assert status == 0 and lines == [
        "webvid: videos listed: train 2; 2 video and 0 object files read",
        f"training can start: 0 findings, {output}",
    ]
    assert output.read_text() == "\t".join(COLUMNS) + "\n"


def test_findings_are_shown_counted_and_written_where_asked(flags: list[str], tmp_path: Path):
    (tmp_path / "videos" / "2.mp4").unlink()
    write_video(tmp_path / "videos" / "3.mp4", 30)
    more = ["--output", str(tmp_path / "r.tsv"), "--json", str(tmp_path / "r.json"), "--min_candidates", "4"]
    lines, status = run([*flags, *more], None)
    assert status == 1
    assert lines[0] == "webvid: videos listed: train 2; 1 video and 0 object files read"
    assert [line.split()[:3] for line in lines[1:-1:2]] == [
        ["error", "1", "missing_video"],
        ["note", "1", "short_video"],
        ["note", "1", "unreferenced_video"],
    ]
    assert lines[-1].startswith("training can start, without what the errors name (evaluation: --on_bad_video skip): 3")
    saved = json.loads((tmp_path / "r.json").read_bytes())
    kinds = ["missing_video", "short_video", "unreferenced_video"]
    assert [saved[name] for name in ("status", "datatype", "videos", "read", "object_files", "counts")] == [
        1, "webvid", {"train": 2}, 1, 0, dict.fromkeys(kinds, 1),
    ]  # fmt: skip
    rows = [line.split("\t") for line in (tmp_path / "r.tsv").read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == kinds == [finding["kind"] for finding in saved["findings"]]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_ends_the_check_with_a_report(flags: list[str], tmp_path: Path):
    lines, status = run([*flags, "--features_path", str(tmp_path / "none")], None)
    assert status == 2 and lines[0] == "webvid: videos listed: train 2; 0 video and 0 object files read"
    assert lines[1].startswith("stop        1  cannot_start") and "no such folder of videos" in lines[2]
    assert lines[-1].startswith("training cannot start: 1 findings, ")


def test_a_list_that_cannot_be_read_does_not_keep_the_others_from_being_checked(flags: list[str], tmp_path: Path):
    data = write_captions(tmp_path, **{"1": ["a dog"], "2": ["a cat"]})
    train = write_lines(tmp_path / "train.csv", "video_id", "1", "2")
    own = ["--datatype", "msrvtt_retrieval", "--train_csv", train, "--data_path", data]
    lines, status = run([*flags, *own, "--val_csv", str(tmp_path / "none.csv")], None)
    assert status == 2
    assert lines[0] == "msrvtt_retrieval: videos listed: train 2; 2 video and 0 object files read"
    assert lines[2].strip().startswith("test: ") and "none.csv" in lines[2] and len(lines) == 4


def test_a_split_without_a_readable_video_stops_training(flags: list[str], tmp_path: Path):
    for path in (tmp_path / "videos").iterdir():
        path.write_bytes(b"not a video" * 100)
    lines, status = run(flags, None)
    assert status == 2
    assert "train: none of the 2 videos can be read (--features_path)" in lines[2]
    assert lines[3].split()[:3] == ["error", "2", "unreadable_video"]


def test_no_list_at_all_is_no_crash(flags: list[str], tmp_path: Path):
    lines, status = run([*flags, "--train_csv", str(tmp_path / "none.csv")], None)
    assert status == 2 and lines[0] == "webvid: videos listed: none; 0 video and 0 object files read"
    assert sum("none.csv" in line for line in lines) == 1


def test_objects_are_checked_where_their_folder_is_named(flags: list[str], tmp_path: Path):
    (tmp_path / "objects").mkdir()
    (tmp_path / "map.json").write_text(json.dumps({"label_to_idx": {"dog": 1}}))
    box = {"class": "dog", "rect": [1, 1, 9, 9], "conf": 0.9}
    (tmp_path / "objects" / "1.json").write_text(json.dumps([{"objects": [box]}] * 3))
    objects = ["--object_path", str(tmp_path / "objects"), "--labelmap_path", str(tmp_path / "map.json")]
    lines, status = run([*flags, *objects], None)
    assert status == 1 and lines[0].endswith("2 video and 1 object files read")
    assert lines[2].strip() == "2: no 2.json" and len(lines) == 4


def test_flags_that_say_nothing_about_data_are_taken(flags: list[str]):
    assert run([*flags, "--lr", "1e-3", "--resume", "x", "--do_train", "--rerank_top", "3"], None)[1] == 0


def test_names_that_no_file_can_hold_are_escaped_in_the_report(flags: list[str], tmp_path: Path):
    os.link(tmp_path / "videos" / "1.mp4", os.path.join(os.fsencode(tmp_path / "videos"), b"caf\xe9.mp4"))
    lines, status = run([*flags, "--json", str(tmp_path / "r.json")], None)
    assert status == 0 and any("caf\\udce9" in line for line in lines)
    assert json.loads((tmp_path / "r.json").read_bytes())["findings"][0]["id"] == "caf\\udce9"


def test_replaced_characters_are_a_finding(tmp_path: Path):
    sentences = [{"video_id": "video0", "caption": "a \ud800 dog"}]
    sentences += [{"video_id": f"video{number}", "caption": "a dog"} for number in (6513, 7010)]
    for row in sentences:
        write_video(tmp_path / "videos" / f"{row['video_id']}.mp4", 30)
    (tmp_path / "c.json").write_text(json.dumps({"sentences": sentences}))
    flags = ["--datatype", "msrvtt_caption", "--data_path", str(tmp_path / "c.json"), "--max_frames", "3"]
    flags += ["--features_path", str(tmp_path / "videos"), "--output_dir", str(tmp_path / "out"), "--workers", "1"]
    _, status = run([*flags, "--json", str(tmp_path / "r.json")], None)
    found = json.loads((tmp_path / "r.json").read_bytes())["findings"]
    assert status == 0
    assert [(finding["kind"], finding["file"]) for finding in found] == [("replaced_text", str(tmp_path / "c.json"))]


def test_files_of_a_list_that_cannot_be_read_are_not_called_unlisted(flags: list[str], tmp_path: Path):
    (tmp_path / "a.csv").write_text("videoid\n1\n")
    _, status = run([*flags, "--json", str(tmp_path / "r.json")], None)
    kinds = {finding["kind"] for finding in json.loads((tmp_path / "r.json").read_bytes())["findings"]}
    assert status == 2 and kinds == {"cannot_start"}


@pytest.mark.parametrize(("bad", "stops"), [(99, 0), (100, 1)])
def test_training_gives_up_after_a_hundred_bad_videos_in_a_row(bad: int, stops: int):
    ids = [str(number) for number in range(150)]
    results = {video_id: ClipResult([], int(video_id) >= bad, 0) for video_id in ids}
    assert len(list(_unusable_splits([ListedSplit("train", ids, [])], results, set()))) == stops
    assert not list(_unusable_splits([ListedSplit("test", ids, [])], results, set()))
