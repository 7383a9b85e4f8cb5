"""A signal asks a run to stop; the run decides when."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any


class StopSignals:
    """Within the block, SIGTERM and SIGINT only set `received`; a second SIGINT interrupts at once.

    Forked loader workers inherit the handler and ignore both signals, so a Ctrl-C to the whole process group does not
    take them away from an update that is to be finished.
    """

    def __init__(self) -> None:
        self.received = False
        self._process = os.getpid()
        self._interrupts = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: object) -> None:
        if os.getpid() != self._process:
            return
        self.received = True
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
