"""Runs readers on their mutants in worker processes, which are made anew when an input ends them."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

from tests.campaigns.fuzzing.reader import FAULTS, Kind, Outcome, Reader
from tests.campaigns.fuzzing.worker import keep_input, kept_path, serve

PART = 1000  # inputs that a worker gets at once
ALIKE, MAX_ALIKE = 24, 2  # first characters by which faults are alike, and how many of those are told and kept
WAITING = 12  # times a reader's seconds that an answer may take where it is not computing


@dataclass
class Result:
    """What came of a reader's inputs, and the first faults of those that are alike."""

    reader: str
    counts: Counter[Kind] = field(default_factory=Counter)
    faults: list[tuple[int, Outcome]] = field(default_factory=list)
    alike: Counter[tuple[Kind, str]] = field(default_factory=Counter)

    @property
    def has_faults(self) -> bool:
        """Whether any input led to what must not be."""
        return any(self.counts[kind] for kind in FAULTS)


@dataclass
class _Worker:
    process: Any
    connection: Connection
    folder: Path
    reader: str = ""
    left: deque[int] = field(default_factory=deque)
    since: float = 0


class Campaign:
    """Readers on their mutants.

    Args:
        readers: by name.
        seed: of the mutants; the same seed gives the same ones.
        workers: processes.
        keep: folder that gets the inputs that led to faults; None: none is kept.
        tell: told of each fault.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        seed: int = 0,
        workers: int = 1,
        keep: Path | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.readers = {reader.name: reader for reader in readers}
        self.seed, self.workers, self.keep, self.tell = seed, workers, keep, tell
        self.results = {name: Result(name) for name in self.readers}

    def run(self, inputs: int | None = None, first: int = 0, one_in: int = 1) -> list[Result]:
        """Read `inputs` mutants with each reader, by default as many as it says over `one_in`, from `first` on."""
        jobs = deque(
            (reader.name, range(start, min(start + PART, first + count)))
            for reader in self.readers.values()
            for count in [inputs or reader.inputs // one_in]
            for start in range(first, first + count, PART)
        )
        self._scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
        busy: list[_Worker] = []
        try:
            idle = [self._start() for _ in range(min(self.workers, len(jobs)))]
            while jobs or busy:
                while jobs and idle:
                    busy.append(self._give(idle.pop(), *jobs.popleft()))
                ready = wait([worker.connection for worker in busy], timeout=1)
                for worker in list(busy):
                    if worker.connection in ready or monotonic() - worker.since > self._patience(worker):
                        busy.remove(worker)
                        worker = self._answer(worker, worker.connection in ready)
                        (busy if worker.left else idle).append(worker)
        finally:
            for worker in [*busy, *idle]:
                self._stop(worker)
            shutil.rmtree(self._scratch, ignore_errors=True)
        return list(self.results.values())

    def _patience(self, worker: _Worker) -> float:
        return WAITING * self.readers[worker.reader].seconds

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("fork")  # what the readers import is there already
        ours, theirs = context.Pipe()
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        process = context.Process(target=serve, args=(theirs, self.readers, folder), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, folder)

    def _give(self, worker: _Worker, reader: str, numbers: Sequence[int]) -> _Worker:
        worker.reader, worker.left, worker.since = reader, deque(numbers), monotonic()
        worker.connection.send((reader, self.seed, list(numbers)))
        return worker

    def _answer(self, worker: _Worker, is_ready: bool) -> _Worker:
        """Take a worker's answer, or its end; returns the worker that goes on with what is left."""
        goes_on = False
        if is_ready:
            try:
                answer = worker.connection.recv()
                if isinstance(answer, str):
                    raise RuntimeError(answer)
                outcome, goes_on = answer
            except (EOFError, ConnectionError):
                worker.process.join()
                outcome = _of_exit(worker.process.exitcode)
        else:
            outcome = Outcome(Kind.HANG, "no answer, and no computing either")
        self._note(worker.reader, worker.left.popleft(), outcome)
        worker.since = monotonic()
        if goes_on:
            return worker
        self._stop(worker)
        again = self._start()
        return self._give(again, worker.reader, worker.left) if worker.left else again

    def _stop(self, worker: _Worker) -> None:
        if worker.process.is_alive():
            worker.process.kill()
        worker.process.join()
        worker.connection.close()
        shutil.rmtree(worker.folder, ignore_errors=True)

    def _note(self, reader: str, number: int, outcome: Outcome) -> None:
        result = self.results[reader]
        result.counts[outcome.kind] += 1
        if outcome.kind not in FAULTS:
            return
        alike = (outcome.kind, outcome.detail[:ALIKE])
        result.alike[alike] += 1
        if result.alike[alike] > MAX_ALIKE:
            return
        result.faults.append((number, outcome))
        place = f", kept as {self._kept(reader, number)}" if self.keep else ""
        self.tell(f"{reader}, seed {self.seed}, input {number}: {outcome.kind.value}: {outcome.detail}{place}")

    def _kept(self, reader: str, number: int) -> Path:
        """Keep an input; in a process of its own, as this one is to stay as it is: workers are made of it."""
        assert self.keep is not None
        context = multiprocessing.get_context("fork")
        scratch = Path(tempfile.mkdtemp(dir=self._scratch))
        process = context.Process(
            target=keep_input, args=(self.readers[reader], self.seed, number, scratch, self.keep), daemon=True
        )
        process.start()
        process.join()
        return kept_path(self.keep, reader, self.seed, number)


def _of_exit(status: int | None) -> Outcome:
    """What it means that a worker ended."""
    if status == -signal.SIGPROF:
        return Outcome(Kind.HANG, "its time of computing is over")
    if status is not None and status < 0:
        return Outcome(Kind.FOREIGN, f"died by {signal.Signals(-status).name}")
    return Outcome(Kind.FOREIGN, f"the process ended with status {status}")
