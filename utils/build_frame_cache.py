"""Fill a cache of finished frames ahead of time, so that training decodes nothing.

    python utils/build_frame_cache.py VIDEOS... --frame_cache CACHE --workers 8
    python utils/build_frame_cache.py videos.lmdb --frame_cache CACHE --frame_cache_format jpeg --frame_cache_gb 50

A place is a video file, a folder with videos anywhere below it, or an LMDB of videos. Training, evaluation and use find
the frames when given the same --frame_cache, --frame_cache_format, --max_frames, --feature_framerate,
--slice_framepos, --end_seconds (on DiDeMo 31, the default there) and --video_backend, with a model whose picture has
--resolution pixels to a side.

Videos that are there already are not decoded again: a run that was stopped at any moment goes on when started again.
Unreadable videos are remembered, with the reason, as training does. When the limit is reached or the disk is full,
nothing more is read. Exit status: 0; 1 if no video is in the cache or some could not be stored; 130 when interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.frame_cache import FrameCacheSettings
from dataloaders.frames import FrameSettings
from dataloaders.samples import SampleSettings
from modules.config import ModelConfig
from utils.preparation.frame_caching import PRESENT, STORED, UNREADABLE, UNSTORED, Filled, fill_cache, list_tasks
from utils.preparation.video_workers import CannotStart
from utils.runtime.terminal import show, show_error
from utils.settings.fields import add_flags, flags_of, from_flat

SHOWN = 10


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, SampleSettings, FrameCacheSettings]:
    """The command's arguments, and the settings in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def positive(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return int(text)

    add = parser.add_argument
    add("places", nargs="+", type=Path, metavar="VIDEOS", help="video files, folders of videos, LMDBs of videos")
    add("--max_frames", type=positive, default=ModelConfig.max_frames, help="as in the tasks (default: %(default)s)")
    add("--resolution", type=positive, default=ModelConfig.image_resolution, help="side of the model's picture in "
        "pixels, as its CLIP weights have it (default: %(default)s)")  # fmt: skip
    add("--workers", type=positive, default=os.cpu_count() or 1, help="processes that decode (default: %(default)s)")
    add_flags(parser, FrameSettings, show_default=True)
    add_flags(parser, FrameCacheSettings, show_default=True)
    args = parser.parse_args(argv)
    if args.frame_cache is None:
        parser.error("--frame_cache is required: the folder to fill")
    try:
        frames = from_flat(FrameSettings, {flag.name: getattr(args, flag.name) for flag in flags_of(FrameSettings)})
        own = {flag.name: getattr(args, flag.name) for flag in flags_of(FrameCacheSettings)}
        return args, SampleSettings(args.resolution, args.max_frames, frames=frames), from_flat(FrameCacheSettings, own)
    except ValueError as error:
        parser.error(str(error))


def report(folder: str, filled: Filled) -> None:
    """Print what became of the videos."""
    for text in filled.warnings:
        show_error(text)
    _print_first("unreadable", filled.unreadable)
    _print_first("not read", filled.failed)
    counts = filled.counts
    show(f"{folder}: {counts[STORED]} videos stored, {counts[PRESENT]} were there, {counts[UNREADABLE]} unreadable; "
          f"{filled.size / 1e9:.3f} GB")  # fmt: skip
    if filled.is_stopped:
        show(f"storing has stopped: {counts[UNSTORED]} videos read but not stored, {filled.skipped} not looked at")


def _print_first(title: str, reasons: Sequence[str]) -> None:
    for reason in reasons[:SHOWN]:
        show_error(f"{title}: {reason}")
    if len(reasons) > SHOWN:
        show_error(f"{title}: {len(reasons) - SHOWN} more")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args, settings, cache_settings = parse_arguments(argv)
    try:
        tasks = list_tasks(args.places)
        cache = cache_settings.open()
        assert cache is not None
        filled = fill_cache(cache, tasks, settings, args.workers)
    except (OSError, CannotStart) as error:
        show_error(f"build_frame_cache: {error}")
        return 1
    except KeyboardInterrupt:
        show_error("interrupted: what is stored is kept, run again to go on")
        return 130
    report(args.frame_cache, filled)
    return 0 if filled.is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
