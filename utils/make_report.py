"""Write a quickstart folder's report.html, a page with all in it: `python utils/make_report.py output/quickstart`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.files import atomic_write_bytes
from utils.report.page import Section, page, paragraph
from utils.report.sections import (
    RETRIEVAL,
    Strips,
    answer_section,
    caption_section,
    choice_section,
    curve_section,
    picture_section,
    read_json,
    retrieval_section,
)
from utils.report.summary import ANSWERS, CAPTIONS, CHOICES
from utils.report.tables import results_section

TITLE = "STOA-VLP quickstart"
LEAD = (
    "What the models of one quickstart run have learned from rendered clips of moving shapes: scores, curves and "
    "examples on clips that none of them was trained on."
)


def make_report(folder: Path, demo: Path, frames: int, feature_framerate: float) -> str:
    """The report page of a quickstart folder as HTML.

    Args:
        folder: has summary.json and the folders of the tasks; what is not there is left out with a sentence.
        demo: has the videos of the test clips in videos/, and truth.json.
        frames, feature_framerate: see `Strips`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file in it is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give the output folder of scripts/quickstart.sh")
    retrieved = read_json(folder / RETRIEVAL / "retrieved.json")
    captions, choices, answers = (
        read_json(folder / task / "predictions.json") for task in (CAPTIONS, CHOICES, ANSWERS)
    )
    video_ids = [entry["video_id"] for entries in (retrieved, captions, choices, answers) for entry in entries or []]
    video_ids += [video_id for entry in retrieved or [] for video_id in entry["retrieved"]]
    strips = Strips(demo / "videos", video_ids, frames, feature_framerate)
    truth = (read_json(demo / "truth.json") or {"videos": {}})["videos"]
    summary = read_json(folder / "summary.json")
    sections = [
        results_section(summary) if summary else _no_summary(),
        curve_section(folder),
        retrieval_section(retrieved, strips),
        caption_section(captions, truth, strips),
        answer_section(answers, strips),
        choice_section(choices, strips),
        picture_section(folder / "pictures"),
    ]
    return page(TITLE, LEAD, sections)


def _no_summary() -> Section:
    text = "There is no summary.json (utils/summarise_quickstart.py writes it): this part is left out."
    return Section("Results", "results", paragraph(text, "soft"))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder of scripts/quickstart.sh")
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
        content = make_report(args.folder, demo, args.frames, args.feature_framerate).encode()
        atomic_write_bytes(output, content)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{output} ({len(content) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
