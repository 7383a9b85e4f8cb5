"""Table and summary.json of a quickstart folder: `python utils/summarise_quickstart.py output/quickstart`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.files import atomic_write_text
from utils.report.summary import summarise, table
from utils.runtime.terminal import show_error, show_lines


def main(argv: list[str] | None = None) -> int:
    """Write summary.json and print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder of scripts/quickstart.sh")
    folder = parser.parse_args(argv).folder
    try:
        summary = summarise(folder)
        atomic_write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    except (OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    show_lines([*table(summary), "", str(folder / "summary.json")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
