"""The command that checks a data set before a long run."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from dataloaders.datasets.msvd import read_captions
from dataloaders.frame_cache import FrameCache
from dataloaders.frames import FrameSettings
from dataloaders.samples import SampleSettings
from tests.utils.own_tables import make_own
from tests.videos import write_noise, write_video
from utils import check_data, make_demo_data
from utils.checks.findings import COLUMNS, KINDS
from utils.data.retrieval import DIDEMO_SECONDS
from utils.preparation.frame_caching import STORED, Filler, list_tasks

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 8
CLIPS = {"train": 80, "val": 8, "test": 12}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 clips of 3 s at 4 frames per second, with objects, in the formats of all data sets."""
    folder = tmp_path_factory.mktemp("check") / "demo"
    counts = [f"--{split}_clips={count}" for split, count in CLIPS.items()]
    counts += ["--msvd_clips", "12", "--lsmdc_clips", "12", "--didemo_clips", "12", "--workers", "1"]
    rates = ["--size", "48", "--seconds", "3", "--fps", "4", "--feature_framerate", "4", "--max_frames", str(FRAMES)]
    assert make_demo_data.main(["--output_dir", str(folder), *counts, *rates]) == 0
    return folder


@pytest.fixture
def demo(rendered: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(rendered, tmp_path / "demo"))


def flags(demo: Path, datatype: str) -> list[str]:
    """The task's flags for a data set of the demo world."""
    data_set, _, task = datatype.partition("_")
    root = demo / data_set
    rates = ["--feature_framerate", "4", "--max_frames", str(FRAMES), "--labelmap_path", str(demo / "label_map.json")]
    rates += ["--object_path", str(root / "objects"), "--workers", "1"]
    own = {
        "webvid": {"train_csv": "results_demo_train.csv", "features_path": "videos"},
        "msrvtt": {"train_csv": "train.csv", "val_csv": "val.csv", "test_csv": "test.csv"},
        "msvd": {"features_path": "YouTubeClips"},
        "lsmdc": {"features_path": "videos"},
        "didemo": {"features_path": "videos.lmdb"},
    }[data_set]
    if data_set == "msrvtt":
        own |= {"features_path": "videos", "data_path": "MSRVTT_data.json"}
    if task == "mc":
        own |= {"val_csv": "mc_val.jsonl", "test_csv": "mc_test.jsonl"}
    own = {"data_path": "", **own}
    if task == "qa":
        suffix = "_qa.json" if data_set == "msvd" else ".jsonl"
        own |= {f"{data_set}_qa_{name}_json": f"qa/{name}{suffix}" for name in CLIPS}
        own |= {f"{data_set}_qa_anslabel_json": "qa/train_ans2label.json"}
    return [
        "--datatype",
        datatype,
        *rates,
        *(part for name, path in own.items() for part in (f"--{name}", root / path)),
    ]


def run(demo: Path, datatype: str, *more: str) -> tuple[int, list[dict[str, str]]]:
    """Exit status and the lines of the report."""
    report = demo.parent / "report.tsv"
    status = check_data.main([*map(str, flags(demo, datatype)), "--output", str(report), *more])
    lines = [line.split("\t") for line in report.read_text(encoding="utf-8").splitlines()]
    assert tuple(lines[0]) == COLUMNS
    return status, [dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]]


