"""Worker processes that survive crashes. Each starts in well under a second."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.preparation.video_workers import LOOKAHEAD, CannotStart, WorkerDied, WorkerPool


def behave(task: tuple[str, str]) -> str:
    """Do what a task says; some of it does not end well."""
    kind, text = task
    if kind == "crash" or (kind == "crash once" and not Path(text).exists()):
        Path(text).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "raise":
        raise ValueError(text)
    if kind == "pid":
        return str(os.getpid())
    return text


class CannotBeUnpickled:
    """A function that no worker can load."""

    def __call__(self, task: str) -> str:
        return task

    def __reduce__(self) -> tuple:
        return os._exit, (3,)


def test_results_come_in_order_whatever_dies(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    tasks = [("say", str(number)) for number in range(20)]
    tasks[3] = ("crash", str(tmp_path / "always"))
    tasks[8] = ("crash once", str(tmp_path / "once"))
    tasks[19] = ("raise", "unexpected")
    with WorkerPool(behave, 2) as pool:
        results = list(pool.map(tasks))
    assert [task for task, _ in results] == tasks
    answers = [result for _, result in results]
    assert answers[3] == WorkerDied("the decoding process died 2 times (SIGSEGV)")
    assert answers[8] == str(tmp_path / "once")
    assert answers[19] == WorkerDied("the decoding process died 2 times (exit status 1)")
    assert answers[4:8] == ["4", "5", "6", "7"]
    assert "ValueError: unexpected" in capfd.readouterr().err


def test_tasks_are_taken_a_few_ahead_only_and_no_process_is_left():
    taken = 0

    def tasks() -> Iterator[tuple[str, str]]:
        nonlocal taken
        while True:
            taken += 1
            yield "pid", ""

    with WorkerPool(behave, 2) as pool:
        results = pool.map(tasks())
        pids = {int(str(next(results)[1])) for _ in range(30)}
        assert taken <= 30 + 2 * LOOKAHEAD + 1
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_that_cannot_start_are_an_error_not_a_loop():
    with pytest.raises(CannotStart, match="exit status 3"):
        WorkerPool(CannotBeUnpickled(), 2)
