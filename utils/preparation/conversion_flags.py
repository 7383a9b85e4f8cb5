"""The flags of the conversion to shards."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from utils.preparation.shard_parts import WHOLE, Part


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return int(text)


def _part(text: str) -> Part:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text} is no part; of three parts they are 0/3, 1/3 and 2/3")
    return Part(int(index), int(count))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command's flags, checked against each other."""
    parser = argparse.ArgumentParser(
        description="Convert captioned clips to TFRecord shards; run again after a stop to go on.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--csv",
        type=Path,
        help="columns videoid, name, page_dir (WebVid's) or video, caption; .tsv, .jsonl: the latter",
    )
    add("--video_dir", type=Path, help="with --csv; holds {page_dir}/{videoid}.mp4, {videoid}.mp4 or what `video` says")
    add(
        "--tar", nargs="+", action="extend", help="tar files of KEY.mp4 with KEY.txt or KEY.json; also 'a/{00..99}.tar'"
    )
    add("--output_dir", type=Path, required=True, help="folder to write to")
    add("--part", type=_part, default=WHOLE, help="i/n from 0: convert this part only, others on other machines")
    add("--merge", action="store_true", help="finish --output_dir, of which all parts are there")
    add("--workers", type=_positive, default=os.cpu_count() or 1, help="decoding processes")
    add(
        "--frame_format",
        choices=("jpeg", "raw"),
        default="jpeg",
        help="jpeg keeps the aspect; raw is the released format, squashed to a square",
    )
    add("--size", type=_positive, default=256, help="short side (jpeg, never enlarged) or both (raw)")
    add("--feature_framerate", type=float, default=1.0, help="frames kept per second")
    add("--jpeg_quality", type=int, choices=range(1, 101), metavar="1..100", default=90, help="of the stored frames")
    add("--clips_per_shard", type=_positive, default=1000, help="rows per shard")
    args = parser.parse_args(argv)
    if reason := _why_not(args, parser):
        parser.error(reason)
    return args


def _why_not(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """Why the flags do not fit together; "" if they do."""
    if args.merge:
        given = [name for name in vars(args) if getattr(args, name) != parser.get_default(name)]
        more = [f"--{name}" for name in given if name not in ("merge", "output_dir")]
        return f"--merge takes --output_dir alone, not {', '.join(more)}" if more else ""
    if not 0 < args.feature_framerate < float("inf"):
        return "--feature_framerate must be above 0"
    if (args.csv is None) == (args.tar is None):
        return "one of --csv and --tar is needed"
    if (args.csv is None) != (args.video_dir is None):
        return "--csv needs --video_dir, and --tar has none"
    if args.csv and not args.csv.is_file():
        return f"--csv {args.csv}: there is no such file"
    if args.video_dir and not args.video_dir.is_dir():
        return f"--video_dir {args.video_dir}: there is no such folder"
    return ""
