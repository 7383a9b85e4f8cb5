"""Convert the clips of a WebVid csv to TFRecord shards.

    python utils/webvid_to_tfrecord.py --csv results_2M_val.csv --video_dir DIR --output_dir OUT --workers 2

Writes OUT/path.index, OUT/path-*.tfrecord, OUT/frozen_train_labels.json and OUT/report.json. A shard holds a fixed run
of csv rows; its companion in OUT/parts appears when it is complete. A run that was stopped at any moment goes on, when
started again, with the records that are missing, and the end result is the same. To try skipped videos again, say after
more have been downloaded, delete their shards' companions and run again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from utils.preparation.shards import REPORT, CannotConvert, Settings, convert, sha256_of
from utils.preparation.video_workers import CannotStart
from utils.preparation.webvid_rows import BadCsv
from utils.runtime.terminal import show, show_error


def _tensorflow() -> Any:
    # Here and nowhere else: TensorFlow and PyTorch in one process crash, and a run with nothing to write needs neither.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow

    return tensorflow


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Convert the clips of a WebVid csv to TFRecord shards; run again after a stop to go on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def positive(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return int(text)

    parser.add_argument("--csv", type=Path, required=True, help="results_2M_{train,val}.csv: videoid, name, page_dir")
    parser.add_argument("--video_dir", type=Path, required=True, help="holds {page_dir}/{videoid}.mp4 or {videoid}.mp4")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to write to")
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="decoding processes")
    parser.add_argument(
        "--frame_format",
        choices=("jpeg", "raw"),
        default="jpeg",
        help="jpeg keeps the aspect; raw is the released format, squashed to a square",
    )
    parser.add_argument("--size", type=positive, default=256, help="short side (jpeg, never enlarged) or both (raw)")
    parser.add_argument("--feature_framerate", type=float, default=1.0, help="frames kept per second")
    parser.add_argument(
        "--jpeg_quality", type=int, choices=range(1, 101), metavar="1..100", default=90, help="of the stored frames"
    )
    parser.add_argument("--clips_per_shard", type=positive, default=1000, help="csv rows per shard")
    args = parser.parse_args(argv)
    if not 0 < args.feature_framerate < float("inf"):
        parser.error("--feature_framerate must be above 0")
    if not args.csv.is_file():
        parser.error(f"--csv {args.csv}: there is no such file")
    if not args.video_dir.is_dir():
        parser.error(f"--video_dir {args.video_dir}: there is no such folder")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, or 1 when it could not run or wrote no clip, or 130 when it was interrupted."""
    args = _arguments(argv)
    settings = Settings(
        csv_sha256=sha256_of(args.csv),
        frame_format=args.frame_format,
        size=args.size,
        feature_framerate=args.feature_framerate,
        jpeg_quality=args.jpeg_quality if args.frame_format == "jpeg" else None,
        clips_per_shard=args.clips_per_shard,
    )
    # A polite stop by the system ends as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        written, skipped = convert(args.csv, args.video_dir, args.output_dir, args.workers, settings, _tensorflow)
    except (CannotConvert, BadCsv, CannotStart, OSError) as error:
        show_error(error)
        return 1
    except KeyboardInterrupt:
        show_error("interrupted: the finished shards are kept, run again to go on")
        return 130
    show(f"{written} clips written, {skipped} rows skipped: {args.output_dir / REPORT}")
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
