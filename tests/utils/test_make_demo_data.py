"""The command that renders the demo world."""

from __future__ import annotations

from pathlib import Path

from tests.utils.demo.small_world import FLAGS, read_json, read_lines
from utils import make_demo_data


def test_files_do_not_depend_on_the_number_of_workers(demo_world: Path, tmp_path: Path):
    again = tmp_path / "again"
    assert make_demo_data.main(["--output_dir", str(again), "--workers", "2", *FLAGS]) == 0
    files = sorted(path.relative_to(demo_world) for path in demo_world.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((demo_world / path).read_bytes() == (again / path).read_bytes() for path in files)


def test_a_finished_world_is_kept_and_a_folder_of_something_else_refused(demo_world: Path, tmp_path: Path, capsys):
    assert make_demo_data.main(["--output_dir", str(demo_world), *FLAGS]) == 0
    assert "up to date" in capsys.readouterr().out
    (tmp_path / "thesis.txt").write_text("mine")
    assert make_demo_data.main(["--output_dir", str(tmp_path), *FLAGS]) == 1
    assert "not empty" in capsys.readouterr().err


def test_a_very_small_world_without_validation_and_with_two_data_sets_only(tmp_path):
    flags = ["--train_clips", "2", "--val_clips", "0", "--test_clips", "2", "--workers", "1"]
    flags += ["--msvd_clips", "0", "--lsmdc_clips", "0", "--didemo_clips", "0"]
    assert make_demo_data.main(["--output_dir", str(tmp_path / "tiny"), "--max_frames", "8", *flags]) == 0
    assert {path.name for path in (tmp_path / "tiny").iterdir() if path.is_dir()} == {"webvid", "msrvtt"}
    assert len(read_json(tmp_path / "tiny/msrvtt/objects/video7010.json")) == 8
    assert all(len(set(line["options"])) == 5 for line in read_lines(tmp_path / "tiny/msrvtt/mc_test.jsonl"))
