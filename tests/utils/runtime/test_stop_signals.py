"""Signals ask a run to stop; they do not end it, and workers ignore them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from utils.runtime.stop_signals import StopSignals

BOTH = (signal.SIGTERM, signal.SIGINT)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in BOTH]


@pytest.fixture(autouse=True)
def as_in_the_foreground() -> Iterator[None]:
    """A shell has what it starts in the background ignore Ctrl-C."""
    before = handlers()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(BOTH, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH, ids=lambda number: number.name)
def test_a_signal_only_asks(number: signal.Signals):
    with StopSignals() as signals:
        assert not signals.received
        signal.raise_signal(number)
        assert signals.received


def test_a_second_ctrl_c_interrupts_at_once():
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.received


def test_the_system_may_ask_as_often_as_it_likes():
    with StopSignals() as signals:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert signals.received


def test_the_handlers_before_are_put_back_whatever_ends_the_block():
    before = handlers()
    with StopSignals():
        assert all(now is not then for now, then in zip(handlers(), before, strict=True))
    assert handlers() == before
    with pytest.raises(KeyboardInterrupt), StopSignals():
        raise KeyboardInterrupt
    assert handlers() == before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_each_block_counts_anew():
    for _ in range(2):
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert signals.received


def test_forked_workers_ignore_both():
    with StopSignals() as signals:
        worker = os.fork()
        if not worker:
            try:
                for number in (*BOTH, *BOTH):
                    os.kill(os.getpid(), number)
                os._exit(7 if signals.received else 0)
            finally:
                os._exit(9)  # an interrupt came through
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
        assert not signals.received


def test_in_another_thread_than_the_main_one_no_handler_is_changed():
    before, within = handlers(), []

    def run() -> None:
        with StopSignals() as signals:
            within.append((handlers(), signals.received))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert within == [(before, False)] and handlers() == before
