"""The campaign of kills itself, on small commands that do right or wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.campaigns import kill_rounds
from tests.campaigns.kill import row, table
from tests.campaigns.kill_processes import MARK, Start, await_end, await_none, kill_marked, marked
from tests.campaigns.kill_reading import digest, file_bytes, read
from tests.campaigns.kill_rounds import Campaign, Case, Parts, Reference, Tally

STEPS = 60
# Counts in a file, each step put in its place whole; `before` and `after` are other things that it does.
COUNTING = """
import os, subprocess, sys
path = sys.argv[1] + "/count"
def write(text):
    with open(path + ".tmp", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)
text = open(path).read() if os.path.exists(path) else ""
{before}
while len(text) < {steps}:
    text += "x"
    write(text)
{after}
"""


class Counting(Case):
    """The counting command; what it has counted is whole at every moment, and final at the end."""

    name = "count"
    refusal = "another one counts"

    def __init__(self, before: str = "", after: str = "") -> None:
        self.script = COUNTING.format(before=before, after=after, steps=STEPS)

    def command(self, folder: Path) -> list[str]:
        return [sys.executable, "-S", "-c", self.script, str(folder)]

    def seen(self, folder: Path) -> Parts:
        parts: Parts = {}
        text = file_bytes(folder / "count")
        if text is not None and set(text) != {ord("x")}:
            parts["count"] = "damaged"
        return parts

    def state(self, folder: Path) -> Parts:
        parts: Parts = {}
        read(parts, "count", lambda: file_bytes(folder / "count"))
        return parts


def run(case: Case, folder: Path, kills: int = 6) -> Tally:
    return Campaign(case, 1, 0, folder, {}).run(kills)


def test_every_kill_hits_and_an_atomic_writer_ends_the_same(tmp_path: Path):
    tally = run(Counting(), tmp_path)
    assert tally.trees == tally.launchers == 3 and tally.restarts >= 6
    assert tally.problems == [] and tally.leftovers <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["undisturbed-nothing"], "rounds that went well are removed"


def test_a_command_whose_result_depends_on_its_restarts_is_found(tmp_path: Path):
    tally = run(Counting(before='open(sys.argv[1] + "/starts", "a").write("s")', after="""
write(open(sys.argv[1] + "/starts").read())"""), tmp_path)  # fmt: skip
    assert tally.unequal and tally.kept and all((place / "output" / "count").exists() for place in tally.kept)


def test_what_readers_find_half_made_is_found(tmp_path: Path):
    tally = run(Counting(before='text = "y"', after=f'write("x" * {STEPS})'), tmp_path)
    assert tally.halves and tally.unequal == [] and tally.failures == []


def test_what_a_killed_launcher_leaves_for_ever_is_found_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kill_rounds, "GONE_SECONDS", 0.2)
    child = 'subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])'
    tally = run(Counting(before=child), tmp_path, kills=4)
    assert any("stay for ever" in line for line in tally.failures)
    assert marked(f"{tmp_path}") == []


def test_a_start_that_refuses_is_started_again_and_one_that_fails_is_a_failure(tmp_path: Path):
    refuse = """
if os.path.exists(path) and not os.path.exists(sys.argv[1] + "/refused"):
    open(sys.argv[1] + "/refused", "w").close()
    sys.exit("{}")
"""
    tally = run(Counting(before=refuse.format("another one counts")), tmp_path / "refuses")
    assert tally.refusals > 0 and tally.failures == []
    tally = run(Counting(before=refuse.format("no idea")), tmp_path / "fails")
    assert any("exit status 1" in line for line in tally.failures)


def test_children_are_found_by_their_mark_after_their_parent_died(tmp_path: Path):
    code = 'import subprocess, sys; subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])'
    start = Start([sys.executable, "-S", "-c", code], f"{tmp_path}:1.", tmp_path / "log", {})
    assert await_end(start, 60) == 0 and MARK not in os.environ
    assert len(marked(f"{tmp_path}:")) == 1 and len(await_none(f"{tmp_path}:1.", 0)) == 1
    assert marked(f"{tmp_path}:11.") == []
    kill_marked(f"{tmp_path}:")
    assert marked(f"{tmp_path}:") == []


def test_parts_are_old_or_new_and_the_end_is_compared_in_full():
    reference = Reference({"index": "old"}, {"index": "new"}, {"index": "new", "all": "1"}, 1.0, 1)
    assert reference.halves({"index": "old"}) == reference.halves({"index": "new"}) == reference.halves({}) == []
    assert len(reference.halves({"index": "half"})) == len(reference.halves({"more": "1"})) == 1
    assert reference.differences({"index": "new", "all": "1"}) == []
    assert len(reference.differences({"index": "old", "more": "1"})) == 3


def test_digests_tell_bits_and_names_apart():
    import torch

    values = [
        torch.zeros(2),
        -torch.zeros(2),
        torch.zeros(2, 1),
        torch.zeros(1, dtype=torch.float64),
        0,
        "0",
        [0],
        {0: 0},
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": 1, "b": [torch.ones(1)]}) == digest({"b": [torch.ones(1)], "a": 1})


def test_the_table_has_a_column_for_each_number():
    line = row(Tally("count", 2, 3, 4, 5, 6, 7, 8, ["a"], ["b", "c"], []), 9.6)
    assert line == ["count", "2", "3", "4", "5", "6", "7", "1", "2", "0", "8", "10"]
    assert {text.count("|") for text in table([line]).splitlines()} == {13}
