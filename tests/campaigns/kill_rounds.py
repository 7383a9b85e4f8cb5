"""Rounds of a command that is killed and started again until it has ended, and what they have shown."""

from __future__ import annotations

import random
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns.kill_processes import (
    POLL_SECONDS,
    FolderWatch,
    Start,
    await_end,
    await_moment,
    await_none,
    draw_moment,
    kill_marked,
)

LEFTOVERS = ("*.tmp", ".*.stoa-tmp*", ".*.building-*", ".*.old")
TIMES, SPARE_SECONDS = 20, 120  # a start that takes longer than so many undisturbed runs, and these seconds, hangs
MOST_KILLS = 3  # in a round, so that several final states are compared
GONE_SECONDS = 60  # what a killed launcher has left, and is there so long after the end of the round, stays for ever
Parts = dict[str, str]  # what is read in a folder, by name: a digest, or why it cannot be read


class Case(ABC):
    """A command that writes into a folder, and the reading of what it has written.

    Attributes:
        name: of the task.
        variants: what may lie in the folder before the first start.
        refusal: part of what a start says that refuses to run beside another one.
    """

    name: str
    variants: tuple[str, ...] = ("nothing",)
    refusal: str | None = None

    def begin(self, folder: Path, variant: str) -> None:
        """Put into an empty folder what lies there before the first start."""
        assert variant == "nothing"

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """Program and arguments."""

    @abstractmethod
    def seen(self, folder: Path) -> Parts:
        """What readers find at any moment: each part as before the run, as after it, or absent."""

    def state(self, folder: Path) -> Parts:
        """What is there at the end, to be equal to that of an undisturbed run."""
        return self.seen(folder)


@dataclass
class Tally:
    """What the rounds of a case have shown.

    leftovers: temporary files at the end of a round, the most of all rounds. unequal, halves, failures: final states
    that differ, parts that were neither old nor new, starts that failed, hung or left processes behind; each a line.
    kept: folders of the rounds with such lines.
    """

    task: str
    processes: int
    rounds: int = 0
    trees: int = 0
    launchers: int = 0
    restarts: int = 0
    refusals: int = 0
    leftovers: int = 0
    unequal: list[str] = field(default_factory=list)
    halves: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All that was wrong."""
        return [*self.unequal, *self.halves, *self.failures]


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: what was read before and after it, its seconds, the changes in its folder."""

    before: Parts
    seen: Parts
    state: Parts
    seconds: float
    changes: int

    def halves(self, found: Parts) -> list[str]:
        """Parts that are neither those of before nor those of after."""
        known = {name: (self.before.get(name), self.seen.get(name)) for name in found}
        return [f"{name}: {value}, neither old nor new" for name, value in found.items() if value not in known[name]]

    def differences(self, found: Parts) -> list[str]:
        """Parts of a final state that are others, missing or too many."""
        names = sorted({*found, *self.state})
        pairs = [(name, found.get(name, "absent"), self.state.get(name, "nothing")) for name in names]
        return [f"{name}: {mine} instead of {right}" for name, mine, right in pairs if mine != right]