def kinds(findings: list[dict[str, str]]) -> set[tuple[str, str]]:
    """Kind and id of each finding; none may be there twice."""
    found = {(finding["kind"], finding["id"]) for finding in findings}
    assert len(found) == len(findings), findings
    return found


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file; it is not written over, since files of several data sets are links to one."""
    content = change(json.loads(path.read_bytes()))
    path.unlink()
    path.write_text(json.dumps(content), encoding="utf-8")


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "datatype",
    ["webvid", "lsmdc_retrieval", "didemo_retrieval", "msrvtt_mc", "msvd_caption", "msrvtt_qa", "msvd_qa"],
)
def test_a_sound_data_set_has_no_findings(rendered: Path, tmp_path: Path, datatype: str):
    report = tmp_path / "r.tsv"
    assert check_data.main([*map(str, flags(rendered, datatype)), "--output", str(report)]) == 0
    assert report.read_text() == "\t".join(COLUMNS) + "\n"


def test_a_table_of_ones_own_with_clips_in_folders(demo: Path, capsys: pytest.CaptureFixture[str]):
    own = make_own(demo / "msrvtt", demo / "own")
    report = demo / "report.json"
    words = [
        "--datatype",
        "csv",
        "--data_csv",
        own.table(demo / "my.csv", "captions"),
        "--features_path",
        str(own.clips),
    ]
    words += ["--object_path", str(own.objects), "--labelmap_path", str(demo / "label_map.json"), "--workers", "1"]
    words += ["--feature_framerate", "4", "--max_frames", str(FRAMES), "--need_object", "--json", str(report)]
    words += ["--output", str(demo / "report.tsv")]
    assert check_data.main(words) == 0 and json.loads(report.read_bytes())["findings"] == []
    assert "csv: videos listed: train 80, val 8, test 12; 100 video and 100 object files" in capsys.readouterr().out
    (own.clips / "test/video7011.mp4").rename(own.clips / "video7011.mp4")  # found by its path only
    (own.objects / "test/video7012.json").rename(own.objects / "video7012.json")  # found by its name too
    (own.objects / "test/video7013.json").unlink()
    assert check_data.main(words) == 1
    found = {(finding["kind"], finding["id"]) for finding in json.loads(report.read_bytes())["findings"]}
    assert found == {
        ("missing_video", "test/video7011"),
        ("unreferenced_video", "video7011"),
        ("missing_objects", "test/video7013"),
    }
    own.rows["captions"]["test"][3]["video"] = "../video7011"
    own.table(demo / "my.csv", "captions")
    assert check_data.main(words) == 2
    [stop] = [line for line in (demo / "report.tsv").read_text().splitlines() if line.startswith("stop")]
    assert "my.csv, line " in stop and "leads out of the folder of the videos" in stop


def test_planted_faults_among_100_clips_and_nothing_else(demo: Path, capsys: pytest.CaptureFixture[str]):
    root = demo / "msrvtt"
    assert run(demo, "msrvtt_retrieval") == (0, [])
    assert "train 80, val 8, test 12; 100 video and 100 object files read" in capsys.readouterr().out
    expected = set()

    def plant(kind: str, video_id: str) -> Path:
        expected.add((kind, video_id))
        return root / "videos" / f"{video_id}.mp4"

    plant("missing_video", "video1").unlink()
    halve(plant("truncated_video", "video2"))
    empty = plant("empty_video", "video7011")
    empty.unlink()
    empty.write_bytes(b"")
    text = plant("unreadable_video", "video6513")
    text.unlink()
    text.write_bytes(b"not a video" * 1000)
    plant("short_video", "video3").unlink()
    write_video(root / "videos" / "video3.mp4", 6, fps=4, size=(64, 48))
    write_video(plant("unreferenced_video", "video99"), 12, fps=4)

    def plant_objects(kind: str, video_id: str, change: Callable[[Any], Any]) -> None:
        plant(kind, video_id)
        rewrite(root / "objects" / f"{video_id}.json", change)

    box = {"class": "circle", "conf": 0.9}

    def add(**fields: Any) -> Callable[[Any], Any]:
        return lambda frames: [{"objects": [*frames[0]["objects"], {**box, **fields}]}, *frames[1:]]

    plant_objects("wrong_frame_count", "video4", lambda frames: frames[1:])
    plant_objects("unknown_class", "video5", add(**{"class": "unicorn", "rect": [1, 1, 9, 9]}))
    plant_objects("degenerate_box", "video6", add(rect=[5, 5, 5, 9]))
    plant_objects("outside_box", "video7", add(rect=[500, 5, 600, 9]))
    plant_objects("clipped_box", "video8", add(rect=[5, 5, 600, 9]))
    plant_objects("malformed_object", "video9", add(rect=[1, 2]))
    plant_objects("no_objects", "video10", lambda frames: [{"objects": []} for _ in frames])
    plant("missing_objects", "video11")
    (root / "objects" / "video11.json").rename(root / "objects" / "stray.json")
    plant("orphan_objects", "stray")
    halve(root / "objects" / "video12.json")
    plant("broken_objects", "video12")

    train, test = (list(csv.reader((root / name).open())) for name in ("train.csv", "test.csv"))
    plant("repeated_id", "video13")
    plant("no_caption", "video900")
    plant("in_two_splits", "video14")
    train_ids = [row[train[0].index("video_id")] for row in train[1:]] + ["video13", "video900"]
    (root / "train.csv").write_text("\n".join(["video_id", *train_ids]) + "\n")
    place = test[0].index("video_id")
    plant("repeated_row", test[1][place])
    twin = [*test[1]]
    twin[place] = "video14"
    with (root / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*test, test[1], twin])
    plant("empty_caption", "video15")
    plant("unlisted_captions", "")

    def spoil(content: Any) -> Any:
        emptied = next(entry for entry in content["sentences"] if entry["video_id"] == "video15")
        emptied["caption"] = " "
        content["sentences"] += [{"video_id": "video5000", "caption": text} for text in ("a dog", "a cat")]
        return content

    rewrite(root / "MSRVTT_data.json", spoil)
    status, findings = run(demo, "msrvtt_retrieval", "--json", str(demo.parent / "r.json"))
    assert kinds(findings) == expected
    assert status == 1
    details = {finding["kind"]: finding for finding in findings}
    assert details["unlisted_captions"]["detail"] == "2 captions of 1 videos: video5000"
    assert details["unreferenced_video"]["file"] == str(root / "videos" / "video99.mp4")
    assert "'unicorn'" in details["unknown_class"]["detail"]
    assert [finding["severity"] for finding in findings] == [KINDS[finding["kind"]][0] for finding in findings]
    saved = json.loads((demo.parent / "r.json").read_bytes())
    assert saved["status"] == 1 and saved["findings"] == findings
    assert saved["counts"] == {kind: 1 for kind, _ in expected}
    assert "1  unknown_class" in capsys.readouterr().out


def test_notes_alone_let_training_start(demo: Path):
    objects = demo / "lsmdc" / "objects"
    shutil.copy(next(objects.glob("*.json")), objects / "stray.json")
    status, findings = run(demo, "lsmdc_retrieval", "--min_candidates", "20")
    assert status == 0
    short = [finding for finding in findings if finding["kind"] == "short_video"]
    assert len(short) == 32 and len(findings) == 33
    assert run(demo, "lsmdc_retrieval", "--min_candidates", "12")[1] == [
        {
            "severity": "note",
            "kind": "orphan_objects",
            "id": "stray",
            "file": str(objects / "stray.json"),
            "detail": "",
        }
    ]


def test_rows_of_webvid(demo: Path):
    table = demo / "webvid" / "results_demo_train.csv"
    rows = list(csv.reader(table.open()))
    gone = rows[3][0]
    next(demo.glob(f"webvid/videos/*/{gone}.mp4")).unlink()
    (demo / "webvid" / "objects" / f"{rows[4][0]}.json").unlink()
    with table.open("a", newline="") as file:
        csv.writer(file).writerows([rows[1], ["7", " ", *rows[1][2:]], ["", "a dog", *rows[1][2:]]])
    status, findings = run(demo, "webvid")
    assert status == 1
    assert kinds(findings) == {
        ("missing_video", gone),
        ("missing_objects", rows[4][0]),
        ("repeated_id", rows[1][0]),
        ("empty_caption", "7"),
        ("bad_id", ""),
    }


def test_avis_and_lists_of_msvd(demo: Path):
    root = demo / "msvd"
    ids = (root / "train_list.txt").read_text().split()
    video = root / "YouTubeClips" / f"{ids[0]}.avi"
    video.unlink()
    write_noise(video, "MJPG", 12, fps=4)
    halve(video)
    with (root / "train_list.txt").open("a") as file:
        file.write(f"{ids[1]}\nunknown\n")
    captions = {
        key: [text.split() for text in texts] for key, texts in read_captions(root / "raw-captions.pkl").items()
    }
    captions[ids[2]].append([])
    (root / "raw-captions.pkl").write_bytes(pickle.dumps(captions))
    status, findings = run(demo, "msvd_caption")
    assert status == 1
    assert kinds(findings) == {
        ("truncated_video", ids[0]),
        ("short_video", ids[0]),
        ("repeated_id", ids[1]),
        ("no_caption", "unknown"),
        ("empty_caption", ids[2]),
    }
    detail = next(finding["detail"] for finding in findings if finding["kind"] == "truncated_video")
    assert " of 12 frames decode; the file has " in detail


def test_an_lmdb_of_videos(demo: Path):
    names = (demo / "didemo" / "train_list.txt").read_text().split()
    ids = [name.split(".")[0] for name in names]
    descriptions = demo / "didemo" / "train_data.json"
    rewrite(descriptions, lambda entries: [*entries, {**entries[0], "video": names[3], "description": ""}])
    with lmdb.open(str(demo / "didemo/videos.lmdb"), map_size=1 << 26) as files, files.begin(write=True) as writing:
        writing.delete(ids[0].encode())
        writing.put(ids[1].encode(), b"")
        writing.put(ids[2].encode(), writing.get(ids[2].encode())[:-2000])
        writing.put(b"other", b"x")
    status, findings = run(demo, "didemo_retrieval")
    assert status == 1
    assert kinds(findings) == {
        ("missing_video", ids[0]),
        ("empty_video", ids[1]),
        ("truncated_video", ids[2]),
        ("empty_caption", ids[3]),
        ("unreferenced_video", "other"),
    }
    damaged = next(finding for finding in findings if finding["kind"] == "truncated_video")
    assert damaged["file"].endswith(f"videos.lmdb, key '{ids[2]}'") and "/video-" not in damaged["detail"]


def test_questions_and_options_without_text(demo: Path):
    path = demo / "msrvtt" / "qa" / "test.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2]["answer"] = ""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert kinds(run(demo, "msrvtt_qa")[1]) == {("empty_question", lines[2]["video_id"])}
    path = demo / "msrvtt" / "mc_val.jsonl"
    items = [json.loads(line) for line in path.read_text().splitlines()]
    items[1]["options"][0] = " "
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    found = kinds(run(demo, "msrvtt_mc")[1])
    assert found == {("empty_question", items[1].get("clip_name") or items[1]["video_id"])}


@pytest.mark.parametrize("datatype", ["lsmdc_retrieval", "didemo_retrieval"])
def test_what_a_frame_cache_has(rendered: Path, tmp_path: Path, datatype: str, capsys: pytest.CaptureFixture[str]):
    """Of videos in files and in an LMDB, filled as the command does with the same flags."""
    folder, command = tmp_path / "cache", [*map(str, flags(rendered, datatype)), "--output", str(tmp_path / "r.tsv")]
    command += ["--frame_cache", str(folder), "--resolution", "32"]
    assert check_data.main(command) == 0 and not folder.exists()
    end = DIDEMO_SECONDS if datatype.startswith("didemo") else None
    settings = SampleSettings(32, FRAMES, frames=FrameSettings(feature_framerate=4.0, end_seconds=end))
    cache, tasks = FrameCache(folder), list_tasks([command[command.index("--features_path") + 1]])
    kind = f"frame cache {folder} (raw, {FRAMES} frames of 32 pixels)"
    assert f"{kind}: 0 of {len(tasks)} videos are there, 0 are remembered" in capsys.readouterr().out
    cache.put_unreadable(tasks[0].key(settings), "of an old decoder")
    assert {Filler(cache, settings)(task).state for task in tasks[2:]} == {STORED}
    (folder / "other.index").write_text("damaged\n")
    status = check_data.main(command)
    printed = capsys.readouterr().out
    assert f"{kind}: {len(tasks) - 2} of {len(tasks)} videos are there, 1 are remembered as unreadable; " in printed
    assert status == 1 and "1  wrongly_unreadable" in printed and "of an old decoder" in printed
    assert "1  damaged_cache" in printed and "other.index" in printed
    assert check_data.main([*command, "--frame_cache", str(tmp_path / "r.tsv")]) == 2
    assert "not a folder that can be used" in capsys.readouterr().out


@pytest.mark.slow
def test_what_keeps_training_from_starting(demo: Path, capsys: pytest.CaptureFixture[str]):
    root = demo / "lsmdc"
    assert run(demo, "lsmdc_retrieval", "--features_path", str(demo / "nowhere"))[0] == 2
    status, findings = run(demo, "lsmdc_retrieval", "--labelmap_path", str(demo / "none.json"))
    assert status == 2 and [finding["kind"] for finding in findings] == ["cannot_start"]
    status, findings = run(demo, "lsmdc_retrieval", "--rect_order", "xxyy")
    stops = [finding["detail"] for finding in findings if finding["severity"] == "stop"]
    assert status == 2 and len(stops) == 1 and stops[0].startswith("--rect_order xxyy does not fit ")
    (root / "LSMDC16_annos_val.csv").write_text("not a table\n")
    status, findings = run(demo, "lsmdc_retrieval", "--splits", "train,val")
    assert status == 2
    assert "LSMDC16_annos_val.csv, line 1" in findings[0]["detail"]
    for path in root.glob("videos/**/*.avi"):
        path.unlink()
    status, findings = run(demo, "lsmdc_retrieval", "--splits", "test", "--object_path", str(root / "videos"))
    stops = [finding["detail"] for finding in findings if finding["severity"] == "stop"]
    assert status == 2 and len(stops) == 2
    assert any(stop.startswith("test: none of the 12 videos") for stop in stops)
    assert "training cannot start: " in capsys.readouterr().out


def test_healthy_and_damaged_real_files(shared: Path, tmp_path: Path):
    """No whole file is called truncated; one damaged inside is noted."""
    videos = shared / "realdata" / "odd_videos"
    rows = "".join(f"{path.stem},a,\n" for path in sorted(videos.glob("*.mp4")))
    (tmp_path / "a.csv").write_text("videoid,name,page_dir\n" + rows)
    report = tmp_path / "r.json"
    command = ["--datatype", "webvid", "--train_csv", str(tmp_path / "a.csv"), "--features_path", str(videos)]
    command += ["--max_frames", "1", "--output", str(tmp_path / "r.tsv"), "--json", str(report), "--workers", "1"]
    assert check_data.main(command) == 0
    findings = json.loads(report.read_bytes())["findings"]
    assert kinds([finding for finding in findings if finding["kind"] != "unreferenced_video"]) == {
        ("fewer_frames", "decord_corrupted")
    }


@pytest.mark.slow
def test_real_rows_of_webvid_have_only_what_is_known_of_them(shared: Path, tmp_path: Path):
    real, report = shared / "realdata", tmp_path / "r.json"
    command = ["--datatype", "webvid", "--train_csv", str(real / "webvid/results_2M_val.csv"), "--need_object"]
    command += ["--features_path", str(real / "webvid/videos"), "--object_path", str(real / "objects/webvid")]
    command += ["--labelmap_path", str(real / "vinvl/label_map.json"), "--output", str(tmp_path / "r.tsv")]
    assert check_data.main([*command, "--json", str(report), "--workers", "1"]) == 1
    found = sorted(finding["kind"] for finding in json.loads(report.read_bytes())["findings"])
    assert found == ["missing_objects"] * 4 + ["missing_video"] * 4 + ["short_video"]


def test_worker_processes_do_without_pytorch():
    """They import the file that was run, and what checks a clip or a record."""
    modules = "utils.check_data, utils.checks.clips, utils.checks.records"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
