"""Are captions of demo clips true? Compares predictions.json of captioning with the world's own truth.json."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from modules.foreign_text import read_json
from utils.demo.scoring import score
from utils.runtime.terminal import show_error, show_lines


def main(argv: list[str] | None = None) -> int:
    """Print the scores, and write them beside the predictions, as truth_scores.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=Path, help="predictions.json of tasks/eval_captioning.py")
    parser.add_argument("truth", type=Path, help="truth.json of the data set, written by utils/make_demo_data.py")
    args = parser.parse_args(argv)
    try:
        predictions, truth = read_json(args.predictions), read_json(args.truth)
        try:
            scores = score(predictions, truth["videos"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
            raise ValueError(f"{args.predictions} and {args.truth} do not belong together ({error!r})") from error
    except (OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    args.predictions.with_name("truth_scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    show_lines(f"{name:10} {value:8.2f}" for name, value in scores.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
