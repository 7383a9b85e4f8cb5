"""Run a command's `main` in processes of its own, as a launcher would, without paying for the imports each time."""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

Main = Callable[[list[str]], int | None]
PRELOADED = ["torch._dynamo", "torch.nn.parallel", "tasks.pre_training"]


PORTS = range(20000, 32768)  # below those that systems give to outgoing connections


def free_port() -> int:
    """A TCP port that nobody listens on, and that nobody is likely to take until a launcher has been imported."""
    draw = random.SystemRandom()  # runs beside each other have the same seeds
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", draw.choice(PORTS)))
            except OSError:
                continue
            return probe.getsockname()[1]


class Ranks:
    """`main(argv)` in one or several processes, forked from a server that has imported torch once.

    Args:
        main: importable function.
        argv: its command line.
        folder: where each rank's output goes, `{rank}.txt`.
        processes: number of ranks; above 1 they find each other as under torchrun.

    As a context manager it leaves no process behind.
    """

    def __init__(self, main: Main, argv: Sequence[str], folder: Path, processes: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        port = free_port()
        self.logs = [folder / f"{rank}.txt" for rank in range(processes)]
        self.processes: list[Any] = []
        for rank, log in enumerate(self.logs):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
            environment = {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
            environment["PATH"] = os.environ["PATH"]  # the server has that of the test which started it
            self.processes.append(context.Process(target=_run, args=(main, list(argv), environment, str(log))))
            self.processes[-1].start()

    def join(self) -> list[int]:
        """Wait for all; their exit codes in rank order, negative for a signal."""
        for process in self.processes:
            process.join()
        return [process.exitcode for process in self.processes]

    def kill(self) -> None:
        """SIGKILL to every rank."""
        for process in self.processes:
            process.kill()

    def output(self) -> str:
        """What the ranks have written, for messages."""
        return "\n".join(log.read_text() for log in self.logs if log.exists())

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        self.join()


def run_ranks(main: Main, argv: Sequence[str], folder: Path, processes: int = 1) -> str:
    """Run to the end, insist on exit code 0 everywhere, and return the output."""
    with Ranks(main, argv, folder, processes) as ranks:
        codes = ranks.join()
        assert codes == [0] * processes, ranks.output()
        return ranks.output()


def _run(main: Main, argv: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    # Loader workers are forked as in a real run, and end with this process; a fork server would outlive it.
    multiprocessing.set_start_method("fork", force=True)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch  # here: this module is imported by the server's clients before anything needs torch

    torch.set_num_threads(1)
    sys.exit(main(argv) or 0)
