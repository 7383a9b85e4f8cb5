"""The process that reads mutants: one at a time, with limits of time and memory, and what came of each."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.campaigns.fuzzing.mutators import damaged, strange_text
from tests.campaigns.fuzzing.reader import Expected, Kind, Mutant, Outcome, Reader, Taken

SHOWN = 300  # characters of a message
ROOM = 1 << 30  # bytes of addresses beyond a reader's memory: allocators reserve more than they use
NO_MEMORY = ("allocate memory", "bad_alloc", "nsufficient memory", "not enough memory")


class Input(NamedTuple):
    """A mutant and the file of the reader's folder that it replaces."""

    file: str
    mutant: Mutant


class Folder:
    """A reader's sound files in a folder, and what is read of them."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        reader.make(folder)
        self.sound = {name: (folder / name).read_bytes() for name in reader.files}

    def read_sound(self) -> None:
        """Read the files as they are, which the outcomes of mutants are compared with."""
        with warnings_counted() as counted:
            self.taken = self.reader.read(self.folder)
        self.said = counted()

    def input(self, seed: int, number: int) -> Input:
        """Input `number` of a campaign, the same in every process."""
        draw = Random(f"{seed} {self.reader.name} {number}")
        file = draw.choice(sorted(self.sound))
        content, own = self.sound[file], self.reader.files[file]
        while True:
            change = draw.choice((*own, *own, *own, damaged, damaged, strange_text))
            try:
                return Input(file, change(content, draw))
            except (ValueError, IndexError, KeyError, TypeError, AttributeError):
                continue  # does not apply, as text to bytes or a bad id to a file without any

    def outcome(self, given: Input) -> Outcome:
        """What comes of a mutant."""
        path = self.folder / given.file
        path.write_bytes(given.mutant.content)
        try:
            with warnings_counted() as counted:
                taken = self.reader.read(self.folder)
        except BaseException as error:  # whatever a mutant leads to is an outcome
            return self._refused(error, given)
        finally:
            path.unlink(missing_ok=True)
            path.write_bytes(self.sound[given.file])
        return self._accepted(taken, counted(), given.mutant)

    def _refused(self, error: BaseException, given: Input) -> Outcome:
        text = f"{type(error).__name__}: {error}"
        if any(isinstance(one, MemoryError) or any(sign in str(one) for sign in NO_MEMORY) for one in causes(error)):
            return Outcome(Kind.MEMORY, text[:SHOWN])
        if not isinstance(error, self.reader.errors) or isinstance(error, UnicodeError):
            return Outcome(Kind.FOREIGN, text[:SHOWN])
        names = (Path(given.file).name, *self.reader.names)
        if not any(name in str(error) for name in names) or len(str(error)) < len(names[0]) + 10:
            return Outcome(Kind.FOREIGN, f"no file or no reason is named: {text[:SHOWN]}")
        if given.mutant.expected in (Expected.SAME, Expected.FEWER):
            return Outcome(Kind.WRONG, f"{given.mutant.what}: to be {given.mutant.expected.value}, but {text[:SHOWN]}")
        return Outcome(Kind.CLEAR, text[:SHOWN])

    def _accepted(self, taken: Taken, said: int, mutant: Mutant) -> Outcome:
        is_same = taken.content == self.taken.content
        is_said = taken.left_out > self.taken.left_out or said > self.said
        is_right = {
            None: True,
            Expected.REFUSED: taken.samples == 0 and is_said,  # by readers that note what they refuse
            Expected.COUNTED: taken.samples < self.taken.samples and is_said,
            Expected.FEWER: taken.samples == self.taken.samples - 1,
            Expected.SAME: is_same,
            Expected.HARMLESS: is_same,
        }[mutant.expected]
        if is_right:
            return Outcome(Kind.ACCEPTED)
        expected = mutant.expected.value if mutant.expected else ""
        return Outcome(
            Kind.WRONG, f"{mutant.what}: to be {expected}, but {taken.samples} of {self.taken.samples} are taken"
        )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def warnings_counted() -> Iterator[Callable[[], int]]:
    """Counts the warnings that are logged in the block, which go nowhere else."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = found.append  # type: ignore[method-assign, assignment]
    root = logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    try:
        yield lambda: len(found)
    finally:
        root.handlers = before


def serve(connection: Connection, readers: dict[str, Reader], folder: Path) -> None:
    """Answer (reader, seed, numbers) with one (number, outcome, whether the process goes on) each, until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the campaign
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # libraries remark there on every damaged picture
    while (job := connection.recv()) is not None:
        name, seed, numbers = job
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        try:
            made = Folder(readers[name], folder / name)
            made.read_sound()
        except Exception as error:  # a fault of the campaign, which ends it
            connection.send(f"{name} does not read its sound files: {type(error).__name__}: {error}")
            return
        _limit_memory(readers[name].megabytes << 20)
        _give_back_freed_memory()  # after the limit, which leaves these addresses to allocators
        for number in numbers:
            given = made.input(seed, number)
            before = _forget_peak()
            signal.setitimer(signal.ITIMER_PROF, readers[name].seconds)  # its signal ends the process
            outcome = made.outcome(given)
            signal.setitimer(signal.ITIMER_PROF, 0)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) - before
            if grown > readers[name].megabytes:
                outcome = Outcome(Kind.MEMORY, f"{grown} MB more than before")
            connection.send((outcome, outcome.kind != Kind.MEMORY))
            if outcome.kind == Kind.MEMORY:
                return


def keep_input(reader: Reader, seed: int, number: int, scratch: Path, keep: Path) -> None:
    """Write input `number` of a campaign to a file of `keep` whose name says all that `kept_input` needs."""
    file, mutant = Folder(reader, scratch).input(seed, number)
    keep.mkdir(parents=True, exist_ok=True)
    kept_path(keep, reader.name, seed, number).write_bytes(mutant.content)
    shutil.rmtree(scratch)


def kept_path(keep: Path, reader: str, seed: int, number: int) -> Path:
    """The file of an input that is kept."""
    return keep / f"{reader}.{seed}.{number}.input"


def _give_back_freed_memory() -> None:
    """What the C library kept, of this process or the one it was made of, would hide as much that a mutant takes."""
    ctypes.CDLL(None).malloc_trim(0)


def _forget_peak() -> int:
    """Megabytes that this process holds; the most that it has held begins with them again."""
    Path("/proc/self/clear_refs").write_text("5")
    return _pages()[1] * resource.getpagesize() >> 20


def _pages() -> tuple[int, int]:
    """Pages of addresses and of memory of this process."""
    addresses, memory = Path("/proc/self/statm").read_text().split()[:2]
    return int(addresses), int(memory)


def _limit_memory(room: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_pages()[0] * resource.getpagesize() + room + ROOM, hard))
