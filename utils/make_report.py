"""Write a quickstart folder's report.html, a page with all in it: `python utils/make_report.py output/quickstart`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.files import atomic_write_bytes
from utils.evaluation.ablation import tabulate
from utils.evaluation.ablation_rows import read_rows
from utils.report.page import quickstart_page
from utils.report.sections import Section
from utils.report.tables import ablation_section
from utils.runtime.terminal import show, show_error


def find_ablation(folder: Path) -> list[Section]:
    """The section of an ablation with rows/ in the folder or in ablation/ below it; none where there are no rows."""
    for place in (folder / "rows", folder / "ablation" / "rows"):
        if place.is_dir():
            ablation = tabulate(read_rows(place))
            return [ablation_section(ablation.tables, ablation.note)]
    return []


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder of scripts/quickstart.sh or ablation.sh")
    parser.add_argument("--demo", type=Path, help="folder of the test clips (default: demo/msrvtt in the folder)")
    parser.add_argument("--frames", type=int, default=4, help="frames shown of each clip (default: %(default)s)")
    parser.add_argument(
        "--feature_framerate",
        type=float,
        default=2,
        help="candidates per second of the frame rule (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    if args.frames < 1 or args.feature_framerate <= 0:
        parser.error("--frames must be at least 1 and --feature_framerate above 0")
    output = args.folder / "report.html"
    try:
        demo = args.demo or args.folder / "demo" / "msrvtt"
        further = find_ablation(args.folder)
        content = quickstart_page(args.folder, demo, args.frames, args.feature_framerate, further).encode()
        atomic_write_bytes(output, content)
    except (OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    show(f"{output} ({len(content) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
