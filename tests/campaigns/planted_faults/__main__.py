"""Plant every fault, check, train, and print a table: `python -m tests.campaigns.planted_faults`."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


def main(argv: list[str] | None = None) -> int:
    """Run the campaign; 1 if anything is silent, misnamed or a false alarm, or training disagrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose data type and name have this in them")
    parser.add_argument("--jobs", type=int, default=2, help="faults at once")
    parser.add_argument("--without_training", action="store_true", help="check only")
    parser.add_argument("--worlds", type=Path, help="folder of the worlds, made if it is not there")
    args = parser.parse_args(argv)
    # Here: worker processes of the check import this file.
    from tests.campaigns.planted_faults.catalogue import FAULTS
    from tests.campaigns.planted_faults.worlds import make_worlds

    chosen = [fault for fault in FAULTS if args.only in f"{fault.datatype} {fault.name}"]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        worlds = args.worlds or Path(scratch, "worlds")
        if not worlds.exists():
            make_worlds(worlds)
        _import_training()
        verdicts = _try_all(chosen, worlds, Path(scratch), args.jobs, with_training=not args.without_training)
    return _report(verdicts, time.monotonic() - start, with_training=not args.without_training)


def _import_training() -> None:
    """Once for all the processes that are forked from this one."""
    from tasks import eval_captioning, eval_mc, eval_qa, eval_retrieval, pre_training
    from utils.checks import run

    assert all((eval_captioning, eval_mc, eval_qa, eval_retrieval, pre_training, run))


def _try_all(faults: list[Any], worlds: Path, scratch: Path, jobs: int, *, with_training: bool) -> list[Any]:
    context = multiprocessing.get_context("fork")
    running: dict[Any, tuple[BaseProcess, Any]] = {}
    queue, verdicts = list(enumerate(faults)), []
    while queue or running:
        while queue and len(running) < jobs:
            number, fault = queue.pop(0)
            ours, theirs = context.Pipe()
            arguments = (theirs, fault, worlds, scratch / str(number), with_training)
            process = context.Process(target=_try_one, args=arguments)
            process.start()
            theirs.close()
            running[ours] = (process, fault)
        for ready in wait(list(running)):
            process, fault = running.pop(ready)
            try:
                verdict = ready.recv()
            except EOFError:
                raise RuntimeError(f"{fault.datatype}, {fault.name}: could not be planted") from None
            process.join()
            verdicts.append(verdict)
            if not verdict.is_good:
                _show(verdict)
            print(f"\r{len(verdicts)} of {len(faults)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return verdicts


def _try_one(connection: Any, fault: Any, worlds: Path, folder: Path, with_training: bool) -> None:
    from tests.campaigns.planted_faults.runner import try_fault

    connection.send(try_fault(fault, worlds, folder, with_training=with_training))


def _show(verdict: Any) -> None:
    print(f"\n{verdict.datatype}, {verdict.name}: {verdict.naming}, status {verdict.status}")
    for what in ("false_alarms", "disagreements", "crash"):
        if getattr(verdict, what):
            print(f"  {what}: {str(getattr(verdict, what))[-700:]}")
    if not verdict.crash:
        print(f"  findings: {[tuple(map(ascii, finding)) for finding in verdict.findings[:4]]}")
    sys.stdout.flush()


def _report(verdicts: list[Any], seconds: float, *, with_training: bool) -> int:
    print(f"| data type | faults | named right | misnamed | silent | false alarms | disagree |\n{'|---' * 7}|")
    groups = [*dict.fromkeys(verdict.datatype for verdict in verdicts), "all"]
    for group in groups:
        own = [verdict for verdict in verdicts if group in (verdict.datatype, "all")]
        named = Counter(verdict.naming for verdict in own)
        false = sum(len(verdict.false_alarms) for verdict in own)
        differ = sum(bool(verdict.disagreements) for verdict in own) if with_training else "-"
        print(
            f"| {group} | {len(own)} | {named['named right']} | {named['misnamed']} | {named['silent']} | {false} "
            f"| {differ} |"
        )
    kinds = len({verdict.name.split(", ")[0] for verdict in verdicts})
    statuses = Counter(verdict.status for verdict in verdicts)
    print(f"{len(verdicts)} faults of {kinds} kinds in {seconds:.0f} s; exit status {dict(sorted(statuses.items()))}")
    return int(not all(verdict.is_good for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
