"""Are two runs different? Paired bootstrap over the queries of two metrics.json: A - B with 95 % intervals."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from utils.evaluation.comparison import compare, table
from utils.runtime.terminal import show_error, show_json, show_lines


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("a", type=Path, help="metrics.json of run A")
    parser.add_argument("b", type=Path, help="metrics.json of run B, on the same queries")
    parser.add_argument("--samples", type=int, default=10_000, help="bootstrap samples")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args(argv)
    try:
        comparisons = compare(args.a, args.b, args.samples, args.seed)
    except (OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    if args.json:
        metrics = {
            row.metric: {"queries": row.queries, "a": row.a, "b": row.b, **row.interval._asdict()}
            for row in comparisons
        }
        settings = {"a": str(args.a), "b": str(args.b), "samples": args.samples, "seed": args.seed}
        show_json(json.dumps({**settings, "metrics": metrics}, indent=2))
    else:
        title = [f"A: {args.a}", f"B: {args.b}", f"{args.samples} bootstrap samples, seed {args.seed}", ""]
        show_lines([*title, *table(comparisons)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
