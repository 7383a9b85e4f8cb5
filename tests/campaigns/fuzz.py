"""Feeds mutated files to the product's readers, each with limits of time and memory, and says what came of them.

    python -m tests.campaigns.fuzz [READER ...] [--inputs N] [--seed S]

The exit status is 1 when a reader raised what is not its own, hung, took too much memory, or took what it must not.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch comes: workers are forked, and each has one core
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # FFmpeg and OpenCV remark on every damaged video
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

from tests.campaigns.fuzzing.campaign import Campaign
from tests.campaigns.fuzzing.catalogue import READERS
from tests.campaigns.fuzzing.table import table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER", help="names of readers (--list); default: all")
    parser.add_argument("--list", action="store_true", help="print the readers and stop")
    parser.add_argument("--inputs", type=int, help="mutants for each reader; default: what --list says")
    parser.add_argument("--one_in", type=int, default=1, help="of so many mutants that --list says")
    parser.add_argument("--seed", type=int, default=0, help="of the mutants")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant: with --inputs 1 one again")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes that read")
    parser.add_argument("--keep", default="output/fuzz", help="folder of inputs that led to faults; '' keeps none")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.readers) - set(READERS)):
        parser.error(f"no reader {', '.join(unknown)}; there are {', '.join(READERS)}")
    chosen = [READERS[name] for name in args.readers or READERS]
    if args.list:
        for reader in chosen:
            print(f"{reader.name}: {reader.inputs} mutants of {', '.join(reader.files)}")
        return 0
    campaign = Campaign(
        chosen,
        args.seed,
        args.workers,
        Path(args.keep) if args.keep else None,
        tell=lambda line: print(line, flush=True),
    )
    results = campaign.run(args.inputs, args.first, args.one_in)
    print(table(results))
    return int(any(result.has_faults for result in results))


if __name__ == "__main__":
    sys.exit(main())
