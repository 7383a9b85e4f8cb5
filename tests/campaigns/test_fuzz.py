"""A short campaign on every reader, and that a campaign sees what it is there to see."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.campaigns.fuzzing.campaign import Campaign, Result
from tests.campaigns.fuzzing.forms import JSON, drop, known
from tests.campaigns.fuzzing.mutators import cut_short
from tests.campaigns.fuzzing.reader import Expected, Kind, Mutant, Reader, Taken
from tests.campaigns.fuzzing.table import table
from utils.runtime.memory import keep_freed_memory

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = list(range(20))


@pytest.mark.slow
def test_a_short_campaign_finds_no_fault():
    command = [sys.executable, "-m", "tests.campaigns.fuzz", "--one_in", "100", "--workers", "1", "--keep", ""]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def make(folder: Path) -> None:
    (folder / "numbers.json").write_text(json.dumps(NUMBERS))


def own(content: bytes, draw: Random) -> Mutant:
    """The only mutant of toy readers: the file with a mark that says it is one."""
    return Mutant(content + b" ", "marked")


def is_mutant(folder: Path) -> bool:
    return (folder / "numbers.json").read_bytes().endswith(b" ")


def toy(when_mutated: Callable[[], Any], *mutators: Any, **limits: Any) -> Reader:
    """A reader that does this with mutants of its kind, and reads everything else."""

    def read(folder: Path) -> Taken:
        if is_mutant(folder):
            when_mutated()
        try:
            numbers = json.loads((folder / "numbers.json").read_bytes())
            return Taken(len(numbers), 0, numbers)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"numbers.json is not a list of numbers: {error}") from error

    return Reader("toy", make, {"numbers.json": mutators or (own,)}, read, (ValueError,), **limits)


def campaign(reader: Reader, inputs: int = 12, **choices: Any) -> Result:
    return Campaign([reader], **choices).run(inputs)[0]


def fail(error: BaseException) -> Callable[[], None]:
    def read() -> None:
        raise error

    return read


def turn() -> None:
    while True:
        pass


def take_memory() -> None:
    take_memory.taken = bytearray(b"x" * (60 << 20))  # type: ignore[attr-defined]


def ask_for_memory() -> None:
    try:
        bytearray(1 << 45)
    except MemoryError as error:
        raise ValueError("numbers.json cannot be read") from error


@pytest.mark.parametrize(
    ("when_mutated", "kind", "said"),
    [
        (fail(KeyError("x")), Kind.FOREIGN, "KeyError: 'x'"),
        (fail(ValueError("bad")), Kind.FOREIGN, "no file or no reason is named: ValueError: bad"),
        (fail(SystemExit(3)), Kind.FOREIGN, "SystemExit: 3"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), Kind.FOREIGN, "died by SIGSEGV"),
        (lambda: os._exit(7), Kind.FOREIGN, "the process ended with status 7"),
        (turn, Kind.HANG, "its time of computing is over"),
        (signal.pause, Kind.HANG, "no answer, and no computing either"),
        (take_memory, Kind.MEMORY, "MB more than before"),
        (ask_for_memory, Kind.MEMORY, "ValueError: numbers.json cannot be read"),
    ],
    ids=["exception", "names nothing", "exit", "signal", "end", "hang", "waits", "memory", "asks for memory"],
)
def test_each_kind_of_fault_is_seen_and_the_campaign_goes_on(when_mutated: Any, kind: Kind, said: str, tmp_path: Path):
    seconds = 0.1 if when_mutated is signal.pause else 0.5
    result = campaign(toy(when_mutated, seconds=seconds, megabytes=30), 6, keep=tmp_path, seed=3)
    assert result.counts.total() == 6 and result.counts[kind] >= 2 and result.has_faults
    assert set(result.counts) <= {kind, Kind.ACCEPTED, Kind.CLEAR}
    number, outcome = result.faults[0]
    assert outcome.kind == kind and said in outcome.detail
    assert (tmp_path / f"toy.3.{number}.input").read_bytes() == json.dumps(NUMBERS).encode() + b" "


def make_and_keep_freed_memory(folder: Path) -> None:
    make(folder)
    assert keep_freed_memory()
    blocks = [bytearray(b"x" * (8 << 20)) for _ in range(30)]
    del blocks


def test_memory_is_seen_where_freed_memory_is_kept():
    reader = toy(take_memory, seconds=0.5, megabytes=30)
    reader = dataclasses.replace(reader, make=make_and_keep_freed_memory)  # runs in the worker alone
    assert campaign(reader, 6, seed=3).counts[Kind.MEMORY] >= 2


def test_a_sound_reader_has_no_fault():
    result = campaign(toy(lambda: None, cut_short(), known(JSON, "a row dropped", Expected.FEWER, drop())), 200)
    assert not result.has_faults and not result.faults
    assert result.counts[Kind.ACCEPTED] > 20 and result.counts[Kind.CLEAR] > 20


@pytest.mark.parametrize(
    ("expected", "change", "said"),
    [
        (Expected.REFUSED, lambda rows, draw: rows.__setitem__(0, -1), "to be refused, but 20 of 20 are taken"),
        (Expected.COUNTED, drop(), "to be refused, or left out and counted, but 19 of 20 are taken"),
        (Expected.FEWER, lambda rows, draw: rows.clear(), "to be one fewer, but 0 of 20 are taken"),
        (Expected.SAME, lambda rows, draw: rows.reverse(), "to be read as before, but 20 of 20 are taken"),
        (Expected.HARMLESS, lambda rows, draw: rows.reverse(), "to be read as before, or refused, but 20 of 20"),
        (Expected.SAME, lambda rows, draw: 5, "to be read as before, but ValueError: numbers.json is not a list"),
    ],
)
def test_what_is_taken_though_it_must_not_be_is_seen(expected: Expected, change: Any, said: str):
    result = campaign(toy(lambda: None, known(JSON, "a change", expected, change)))
    assert result.counts[Kind.WRONG] >= 2 and set(result.counts) <= {Kind.WRONG, Kind.ACCEPTED, Kind.CLEAR}
    assert f"a change: {said}" in result.faults[0][1].detail


def test_the_same_seed_gives_the_same_mutants_however_many_processes_there_are():
    reader = toy(fail(KeyError("x")))
    first, second = campaign(reader, 60, seed=5), campaign(reader, 60, seed=5, workers=2)
    assert first.counts == second.counts and first.faults[:1] == second.faults[:1]
    assert campaign(reader, 60, seed=6).counts != first.counts or campaign(reader, 60, seed=7).counts != first.counts
    number = first.faults[0][0]
    assert Campaign([reader], seed=5).run(1, number)[0].counts == Counter({Kind.FOREIGN: 1})


def test_sound_files_that_are_not_read_end_the_campaign():
    reader = Reader("toy", make, {"numbers.json": ()}, lambda folder: 1 / 0, ())  # type: ignore[arg-type, return-value]
    with pytest.raises(RuntimeError, match="toy does not read its sound files: ZeroDivisionError"):
        campaign(reader)


def test_the_table_has_a_row_for_each_reader_and_one_for_all():
    results = [Result("a", Counter({Kind.ACCEPTED: 3, Kind.HANG: 1})), Result("b", Counter({Kind.CLEAR: 1200}))]
    assert table(results).splitlines()[2:] == [
        "| a | 4 | 3 | 0 | 0 | 1 | 0 | 0 |",
        "| b | 1,200 | 0 | 1,200 | 0 | 0 | 0 | 0 |",
        "| all | 1,204 | 3 | 1,200 | 0 | 1 | 0 | 0 |",
    ]
