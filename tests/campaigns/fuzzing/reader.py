"""What a campaign is made of: readers, mutants of their inputs, and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any, NamedTuple


class Expected(Enum):
    """What is known of a mutant before it is read."""

    REFUSED = "refused"
    COUNTED = "refused, or left out and counted"
    FEWER = "one fewer"
    SAME = "read as before"
    HARMLESS = "read as before, or refused"


class Mutant(NamedTuple):
    """A mutated file, what was done to it, and what must come of it where that is known."""

    content: bytes
    what: str
    expected: Expected | None = None


Mutator = Callable[[bytes, Random], Mutant]  # ValueError where it does not apply to the content


class Taken(NamedTuple):
    """What a reader made of its files.

    samples: or boxes, frames, parameters. left_out: those that it says it left out. content: all that was read, for
    comparison; None is like nothing else.
    """

    samples: int
    left_out: int = 0
    content: Any = None


@dataclass(frozen=True)
class Reader:
    """A reader of the product as the product calls it.

    Attributes:
        name: on the command line and in the table.
        make: writes a sound input into an empty folder.
        files: names of the files of it that are mutated, each with the mutators for its form.
        read: reads the folder.
        errors: the reader's own exceptions.
        names: what its messages may name instead of the file, such as the folder of a store.
        inputs: mutants of a full campaign.
        seconds: of computing that an input may take.
        megabytes: by which the process may grow.
    """

    name: str
    make: Callable[[Path], None]
    files: Mapping[str, Sequence[Mutator]]
    read: Callable[[Path], Taken]
    errors: tuple[type[BaseException], ...]
    names: tuple[str, ...] = ()
    inputs: int = 10_000
    seconds: float = 10
    megabytes: int = 300


class Kind(Enum):
    """Columns of the table."""

    ACCEPTED = "accepted"
    CLEAR = "clear"
    FOREIGN = "foreign"
    HANG = "hang"
    MEMORY = "over memory"
    WRONG = "wrongly taken"


FAULTS = (Kind.FOREIGN, Kind.HANG, Kind.MEMORY, Kind.WRONG)


class Outcome(NamedTuple):
    """What came of one input."""

    kind: Kind
    detail: str = ""
