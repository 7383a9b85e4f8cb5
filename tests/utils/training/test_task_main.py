"""The main function of every task: what is prepared when, and which errors are one message."""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist

from dataloaders import files
from dataloaders.files import file_lock
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.settings.arguments import Arguments
from utils.training import task_main
from utils.training.task_main import USER_ERRORS, run_task


class Toy:
    """A task that says what it does, and fails where it is told to."""

    fails_in: ClassVar[str] = ""
    error: ClassVar[BaseException] = ValueError()
    said: ClassVar[list[str]] = []

    def __init__(self, args: Arguments, runtime: Runtime, log: RunLog) -> None:
        assert runtime.is_main and log.folder == Path(args.output_dir) and not dist.is_initialized()
        self._do("prepare")

    def run(self) -> None:
        self._do("run")

    def _do(self, what: str) -> None:
        self.said.append(what)
        if self.fails_in == what:
            raise self.error


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "said", [])


def run(folder: Path, *argv: str) -> int:
    flags = ["--output_dir", str(folder), "--do_eval", "--device", "cpu", *argv]
    return run_task(Toy, Arguments, flags, "A toy.", {"lr": 0.5}, {"resume": True})


def log_handlers() -> list[logging.Handler]:
    return [*logging.getLogger("utils").handlers, *logging.getLogger("dataloaders").handlers]


def test_a_task_is_prepared_and_run_and_the_log_is_closed(tmp_path: Path):
    assert run(tmp_path) == 0
    assert Toy.said == ["prepare", "run"] and log_handlers() == []
    assert (tmp_path / "log.txt").read_text() == ""


def test_a_second_run_in_the_same_folder_is_refused_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(task_main, "WAIT_SECONDS", 0.0)
    with file_lock(tmp_path / ".lock"):
        assert run(tmp_path) == 1
    message = capsys.readouterr().err
    assert f"{tmp_path}: another run writes there" in message and f"process {os.getpid()} on " in message
    assert "name another --output_dir" in message
    assert Toy.said == [] and [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert run(tmp_path) == 0 and run(tmp_path) == 0, "the lock goes with its run"


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/.lock").symlink_to(tmp_path / "file")
    for folder in (tmp_path / "file", tmp_path / "file/below", tmp_path / "linked"):
        assert run(folder) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith(f"{folder}: cannot be written (")
        assert lines[0].endswith("name another --output_dir")
    assert Toy.said == []


def test_a_disk_without_locks_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    assert run(tmp_path) == 0 and Toy.said == ["prepare", "run"]
    text = (tmp_path / "log.txt").read_text()
    assert f"WARNING {tmp_path}: no locks on this disk (No locks available), so another run is not noticed" in text


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_holds_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int):
    monkeypatch.setattr(task_main, "WAIT_SECONDS", 0.0)
    runtime = Runtime(rank, 2, rank, torch.device("cpu"))
    args = Arguments(output_dir=str(tmp_path), do_eval=True)
    with file_lock(tmp_path / ".lock"):
        expected = pytest.raises(task_main.CannotUseFolder) if rank == 0 else contextlib.nullcontext()
        with expected, task_main._own_folder(args, runtime):
            pass


def _run_until_killed(folder: str, started: Any) -> None:
    class Endless(Toy):
        def run(self) -> None:
            started.set()
            signal.pause()

    run_task(Endless, Arguments, ["--output_dir", folder, "--do_eval", "--device", "cpu"], "A toy.")


def test_the_folder_of_a_killed_run_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_main, "WAIT_SECONDS", 0.0)
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_run_until_killed, args=(str(tmp_path), started))
    process.start()
    try:
        assert started.wait(120) and run(tmp_path) == 1 and Toy.said == []
    finally:
        process.kill()
        process.join()
    assert run(tmp_path) == 0 and Toy.said == ["prepare", "run"]


def test_flags_without_effect_are_noted_in_the_log(tmp_path: Path):
    assert run(tmp_path, "--resume", "x", "--fp16") == 0
    text = (tmp_path / "log.txt").read_text()
    assert "WARNING --fp16 has no effect" in text and "WARNING --resume has no effect" in text


@pytest.mark.parametrize("place", ["prepare", "run"])
@pytest.mark.parametrize("kind", USER_ERRORS)
def test_what_a_user_can_mend_is_one_line_and_exit_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], place: str
):
    monkeypatch.setattr(Toy, "fails_in", place)
    monkeypatch.setattr(Toy, "error", kind("clip7.mp4: mend it"))
    assert run(tmp_path) == 1
    assert Toy.said == (["prepare"] if place == "prepare" else ["prepare", "run"])
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 1 and lines[0].endswith("ERROR clip7.mp4: mend it") and log_handlers() == []


def test_other_errors_are_no_message_but_come_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Toy, "fails_in", "run")
    monkeypatch.setattr(Toy, "error", ZeroDivisionError("a mistake of ours"))
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        run(tmp_path)
    assert log_handlers() == [] and (tmp_path / "log.txt").read_text() == ""


def test_wrong_flags_end_it_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "out", "--learning_rate", "1")
    assert caught.value.code == 2 and "unknown flag --learning_rate" in capsys.readouterr().err
    assert Toy.said == [] and not (tmp_path / "out").exists()
