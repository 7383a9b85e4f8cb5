"""Worker processes that outlive crashes: a decoder that brings its process down costs one video, not the run.

`dataloaders.parallel.ordered_map` is simpler, and right where a dying worker should stop everything.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

ATTEMPTS = 2
LOOKAHEAD = 4


class CannotStart(Exception):
    """A worker process ends before it can take a task: something is wrong with the installation, not with a task."""


@dataclass(frozen=True)
class WorkerDied:
    """Stands in for the result of a task whose process died each time it was tried."""

    reason: str


@dataclass
class _Job(Generic[Task, Result]):
    task: Task
    deaths: int = 0
    result: Result | WorkerDied | None = None
    is_done: bool = False


@dataclass
class _Worker(Generic[Task, Result]):
    process: BaseProcess
    connection: Connection
    job: _Job[Task, Result] | None = None


class WorkerPool(Generic[Task, Result]):
    """Spawned processes that apply one function to tasks; use it as a context manager.

    Args:
        function: picklable. An exception that it raises ends its process like a crash: return expected failures.
        count: number of processes.

    Raises:
        CannotStart: a process dies before it can take its first task.
    """

    def __init__(self, function: Callable[[Task], Result], count: int) -> None:
        self._function = function
        # Spawned: the parent holds TensorFlow, whose threads do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker[Task, Result]] = []
        try:
            self._workers.extend(self._start() for _ in range(count))
            for worker in self._workers:
                self._await_ready(worker)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> WorkerPool[Task, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, in the middle of their work if need be."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()

    def map(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Result | WorkerDied]]:
        """Yield (task, result) in the order of the tasks, of which only a few per process are taken ahead.

        A task whose process dies is tried once more in a fresh one.
        """
        queue = iter(tasks)
        jobs: deque[_Job[Task, Result]] = deque()
        is_exhausted = False
        while True:
            idle = [worker for worker in self._workers if worker.job is None]
            while idle and not is_exhausted and len(jobs) < LOOKAHEAD * len(self._workers):
                try:
                    job: _Job[Task, Result] = _Job(next(queue))
                except StopIteration:
                    is_exhausted = True
                    break
                jobs.append(job)
                self._give(idle.pop(), job)
            while jobs and jobs[0].is_done:
                done = jobs.popleft()
                assert done.result is not None
                yield done.task, done.result
            if not jobs and is_exhausted:
                return
            if jobs:
                self._collect()

    def _collect(self) -> None:
        """Wait until at least one process has finished its task or died, and take note of it."""
        ready = wait([worker.connection for worker in self._workers if worker.job])
        for position, worker in enumerate(self._workers):
            if worker.connection not in ready or worker.job is None:
                continue
            job = worker.job
            try:
                job.result = worker.connection.recv()
                job.is_done = True
                worker.job = None
            except (EOFError, ConnectionResetError):
                self._replace(position, job)

    def _replace(self, position: int, job: _Job[Task, Result]) -> None:
        reason = self._bury(self._workers[position])
        self._workers[position] = self._start()
        self._await_ready(self._workers[position])
        job.deaths += 1
        if job.deaths < ATTEMPTS:
            self._give(self._workers[position], job)
        else:
            job.result = WorkerDied(f"the decoding process died {job.deaths} times ({reason})")
            job.is_done = True

    def _give(self, worker: _Worker[Task, Result], job: _Job[Task, Result]) -> None:
        worker.job = job
        try:
            worker.connection.send(job.task)
        except (BrokenPipeError, ConnectionResetError):
            # It died while idle; reading from it gives the end of the file, which `_collect` deals with.
            return

    def _start(self) -> _Worker[Task, Result]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._function), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _await_ready(self, worker: _Worker[Task, Result]) -> None:
        try:
            worker.connection.recv()
        except (EOFError, ConnectionResetError):
            raise CannotStart(f"a worker process cannot start ({self._bury(worker)})") from None

    @staticmethod
    def _bury(worker: _Worker[Task, Result]) -> str:
        """Release a dead process and say how it ended."""
        worker.connection.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _serve(connection: Connection, function: Callable[[Task], Result]) -> None:
    """Answer tasks until the other end is closed, which it also is when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    try:
        connection.send(None)
        while True:
            connection.send(function(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
