"""The scripts from any folder: relative paths that are given mean that folder, defaults the repository."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from utils.export_model import parse_arguments
from utils.report.summary import ALIGNMENT_FILE

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
TASK_SCRIPTS = sorted(path.name for path in SCRIPTS.glob("*_*.sh") if path.name != "fine_tune.sh")
PATHS = (
    "DATA_PATH", "OUTPUT_DIR", "MODEL_PATH", "CLIP_ARCHIVE", "LABEL_MAP", "SHARDS", "OBJECT_PATH", "VIDEOS", "CAPTIONS",
    "ANNOTATIONS", "QUESTIONS", "TRAIN_CSV", "VAL_CSV", "TEST_CSV",
)  # fmt: skip
FAKE = """#!/bin/sh
printf '%s\\n' "in $PWD" "safe ${PYTHONSAFEPATH:-0}" "$@"
"""


@pytest.fixture
def caller(tmp_path: Path) -> Path:
    """A folder to call from, in which `python` says how it is called."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    for place in (folder / "python", folder / "venv/bin/python"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(FAKE)
        place.chmod(0o755)
    return folder


def said(caller: Path, script: str, *arguments: str, **environment: str) -> list[str]:
    """What `python` says when a script is called by its relative path."""
    own = {name: value for name, value in os.environ.items() if name not in (*PATHS, "MASTER_PORT", "NPROC", "VENV")}
    done = subprocess.run(
        ["bash", os.path.relpath(SCRIPTS / script, caller), *arguments],
        cwd=caller,
        env={**own, "PYTHON": "./python", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def installed(caller: Path, requirements: str) -> None:
    """Let the environment of scripts/environment.sh be complete."""
    parts = [(ROOT / name).read_text() for name in ("requirements.txt", "requirements-optional.txt", requirements)]
    (caller / "venv" / f".installed-{Path(requirements).stem}").write_text("".join(parts))


def test_there_is_a_script_for_each_task_and_data_set():
    assert len(TASK_SCRIPTS) == 10


@pytest.mark.parametrize("script", TASK_SCRIPTS)
def test_defaults_lie_in_the_repository(caller: Path, script: str):
    lines = said(caller, script)
    assert lines[:3] == [f"in {caller}", "safe 1", "-m"]
    paths = [line for line in lines[3:] if "/" in line]
    assert len(paths) >= 6 and all(Path(path).is_relative_to(ROOT) for path in paths)
    assert lines[lines.index("--output_dir") + 1] == str(ROOT / "output" / script.removesuffix(".sh"))
    assert any(Path(path).parent == ROOT / "tasks" and Path(path).is_file() for path in paths)


@pytest.mark.parametrize("script", TASK_SCRIPTS)
def test_paths_that_are_given_are_the_callers(caller: Path, script: str):
    given = {name: f"mine/{name.lower()}" for name in PATHS}
    lines = said(caller, script, "--config", "my/config.json", **given)
    paths = [line for line in lines[3:] if "/" in line]
    [task] = [path for path in paths if os.path.isabs(path)]
    assert Path(task).parent == ROOT / "tasks"
    assert all(path.startswith(("mine/", "my/")) for path in paths if path != task)
    assert lines[0] == f"in {caller}" and lines[-2:] == ["--config", "my/config.json"]
    for flag, name in (
        ("--output_dir", "OUTPUT_DIR"),
        ("--clip_archive", "CLIP_ARCHIVE"),
        ("--init_model", "MODEL_PATH"),
    ):
        assert lines[lines.index(flag) + 1] == given[name]


@pytest.mark.parametrize("script", ["pretrain_webvid.sh", "qa_msvd.sh"])
def test_the_port_is_a_free_one_unless_it_is_given(caller: Path, script: str):
    free = said(caller, script)
    assert "--standalone" in free and "--master_port" not in free and free[free.index("--nproc_per_node") + 1] == "1"
    given = said(caller, script, MASTER_PORT="29777", NPROC="3")
    assert "--standalone" not in given and given[given.index("--master_port") + 1] == "29777"
    assert given[given.index("--nproc_per_node") + 1] == "3"


def test_tests_are_looked_for_where_the_script_is_called_then_in_the_repository(caller: Path):
    installed(caller, "requirements-dev.txt")
    (caller / "test_own.py").touch()
    words = ["-k", "some words", "test_own.py::test_a", "tests/modules"]
    lines = said(caller, "test.sh", *words, VENV="venv")
    expected = ["-m", "pytest", "-k", "some words", f"{caller}/test_own.py::test_a", "tests/modules"]
    assert lines[-6:] == expected and f"in {caller}" not in lines and f"in {ROOT}" in lines
    assert said(caller, "test.sh", VENV="venv")[-2:] == ["-m", "pytest"]


def test_a_benchmark_reads_what_lies_where_it_is_called(caller: Path):
    installed(caller, "requirements.txt")
    lines = said(caller, "benchmark.sh", "data", "--videos", "clips", VENV="venv")
    assert lines[-6:] == [f"in {caller}", "safe 1", "-m", "tests.benchmark.data", "--videos", "clips"]


@pytest.mark.parametrize("given", ["mine", ""])
def test_the_quickstart_writes_where_it_is_called_if_a_folder_is_given(
    caller: Path, given: str, monkeypatch: pytest.MonkeyPatch
):
    installed(caller, "requirements.txt")
    (caller / "venv/bin/python").write_text(FAKE + 'case "$*" in *make_demo_data*) kill $PPID ;; esac\n')
    copied = caller.parent / "repository"  # its own output is not to be touched
    (copied / "scripts").mkdir(parents=True)
    for name in ("quickstart.sh", "environment.sh", "demo.sh"):
        (copied / "scripts" / name).write_text((SCRIPTS / name).read_text())
    for name in ("requirements.txt", "requirements-optional.txt"):
        (copied / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(f"{__name__}.SCRIPTS", copied / "scripts")
    own = {"OUTPUT_DIR": given} if given else {}
    with pytest.raises(AssertionError):  # it is ended at its first stage
        said(caller, "quickstart.sh", "--smoke", VENV="venv", NPROC="1", **own)
    place = caller / "mine" if given else copied / "output/quickstart-smoke"
    assert (place / "seconds.tsv").is_file() and not (caller / "output").exists()


@pytest.mark.parametrize("arguments", [[], ["--smoke"]])
def test_the_quickstart_measures_alignment_and_ends_with_the_export_of_a_trained_model(
    caller: Path, arguments: list[str]
):
    installed(caller, "requirements.txt")
    output = caller / "my output"
    clips = output / "demo/msrvtt"  # what the last stages read
    clips.mkdir(parents=True)
    (clips / "test.csv").write_text("key,vid_key,video_id,sentence\nret0,msr1,video1,a thing\n")
    lines = said(caller, "quickstart.sh", *arguments, VENV="venv", NPROC="1", OUTPUT_DIR="my output")
    command = shlex.split(lines[-1])
    assert command[:2] == [str(caller / "venv/bin/python"), str(ROOT / "utils/export_model.py")]
    measured = lines.index("utils/score_alignment.py")
    clips = "20" if arguments else "500"
    assert lines[measured + 1 : measured + 8] == [
        str(output / "pretrain/restore.bin"), "--data", str(output / "queries/msrvtt"), "--clips", clips,
        "--output", str(output / ALIGNMENT_FILE),
    ]  # fmt: skip
    assert lines.index("utils/summarise_quickstart.py") > measured
    args = parse_arguments(command[2:])
    trained = [lines[index + 1] for index, line in enumerate(lines) if line == "--output_dir"]
    assert str(args.source) in trained and args.source == output / "captioning"
    assert args.out == output / "exported/captioning" and str(args.out) not in trained


def test_the_quickstart_trains_with_another_seed_in_a_folder_of_its_own_and_scores_more_clips(caller: Path):
    installed(caller, "requirements.txt")
    clips = caller / "out/demo/msrvtt"
    clips.mkdir(parents=True)
    (clips / "test.csv").write_text("key,vid_key,video_id,sentence\nret0,msr1,video1,a thing\n")
    lines = said(caller, "quickstart.sh", "--score_many", VENV="venv", NPROC="1", OUTPUT_DIR="out", SEED="71")
    assert lines.count("--seed") == lines.count("71") == 11
    folders = {lines[index + 1] for index, line in enumerate(lines) if line == "--output_dir"}
    many = {
        str(caller / "out/queries" / name) for name in ("pretrain", "retrieval", "captioning", "question_answering")
    }
    assert many <= folders
    plain = said(caller, "quickstart.sh", VENV="venv", NPROC="1", OUTPUT_DIR="out")
    assert many.isdisjoint(plain) and plain.count("--seed") == 1  # of the random CLIP weights


def test_a_folder_of_the_search_path_for_folders_is_not_taken_for_the_repository(caller: Path):
    (caller / "elsewhere/scripts").mkdir(parents=True)
    done = subprocess.run(
        ["bash", "scripts/qa_msvd.sh"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": str(caller / "python"), "CDPATH": str(caller / "elsewhere")},
        capture_output=True,
        text=True,
    )
    assert f"{ROOT}/tasks/eval_qa.py" in done.stdout.splitlines()
