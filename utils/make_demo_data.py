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
where nothing can). What the world is made of, and why, is said in demo_world.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from utils import demo_formats
from utils.demo_clips import DATASETS, ClipRecord, ClipSettings, is_in, make_clip
from utils.demo_detections import label_map
from utils.demo_world import SPLITS, WORLD_VERSION, SceneClip, plan_clips

MARKER = "demo.json"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line of this command."""
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
    started = time.perf_counter()
    settings = {name: value for name, value in vars(args).items() if name not in ("output_dir", "workers")}
    settings["world_version"] = WORLD_VERSION
    clip_settings = ClipSettings(**{name: getattr(args, name) for name in ClipSettings._fields})
    try:
        if not _prepare_folder(args.output_dir, settings):
            print(f"{args.output_dir}: up to date")
            return 0
        counts = (args.train_clips, args.val_clips, args.test_clips, args.reserve)
        clips = plan_clips(args.seed, *counts, same_shape=args.same_shape)
        _write_annotations(clips, clip_settings)
        records = _render_all(clips, clip_settings, args.workers)
        if args.didemo_clips:
            demo_formats.pack_didemo(args.output_dir / "didemo")
    except (OSError, ValueError) as error:
        print(f"make_demo_data: {error}", file=sys.stderr)
        return 1
    _write_records(records, args.output_dir)
    seconds = time.perf_counter() - started
    _mark(args.output_dir, {"complete": True, "settings": settings})
    print(_summary(clips, records, seconds))
    return 0


def _prepare_folder(folder: Path, settings: dict[str, Any]) -> bool:
    """Empty what an earlier run wrote; False when it is complete and has the same settings.

    Raises:
        ValueError: the folder has other content.
    """
    marker = folder / MARKER
    if marker.exists():
        if json.loads(marker.read_text(encoding="utf-8")) == {"complete": True, "settings": settings}:
            return False
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and was not written by this command; give another --output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    _mark(folder, {"complete": False, "settings": settings})
    for name in DATASETS:
        shutil.rmtree(folder / name, ignore_errors=True)
    return True


def _mark(folder: Path, state: dict[str, Any]) -> None:
    temporary = folder / f"{MARKER}.tmp"
    temporary.write_text(json.dumps(state), encoding="utf-8")
    os.replace(temporary, folder / MARKER)


def _write_annotations(clips: list[SceneClip], settings: ClipSettings) -> None:
    writers: dict[str, Callable[[Path, list[SceneClip], int], None]] = {
        "webvid": partial(demo_formats.write_webvid, seconds=settings.seconds),
        "msrvtt": demo_formats.write_msrvtt,
        "msvd": partial(demo_formats.write_msvd, seconds=settings.seconds),
        "lsmdc": partial(demo_formats.write_lsmdc, seconds=settings.seconds),
        "didemo": demo_formats.write_didemo,
    }
    for dataset in DATASETS:
        chosen = [clip for clip in clips if is_in(dataset, clip, settings)]
        if chosen:
            writers[dataset](settings.output_dir / dataset, chosen, settings.seed)


def _render_all(clips: list[SceneClip], settings: ClipSettings, workers: int) -> list[ClipRecord]:
    work = partial(make_clip, settings=settings)
    if workers == 1:
        return [work(clip) for clip in clips]
    # Spawned, not forked: OpenCV's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return pool.map(work, clips, chunksize=16)


def _write_records(records: list[ClipRecord], folder: Path) -> None:
    for dataset in DATASETS:
        truths = {record.ids[dataset]: record.truth for record in records if dataset in record.ids}
        if truths:
            demo_formats.write_truth(folder / dataset / "truth.json", truths)
    classes: Counter[str] = sum((record.classes for record in records), Counter())
    attributes: Counter[str] = sum((record.attributes for record in records), Counter())
    (folder / "label_map.json").write_text(json.dumps(label_map(classes, attributes)), encoding="utf-8")


def _summary(clips: list[SceneClip], records: list[ClipRecord], seconds: float) -> str:
    lines = []
    for split in SPLITS:
        counts = Counter(len(clip.scene) for clip in clips if clip.split == split)
        parts = ", ".join(f"{counts[number]} with {number}" for number in (1, 2, 3))
        lines.append(f"{split:6} {sum(counts.values()):5} clips ({parts} things)")
    for dataset in DATASETS:
        lines.append(f"{dataset:6} {sum(dataset in record.ids for record in records):5} videos")
    lines.append(f"{seconds:.1f} s, {1000 * seconds / len(clips):.0f} ms per clip")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
