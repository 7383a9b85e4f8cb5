"""Render the demo world: clips of moving coloured shapes with captions, questions and detections.

Writes under --output_dir

    label_map.json                                     classes and attributes of the detections (VinVL's structure)
    webvid/   results_demo_train.csv, videos/{page_dir}/{videoid}.mp4
    msrvtt/   train.csv, val.csv, test.csv, MSRVTT_data.json, mc_{val,test}.jsonl, videos/video{N}.mp4,
              qa/{train,val,test}.jsonl, qa/train_ans2label.json
    msvd/     {train,val,test}_list.txt, raw-captions.pkl, YouTubeClips/{name}.avi,
              qa/{train,val,test}_qa.json, qa/train_ans2label.json, qa/id_mapping.json, qa/youtube_mapping.txt
    lsmdc/    LSMDC16_annos_{training,val}.csv, LSMDC16_challenge_1000_publictect.csv, videos/{movie}/{clip_id}.avi
    didemo/   {train,val,test}_list.txt, {train,val,test}_data.json, videos/{name}, and videos.lmdb with the same files
    each with objects/{video_id}.json (DiDeMo: {name}_[0]_[31].json) and truth.json

The training clips of all are the same ones under other names; validation and test clips are in all but WebVid. DiDeMo's
names end in an extension, empty in every tenth; its video ids are the names up to the first ".". `truth.json` has per
video its split, size, sampled frames, things, and per sampled frame the box of what can be seen of each thing (null
where nothing can). What the world is made of, and why, is said in utils/demo/world.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from utils.demo.building import write_world
from utils.demo.clips import ClipSettings
from utils.runtime.terminal import show_error, show_lines


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="folder to write; one that this command wrote is updated")
    add("--train_clips", type=int, default=2000, help="training clips (default: %(default)s)")
    add("--val_clips", type=int, default=100, help="validation clips (default: %(default)s)")
    add("--test_clips", type=int, default=100, help="test clips (default: %(default)s)")
    for flag, name in (("--msvd_clips", "MSVD"), ("--lsmdc_clips", "LSMDC"), ("--didemo_clips", "DiDeMo")):
        add(flag, type=int, default=400, help=f"training clips of {name}; 0: no {name} at all (default: %(default)s)")
    add(
        "--reserve",
        type=int,
        default=0,
        help="test scenes kept out of training, if more than --test_clips: give the size of the largest test set that "
        "a model trained on this world will be scored on (default: %(default)s)",
    )
    add(
        "--same_shape",
        action="store_true",
        help="the things of a clip have one shape and different colours (otherwise different shapes): the trajectories "
        "of --trajectory class then hold several things",
    )
    add("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    add("--workers", type=int, default=2, help="processes; the files do not depend on it (default: %(default)s)")
    add("--size", type=int, default=96, help="short side of the 4:3 pictures in pixels (default: %(default)s)")
    add("--seconds", type=float, default=6, help="length of a clip (default: %(default)s)")
    add("--fps", type=float, default=4, help="frames per second (default: %(default)s)")
    add("--feature_framerate", type=float, default=2, help="candidates per second with boxes (default: %(default)s)")
    add("--max_frames", type=int, default=12, help="frames with boxes per clip (default: %(default)s)")
    args = parser.parse_args(argv)
    for name in ("train_clips", "workers", "max_frames"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    for name in ("val_clips", "test_clips", "msvd_clips", "lsmdc_clips", "didemo_clips", "reserve", "seed"):
        if getattr(args, name) < 0:
            parser.error(f"--{name} must not be negative")
    if args.size < 32 or min(args.seconds, args.fps, args.feature_framerate) <= 0:
        parser.error("--size must be at least 32; --seconds, --fps and --feature_framerate above 0")
    return args


def main(argv: list[str] | None = None) -> int:
    """Make the demo data and print a summary."""
    args = parse_arguments(argv)
    choices = {name: value for name, value in vars(args).items() if name not in ("output_dir", "workers")}
    settings = ClipSettings(**{name: getattr(args, name) for name in ClipSettings._fields})
    try:
        summary = write_world(settings, choices, args.workers)
    except (OSError, ValueError) as error:
        show_error(f"make_demo_data: {error}")
        return 1
    show_lines((summary or f"{args.output_dir}: up to date").splitlines())
    return 0


if __name__ == "__main__":
    sys.exit(main())
