"""Convert captioned clips to TFRecord shards: those of WebVid's csv, of a csv of your own, or in tar files.

    python utils/webvid_to_tfrecord.py --csv results_2M_val.csv --video_dir DIR --output_dir OUT --workers 2
    python utils/webvid_to_tfrecord.py --csv mine.csv --video_dir DIR --output_dir OUT      # columns video, caption
    python utils/webvid_to_tfrecord.py --tar 'shards/{00000..00099}.tar' --output_dir OUT   # video2dataset's output

Writes OUT/path.index, OUT/path-*.tfrecord, OUT/frozen_train_labels.json and OUT/report.json. A shard holds a fixed run
of rows; its companion in OUT/parts appears when it is complete. A run that was stopped at any moment goes on, when
started again, with the records that are missing, and the end result is the same. To try skipped videos again, say after
more have been downloaded, delete their shards' companions and run again.

Several machines share the work: the same command with --part 0/3, 1/3 and 2/3, at any time and in any order, and then
`--merge --output_dir OUT`, which writes what one machine would have written.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from utils.preparation.caption_rows import CaptionSource, open_table
from utils.preparation.conversion_flags import arguments
from utils.preparation.shard_files import REPORT, CannotConvert, Settings
from utils.preparation.shard_parts import merge
from utils.preparation.shards import ClipSource, convert, sha256_of
from utils.preparation.tar_members import BadTar
from utils.preparation.tar_rows import TarSource
from utils.preparation.video_workers import CannotStart
from utils.preparation.webvid_rows import BadCsv
from utils.runtime.terminal import show, show_error


def _tensorflow() -> Any:
    # Here and nowhere else: TensorFlow and PyTorch in one process crash, and a run with nothing to write needs neither.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow

    return tensorflow


def _convert(args: argparse.Namespace) -> bool:
    """Convert or merge, and say what was written; whether that is anything."""
    if args.merge:
        counts = merge(args.output_dir)
    else:
        tars = TarSource(args.tar) if args.tar else None
        settings = Settings(
            csv_sha256=sha256_of(args.csv) if args.csv else None,
            frame_format=args.frame_format,
            size=args.size,
            feature_framerate=args.feature_framerate,
            jpeg_quality=args.jpeg_quality if args.frame_format == "jpeg" else None,
            clips_per_shard=args.clips_per_shard,
            tar_sha256=tars.sha256 if tars else None,
        )
        source: ClipSource = tars or open_table(args.csv)
        if isinstance(source, CaptionSource) and source.other_rows:
            show(f"{source.other_rows} rows of other splits than train are left out")
        counts = convert(source, args.video_dir, args.output_dir, args.workers, settings, _tensorflow, args.part)
    captions = "" if counts.captions == counts.clips else f" with {counts.captions} captions"
    written = f"{counts.clips} clips{captions} written, {counts.skipped} rows skipped"
    if args.part.is_whole:
        show(f"{written}: {args.output_dir / REPORT}")
    else:
        show(f"{written} in part {args.part}; when all parts are there: --merge --output_dir {args.output_dir}")
    # A part may have no rows, or none but further captions of clips in other parts.
    return counts.captions > 0 or not (args.part.is_whole or counts.skipped)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, or 1 when it could not run or wrote no clip, or 130 when it was interrupted."""
    args = arguments(argv)
    # A polite stop by the system ends as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return 0 if _convert(args) else 1
    except (CannotConvert, BadCsv, BadTar, CannotStart, OSError) as error:
        show_error(error)
        return 1
    except KeyboardInterrupt:
        show_error("interrupted: the finished shards are kept, run again to go on")
        return 130


if __name__ == "__main__":
    sys.exit(main())
