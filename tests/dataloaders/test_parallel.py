"""The ordered map over processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataloaders.parallel import chunked, ordered_map
from tests.campaigns.kill_processes import Start, await_none, kill_marked
from tests.world import ROOT

_offset = 0


def _start(offset: int) -> None:
    global _offset
    _offset = offset


def _add(value: int) -> tuple[int, int]:
    if value == 1000:
        raise ValueError("bad item")
    return value + _offset, os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_items_are_read_as_needed(workers: int) -> None:
    read = []

    def items() -> Iterator[int]:
        for value in range(12):
            read.append(value)
            yield value

    results = ordered_map(_add, items(), workers, _start, (100,))
    assert next(results)[0] == 100
    assert len(read) <= 2 * workers
    rest = list(results)
    assert [value for value, _ in rest] == list(range(101, 112))
    assert (os.getpid() in {process for _, process in rest}) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_worker_is_raised_here(workers: int) -> None:
    with pytest.raises(ValueError, match="bad item"):
        list(ordered_map(_add, [1, 1000, 2], workers, _start, (0,)))


def test_workers_end_when_their_caller_is_killed(tmp_path: Path) -> None:
    code = f"""
from dataloaders.parallel import ordered_map
if __name__ == "__main__":
    results = ordered_map(abs, range(1000), 2, print, ())
    next(results)
    open({str(tmp_path / "begun")!r}, "w").close()
    import signal
    signal.pause()
"""
    (tmp_path / "run.py").write_text(code)
    start = Start(
        [sys.executable, str(tmp_path / "run.py")], f"{tmp_path}:", tmp_path / "log", {"PYTHONPATH": str(ROOT)}
    )
    while not (tmp_path / "begun").exists():
        assert not start.has_ended, start.log.read_text()
    assert start.kill_launcher()
    left = await_none(start.mark, 60)
    kill_marked(start.mark)
    assert left == []


def test_chunks() -> None:
    assert list(chunked(range(5), 2)) == [[0, 1], [2, 3], [4]]
