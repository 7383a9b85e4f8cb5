"""Draw losses, learning rates, gradient norms and validation metrics of one or several runs from metrics.jsonl."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.files import atomic_write_bytes
from utils.pictures.curves import draw_runs, read_run, run_names
from utils.runtime.terminal import show, show_error


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="OUTPUT_DIR", help="output folder of a run")
    parser.add_argument("--output", type=Path, help="picture to write (default: curves.png in the first folder)")
    args = parser.parse_args(argv)
    output = args.output or args.folders[0] / "curves.png"
    try:
        if output.suffix.lower() != ".png":
            raise ValueError(f"--output {output}: the name of a picture must end in .png")
        runs = [read_run(folder) for folder in args.folders]
        figure = draw_runs(dict(zip(run_names(args.folders), runs, strict=True)))
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150)
        atomic_write_bytes(output, picture.getvalue())
    except (OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    steps = ", ".join(str(max([*run.train, *run.evaluations])) for run in runs)
    show(f"{output}: {len(runs)} run{'s' if len(runs) > 1 else ''}, last step {steps}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