class Campaign:
    """Rounds of one case until so many kills have hit.

    Args:
        folder: for everything; a round that went well is removed from it.
        environment: variables of the command, beside those of this process.
    """

    def __init__(self, case: Case, processes: int, seed: int, folder: Path, environment: Mapping[str, str]) -> None:
        self.case, self.folder, self.environment = case, folder, environment
        self.draw = random.Random(f"{seed} {case.name} {processes}")
        self.tally = Tally(case.name, processes)
        self._references: dict[str, Reference] = {}
        self._kinds: list[str] = []

    def run(self, kills: int) -> Tally:
        """Kill so often, half of the times the launcher alone; each round is brought to its end."""
        self._kinds = ["tree", "launcher"] * ((kills + 1) // 2)
        self.draw.shuffle(self._kinds)
        del self._kinds[kills:]
        try:
            for variant in self.case.variants:
                self._references[variant] = self._run_undisturbed(variant)
            self._run_rounds()
        finally:
            kill_marked(f"{self.folder}/")
        return self.tally

    def _run_rounds(self) -> None:
        while self._kinds:
            self.tally.rounds += 1
            variant = self.case.variants[self.tally.rounds % len(self.case.variants)]
            place = self._new_place(f"round-{self.tally.rounds}", variant)
            before = len(self.tally.problems)
            self._run_round(place, self._references[variant])
            if len(self.tally.problems) > before:
                self.tally.kept.append(place)
            else:
                shutil.rmtree(place)

    def _run_undisturbed(self, variant: str) -> Reference:
        place = self._new_place(f"undisturbed-{variant}", variant)
        output = place / "output"
        before, watch = self.case.seen(output), FolderWatch(output)
        start = self._start(place, 0)
        while not start.has_ended:
            watch.look()
            time.sleep(POLL_SECONDS)
        seconds = start.seconds
        self._end_what_stays(place)
        if start.process.returncode:
            raise RuntimeError(f"the undisturbed run of {self.case.name} failed: see {start.log}")
        return Reference(before, self.case.seen(output), self.case.state(output), seconds, watch.look())

    def _run_round(self, place: Path, reference: Reference) -> None:
        output, limit = place / "output", TIMES * reference.seconds + SPARE_SECONDS
        try:
            status = self._start_until_it_ends(place, reference, limit)
        except TimeoutError as error:
            kill_marked(f"{place}:")
            self.tally.failures.append(f"{place}: {error}")
            return
        self._end_what_stays(place)
        if status:
            self.tally.failures.append(f"{place}: exit status {status}, see the last file in logs")
            return
        self.tally.unequal += [f"{place}: {line}" for line in reference.differences(self.case.state(output))]
        found = {path for pattern in LEFTOVERS for path in output.rglob(pattern)}
        self.tally.leftovers = max(self.tally.leftovers, len(found))

    def _end_what_stays(self, place: Path) -> None:
        if left := await_none(f"{place}:", GONE_SECONDS):
            self.tally.failures.append(f"{place}: {len(left)} processes stay for ever after their launcher has ended")
            kill_marked(f"{place}:")

    def _start_until_it_ends(self, place: Path, reference: Reference, limit: float) -> int:
        """Start and kill; exit status of the first start that comes to an end by itself, refusals aside."""
        number, hits, output = 0, 0, place / "output"
        while True:
            number += 1
            start = self._start(place, number)
            self.tally.restarts += number > 1
            if self._kinds and hits < MOST_KILLS and self._strike(start, reference, output, limit):
                hits += 1
                self.tally.halves += [f"{place}: {line}" for line in reference.halves(self.case.seen(output))]
                continue
            status = await_end(start, limit)
            refusal = self.case.refusal
            if not status or refusal is None or refusal not in start.log.read_text(errors="replace"):
                return status
            self.tally.refusals += 1
            if await_none(f"{place}:", limit):
                raise TimeoutError(f"processes of a killed launcher hold the folder for more than {limit:.0f} s")

    def _strike(self, start: Start, reference: Reference, output: Path, limit: float) -> bool:
        """Kill at a drawn moment; False if the end came before it."""
        moment = draw_moment(self.draw, reference.seconds, reference.changes)
        if not await_moment(start, moment, output, limit):
            return False
        kind = self._kinds[-1]
        if not (start.kill_tree() if kind == "tree" else start.kill_launcher()):
            return False
        self._kinds.pop()
        self.tally.trees += kind == "tree"
        self.tally.launchers += kind == "launcher"
        return True

    def _start(self, place: Path, number: int) -> Start:
        log = place / "logs" / f"{number}.txt"
        return Start(self.case.command(place / "output"), f"{place}:{number}.", log, self.environment)

    def _new_place(self, name: str, variant: str) -> Path:
        place = self.folder / name
        for folder in ("output", "logs"):
            (place / folder).mkdir(parents=True)
        self.case.begin(place / "output", variant)
        return place
