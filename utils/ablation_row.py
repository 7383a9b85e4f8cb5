"""Keep a finished row of scripts/ablation.sh, with one seed, as a small file that utils/ablation_table.py reads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from modules.foreign_text import read_json
from utils.demo.scoring import score
from utils.evaluation.ablation_rows import KINDS, TRUE, collect_row, write_row
from utils.runtime.terminal import show, show_error


def true_captions(predictions: Path, truth: Path) -> Mapping[str, float]:
    """Whether each video's caption is all true and complete, 100 or 0; ValueError if the files do not fit."""
    try:
        videos = read_json(truth)["videos"]
        return {entry["video_id"]: score([entry], videos)[TRUE] for entry in read_json(predictions)}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{predictions} and {truth} do not belong together ({error!r})") from error


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the runs of the row: pretraining/, and a folder for each task")
    parser.add_argument("--row", required=True, choices=tuple(KINDS), help="which row it is")
    parser.add_argument("--seed", type=int, required=True, help="--seed of its runs")
    parser.add_argument("--truth", type=Path, help="truth.json of demo clips, for the share of true captions")
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    args = parser.parse_args(argv)
    predictions = args.folder / "captioning" / "predictions.json"
    try:
        checked = true_captions(predictions, args.truth) if args.truth and predictions.is_file() else None
        row = collect_row(args.folder, args.row, args.seed, checked)
        write_row(row, args.output)
    except (OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    scores = [f"{task} {name} {value:.4g}" for task, own in row.tasks.items() for name, value in own.metrics.items()]
    show(f"{args.output}: {', '.join(scores)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
