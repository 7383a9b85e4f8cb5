"""Commands that are killed with everything they have started, or alone, and the changes of their files (Linux)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MARK = "KILL_CAMPAIGN"  # an environment variable: children have it, wherever they hang after their parent's death
POLL_SECONDS = 0.002


def marked(mark: str) -> list[int]:
    """Live processes whose mark begins so."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                environment = Path(entry.path, "environ").read_bytes()
            except OSError:  # gone, or another user's
                continue
            if any(part.startswith(wanted) for part in environment.split(b"\0")):
                found.append(int(entry.name))
    return found


def kill_marked(mark: str) -> None:
    """SIGKILL to these processes, and to those that they started meanwhile, until none is left."""
    while found := marked(mark):
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(POLL_SECONDS)


class Start:
    """A command on its way, in a session of its own.

    Args:
        command: program and arguments.
        mark: of this start alone; that of a round is its beginning.
        log: file that takes what the processes write.
        environment: variables beside those of this process.
    """

    def __init__(self, command: Sequence[str], mark: str, log: Path, environment: Mapping[str, str]) -> None:
        self.mark, self.log = mark, log
        everything = {**os.environ, **environment, MARK: mark}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=everything, start_new_session=True
            )
        self.begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.begun

    @property
    def has_ended(self) -> bool:
        """Whether the launcher has."""
        return self.process.poll() is not None

    def kill_tree(self) -> bool:
        """Kill all processes of this start; whether the launcher was still alive."""
        self.process.kill()
        kill_marked(self.mark)
        return self.process.wait() == -signal.SIGKILL

    def kill_launcher(self) -> bool:
        """Kill the first process alone; whether it was still alive."""
        self.process.kill()
        return self.process.wait() == -signal.SIGKILL


class FolderWatch:
    """Counts what happens to the files below a folder: made, renamed, removed, and, logs aside, grown."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.changes = folder, 0
        self._seen = self._listing()

    def look(self) -> int:
        """Number of changes so far."""
        now = self._listing()
        self.changes += len(now ^ self._seen)
        self._seen = now
        return self.changes

    def _listing(self) -> set[tuple[str, int]]:
        found, folders = set(), [str(self.folder)]
        while folders:
            try:
                with os.scandir(folders.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        counts_size = not entry.name.startswith("log")
                        found.add((entry.path, entry.stat(follow_symlinks=False).st_size if counts_size else 0))
            except FileNotFoundError:  # removed in between, which the next look shows
                continue
        return found


class Moment(NamedTuple):
    """When to kill: some seconds after the start, or a little after so many changes in the folder."""

    seconds: float | None
    changes: int | None
    delay: float


def draw_moment(draw: random.Random, seconds: float, changes: int) -> Moment:
    """A moment of a run that, undisturbed, takes so long and changes its folder so often; two in three aim at changes.

    A run that goes on after a kill has fewer changes before it, so that few are likelier than many.
    """
    if draw.random() < 1 / 3:
        return Moment(draw.uniform(0, seconds), None, 0.0)
    return Moment(None, 1 + int(changes * draw.random() ** 2), draw.choice((0.0, 0.0, draw.uniform(0, 0.01))))


def await_moment(start: Start, moment: Moment, folder: Path, limit: float) -> bool:
    """Wait for it; False when the launcher has ended before.

    Raises:
        TimeoutError: neither has come after `limit` seconds.
    """
    watch = FolderWatch(folder)
    while not start.has_ended:
        if moment.seconds is not None and start.seconds >= moment.seconds:
            return True
        if moment.changes is not None and watch.look() >= moment.changes:
            time.sleep(moment.delay)
            return True
        if start.seconds > limit:
            raise TimeoutError(f"neither ended nor at the moment of the kill after {limit:.0f} s")
        time.sleep(POLL_SECONDS)
    return False


def await_end(start: Start, limit: float) -> int:
    """Exit status of the launcher.

    Raises:
        TimeoutError: it has not ended after `limit` seconds.
    """
    try:
        return start.process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"has not ended after {limit:.0f} s") from None


def await_none(mark: str, limit: float) -> list[int]:
    """Wait until no process with this mark is left; those that are still there after `limit` seconds."""
    deadline = time.monotonic() + limit
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left
