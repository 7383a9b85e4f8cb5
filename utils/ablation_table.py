"""The table of an ablation: what each part adds, from the rows that scripts/ablation.sh has finished so far.

Mean over seeds with the sample standard deviation; changes against the row before, in the rows without frame dropout
and with the other --trajectory against `all`, with the 95 % interval of a paired bootstrap. Of each item the difference
of both rows is averaged over the seeds that both have, then items are drawn: the interval says nothing of other seeds.
Rows and seeds that are not there are shown as missing. Rows may come from several machines: put their files together.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.files import atomic_write_text
from utils.evaluation.ablation import as_latex, as_markdown, tabulate
from utils.evaluation.ablation_rows import read_rows
from utils.runtime.terminal import show, show_error, show_lines

FORMATS = {"markdown": as_markdown, "latex": as_latex}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="output folder of scripts/ablation.sh, with the rows in rows/")
    parser.add_argument("--format", choices=tuple(FORMATS), default="markdown", help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="file to write (default: the terminal)")
    parser.add_argument("--samples", type=int, default=10_000, help="bootstrap samples (default: %(default)s)")
    parser.add_argument("--bootstrap_seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        ablation = tabulate(read_rows(args.folder / "rows"), args.samples, args.bootstrap_seed)
        text = FORMATS[args.format](ablation)
        if args.output:
            atomic_write_text(args.output, text)
    except (OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    if args.output:
        show(str(args.output))
    else:
        show_lines(text.splitlines())
    return 0


if __name__ == "__main__":
    sys.exit(main())
