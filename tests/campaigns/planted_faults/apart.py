"""A function in a process of its own, so that nothing it does ends the campaign."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

CRASHED, HUNG = 99, 98


def run_apart(function: Callable[[], int], log: Path, seconds: float) -> int:
    """Exit status of `function` in a forked process whose output goes to `log`; CRASHED after an exception.

    A negative number is a signal; HUNG: it took more than `seconds` and was killed with all its children.
    """
    process = multiprocessing.get_context("fork").Process(target=_run, args=(function, log))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        return HUNG
    return int(process.exitcode or 0)


def _run(function: Callable[[], int], log: Path) -> None:
    os.setsid()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # tests have put others in their place
    status = CRASHED
    try:
        status = function()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
