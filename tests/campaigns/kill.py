"""Kill training and building at random, start again, and compare with what was never killed.

    python -m tests.campaigns.kill --kills 40 --processes 2 --task retrieval
    python -m tests.campaigns.kill --kills 40 --processes 1 --task all

Half of the kills hit all processes at once, half the launcher alone, whose workers may live on beside the next start.
After each one readers are opened on what is there. The same command goes on until it ends by itself; its final state is
compared with that of an undisturbed run, bit for bit; then it begins anew in an empty folder. Kills that come after the
end do not count. Moments come from --seed, but what a process is doing then depends on the machine. Exit status: 0; 1
if anything differed, was served half written, failed, hung or stayed behind; the folders of such rounds are named.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.campaigns.kill_building import BUILDINGS, building_case
from tests.campaigns.kill_rounds import Campaign, Case, Tally
from tests.campaigns.kill_training import training_case
from tests.world import make_downstream, make_world

TRAININGS = ("pretrain", "retrieval", "caption", "qa", "mc")
TASKS = (*TRAININGS, *BUILDINGS)
SHOWN = 5
COLUMNS = ("task", "processes", "rounds", "tree", "launcher", "restarts", "refused", "unequal", "halves", "failures",
           "leftovers", "seconds")  # fmt: skip


def row(tally: Tally, seconds: float) -> list[str]:
    """The line of a case in the table."""
    counts = [tally.rounds, tally.trees, tally.launchers, tally.restarts, tally.refusals]
    wrong = [len(lines) for lines in (tally.unequal, tally.halves, tally.failures)]
    return [tally.task, *map(str, [tally.processes, *counts, *wrong, tally.leftovers, round(seconds)])]


def table(rows: list[list[str]]) -> str:
    """Rows under their titles, as in tests/README.md."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def without_java(folder: Path) -> dict[str, str]:
    """An environment whose programs are the few that the tasks need: the scorers in Java take seconds each."""
    folder.mkdir()
    for name in ("bash", "dirname", "basename"):
        (folder / name).symlink_to(shutil.which(name) or name)
    return {"PATH": str(folder), "OMP_NUM_THREADS": "1"}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=(*TASKS, "all"), default=["all"])
    parser.add_argument("--kills", type=int, default=40, help="of each task (default: %(default)s)")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1, help="ranks, or workers that build")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="empty or absent; default: a temporary one, which is removed")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the campaign; returns the exit status."""
    args = parse_arguments(argv)
    folder = (args.folder or Path(tempfile.mkdtemp(prefix="kill-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.exit(f"--folder {folder}: not empty; name another one")
    world = make_world(folder / "world")
    downstream = make_downstream(folder / "downstream", world.clip)
    environment = without_java(folder / "programs")
    rows, problems, kept = [], [], []
    for task in TASKS if "all" in args.task else args.task:
        begun, place = time.monotonic(), folder / task
        case: Case
        if task in TRAININGS:
            case = training_case(task, world, downstream, args.processes)
        else:
            case = building_case(task, folder / f"{task}-input", world, downstream, args.processes)
        tally = Campaign(case, args.processes, args.seed, place, environment).run(args.kills)
        rows.append(row(tally, time.monotonic() - begun))
        print(table(rows[-1:]), flush=True)
        for kind in (tally.unequal, tally.halves, tally.failures):
            for line in (*kind[:SHOWN], *([f"and {len(kind) - SHOWN} more"] if len(kind) > SHOWN else ())):
                print(line, flush=True)
        problems += tally.problems
        kept += tally.kept
    print(table(rows))
    if problems:
        print(f"{len(problems)} problems; kept: {', '.join(map(str, kept))}")
    elif args.folder is None:
        shutil.rmtree(folder)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
