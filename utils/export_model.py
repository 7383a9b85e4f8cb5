"""Write a trained model as a folder to hand on: `python utils/export_model.py output/caption_msrvtt FOLDER`.

The folder has the parameters, what they are, how clips are read, and a model card to complete. Whatever takes a
checkpoint takes the folder. It has no optimizer state, and no path of this machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from utils.models.export import DTYPES, export
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.terminal import show, show_error


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("source", type=Path, metavar="RUN_FOLDER_OR_CHECKPOINT", help="of a run its best model, else its newest")
    add("out", type=Path, metavar="OUT", help="folder to write")
    add("--dtype", choices=tuple(DTYPES), default="fp32", help="how parameters are stored; default: %(default)s")
    for name in ("need_object", "use_action"):
        add(f"--{name}", action="store_true", help=f"--{name} of the tasks, for a released checkpoint")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; exit status 0, or 1 when something is missing or does not fit."""
    args = parse_arguments(argv)
    try:
        parts = {name: True for name in ("need_object", "use_action") if getattr(args, name)}
        export(args.source, args.out, args.dtype, parts, show_error)
        size = sum(path.stat().st_size for path in args.out.iterdir())
    except (CheckpointError, OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    show(f"{args.out}: {size / 2**20:.1f} MiB; complete its README.md before you hand it on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
