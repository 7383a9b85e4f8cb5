"""Are the boxes of one thing one trajectory? Scores both rules of --trajectory on demo clips, where the truth is known.

Ordinary demo clips hold things of different shapes; beside them this renders clips of two or three things of one shape
whose paths cross, in different colours or all of one. Nothing is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from modules.tracking import TRAJECTORY_RULES
from utils.demo.tracking_score import KINDS, make_clip, score
from utils.runtime.terminal import show


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="clips of each kind")
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 12], help="frames per clip of 6 s")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the first clip, the next has the next")
    args = parser.parse_args(argv)
    if min(args.clips, *args.frames) < 1 or args.seed < 0:
        parser.error("--clips and --frames must be at least 1, --seed not negative")
    show("boxes with the right identity, in per cent")
    show(f"{'clips':22}{'frames':>6}{'boxes':>7}{'class':>8}{'track':>8}{'track without attributes':>26}")
    for kind in KINDS:
        for frames in args.frames:
            clips = [make_clip(kind, args.seed + number, frames) for number in range(args.clips)]
            scores = [score(clips, rule) for rule in TRAJECTORY_RULES]
            bare, boxes = score(clips, "track", with_attributes=False)
            show(f"{kind:22}{frames:6}{boxes:7}" + "".join(f"{value:8.1f}" for value, _ in scores) + f"{bare:26.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
