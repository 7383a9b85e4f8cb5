"""Measure the data side: clips per second by format, whole samples with a frame cache, and the start of training.

    bash scripts/benchmark.sh data [--videos DIR] [--rounds 3] [--clips 2500000]
    bash scripts/benchmark.sh data --parts samples --real DIR

Clips are read in one process, with one decoding thread, from files that are in the page cache. Without --videos they
are rendered here, as MPEG-4 part 2 with a key frame every 12 frames: seeking costs more in WebVid's H.264.
Samples are those of retrieval fine-tuning, with made-up captions; what frames cost is the time beyond that of the same
samples without any picture work. With --real they are of MSR-VTT's and WebVid's clips in a folder, which is only read.
The start of training is measured in a fresh process on a simulated set whose index and captions are as large as
WebVid's; all rows point to one real record, and only the clips that are read first have objects.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dataloaders.built_caches import fingerprint_folder
from dataloaders.pretrain_index import PretrainIndex, prepare_pretrain_index
from tests.benchmark import clips, first_batch, simulated, whole_samples
from tests.benchmark.report import ROOT, add_output_flag, machine_facts, print_table, write_report
from utils.runtime.sampler import GlobalBatchSampler

SEEK = "mp4, seek to every second (released)"
SEEK_PICKED = "mp4, seek to the picked frames"
FORWARD = "mp4, forward"
GOALS = {"start_seconds": 60.0, "peak_gb": 1.0}
BATCH_SIZE = 8  # of the README command
SEED = 42  # the flags' default
PARTS = ("reading", "samples", "start")


def measure_reading(args: argparse.Namespace, videos: list[Path], scratch: Path) -> dict[str, Any]:
    """Clips per second of each way, one round of each in turns."""
    shards = {kind: clips.write_shards(videos, scratch, kind) for kind in ("jpeg", "raw")}
    ways = {
        FORWARD: clips.forward_reads(videos),
        "jpeg shards": clips.shard_reads(shards["jpeg"]),
        "raw shards": clips.shard_reads(shards["raw"]),
        SEEK: clips.seek_reads(videos, all_candidates=True),
        SEEK_PICKED: clips.seek_reads(videos, all_candidates=False),
    }
    tensors = {name: [read() for read in reads] for name, reads in ways.items()}  # warms the page cache
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, reads in ways.items():
            start = time.perf_counter()
            for read in reads:
                read()
            rates[name].append(len(reads) / (time.perf_counter() - start))
    sizes = {"mp4": sum(path.stat().st_size for path in videos)}
    sizes |= {kind: clips.shard_bytes(folder) for kind, folder in shards.items()}
    return {
        "source": "given" if args.videos else f"rendered, {clips.WIDTH}x{clips.HEIGHT}, {args.seconds:g} s",
        "clips": len(videos),
        "frames_per_clip": clips.MAX_FRAMES,
        "clips_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "clips_per_second_by_round": rates,
        "bytes_per_clip": {name: size / len(videos) for name, size in sizes.items()},
        "frames_equal_to_forward_percent": {
            name: _equal_frames(tensors[name], tensors[FORWARD]) for name in (SEEK, SEEK_PICKED)
        },
    }


def _equal_frames(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Percent of frames that are the same picture."""
    same = [(a == b).flatten(1).all(1) for a, b in zip(found, expected, strict=True)]
    return 100 * float(torch.cat(same).float().mean())


def measure_samples(args: argparse.Namespace, videos: list[Path], scratch: Path) -> dict[str, Any]:
    """Whole samples of each set of videos."""
    sets = whole_samples.real_sets(args.real) if args.real else [whole_samples.rendered_set(videos, scratch)]
    return {one.name: whole_samples.measure_samples(one, args.rounds, args.turn_seconds, scratch) for one in sets}


def measure_start(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Prepare a simulated set, then start on it in a fresh process."""
    folder, shards = scratch / "simulated", scratch / "simulated" / "shards"
    simulated.write_set(shards, args.clips)
    simulated.write_label_map(folder / "label_map.json")
    start = time.perf_counter()
    index = PretrainIndex(prepare_pretrain_index(shards / "frozen_train_labels.json", shards, workers=args.workers))
    tagged = time.perf_counter() - start
    first = _first_samples(len(index), args.object_clips)
    objects = folder / "objects"
    simulated.write_objects(objects, [index.video_id(row) for row in first])
    start = time.perf_counter()
    first_batch.prepare(first_batch.arguments(folder, BATCH_SIZE, args.workers))
    built = time.perf_counter() - start
    for path in objects.glob("*.json"):
        path.unlink()  # the store is used as it is, as on a machine that never had the files
    runs = [_run_first_batch(folder, args) for _ in range(args.starts)]
    median = sorted(runs, key=lambda run: run["seconds_since_start"]["first batch"])[len(runs) // 2]
    return {
        "clips": args.clips,
        "distinct_captions": len(simulated.captions()),
        "clips_with_objects": len(first),
        "preparation_seconds": {"captions": tagged, "objects": built},
        "first_batch": median,
        "all_starts_seconds": [run["seconds_since_start"]["first batch"] for run in runs],
        "object_file_check_seconds_per_million": _check_seconds(scratch / "listing", args.object_files),
    }


def _first_samples(samples: int, count: int) -> list[int]:
    """The samples that training reads first."""
    rows: list[int] = []
    for batch in GlobalBatchSampler(samples, BATCH_SIZE, seed=SEED):
        rows += [row for _, row in batch]
        if len(rows) >= count:
            break
    return rows


def _run_first_batch(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmark.first_batch", str(folder), "--workers", str(args.workers)]
    command += ["--batch", str(BATCH_SIZE), "--started", str(time.time())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the start of training failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _check_seconds(folder: Path, count: int) -> float | None:
    """What a start spends on seeing that a million object files, where they are still there, are unchanged."""
    if not count:
        return None
    folder.mkdir()
    for number in range(count):
        (folder / f"{simulated.video_id(number)}.json").touch()
    start = time.perf_counter()
    fingerprint_folder(folder, ".json")
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    return seconds / count * 1e6


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="benchmark.sh data"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured (default: all)")
    parser.add_argument("--real", type=Path, help="folder of msrvtt, webvid, objects and vinvl for the samples")
    parser.add_argument("--videos", type=Path, help="folder of MP4 files to read (default: rendered ones)")
    parser.add_argument("--videos-count", type=int, default=8, help="clips to read at most (default 8)")
    parser.add_argument("--seconds", type=float, default=15, help="length of rendered clips (default 15)")
    parser.add_argument("--rounds", type=int, default=5, help="times that all clips are read each way (default 5)")
    parser.add_argument(
        "--turn-seconds", type=float, default=0.2, help="least time of one source of samples in a round (default 0.2)"
    )
    parser.add_argument("--clips", type=int, default=2_500_000, help="clips of the simulated set (default 2500000)")
    parser.add_argument("--object-clips", type=int, default=2000, help="simulated clips with objects (default 2000)")
    parser.add_argument(
        "--object-files", type=int, default=200_000, help="files for timing the check for changes (default 200000)"
    )
    parser.add_argument("--workers", type=int, default=4, help="worker processes of the loader (default 4)")
    parser.add_argument("--starts", type=int, default=3, help="times that a fresh process starts (default 3)")
    add_output_flag(parser)
    args = parser.parse_args(argv)
    if min(args.videos_count, args.rounds, args.clips, args.object_clips, args.starts) < 1:
        parser.error("counts must be at least 1")
    if args.clips < BATCH_SIZE:
        parser.error(f"--clips must be at least {BATCH_SIZE}, one batch")
    return args


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All measurements; what is written on the way is removed."""
    facts = machine_facts()
    args.output.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"machine": facts}
    with tempfile.TemporaryDirectory(dir=args.output) as name:
        scratch = Path(name)
        videos = clips.find_clips(args.videos, scratch, args.videos_count, args.seconds) if _needs_videos(args) else []
        if "reading" in args.parts:
            result["reading"] = measure_reading(args, videos, scratch)
        if "samples" in args.parts:
            result["samples"] = measure_samples(args, videos, scratch)
        if "start" in args.parts:
            result["start"] = measure_start(args, scratch)
    return {**result, "goals": GOALS}


def _needs_videos(args: argparse.Namespace) -> bool:
    return "reading" in args.parts or ("samples" in args.parts and not args.real)


def show(result: dict[str, Any]) -> None:
    """Print the report's tables."""
    if "reading" in result:
        _show_reading(result["reading"])
    for name, found in result.get("samples", {}).items():
        whole_samples.show_samples(name, found)
    if "start" in result:
        _show_start(result["start"], result["goals"])


def _show_reading(reading: dict[str, Any]) -> None:
    equal = reading["frames_equal_to_forward_percent"]
    print_table(
        f"clips per second, one process, {reading['clips']} clips ({reading['source']})",
        [
            ("", "clips/s", "frames equal to forward, %"),
            *((name, rate, equal.get(name)) for name, rate in reading["clips_per_second"].items()),
        ],
    )
    print_table("kB per clip", [(name, size / 1e3) for name, size in reading["bytes_per_clip"].items()])


def _show_start(start: dict[str, Any], goals: dict[str, float]) -> None:
    first = start["first_batch"]
    limits = {"first batch": f"< {goals['start_seconds']:g}"}
    since = first["seconds_since_start"].items()
    print_table(
        f"start of training on {start['clips']:,} clips, {start['clips_with_objects']:,} of them with objects",
        [
            ("", "measured", "goal"),
            *((f"seconds until: {name}", value, limits.get(name)) for name, value in since),
            ("peak GB of the rank", first["peak_gb"], f"< {goals['peak_gb']:g}"),
            ("of it, torch imported alone", first["torch_alone_gb"], None),
            ("GB of rank and workers, shared pages once", first["rank_and_workers_gb"], None),
            ("seconds per million object files, if still there", start["object_file_check_seconds_per_million"], None),
            ("preparation, once: captions, seconds", start["preparation_seconds"]["captions"], None),
        ],
    )


def main(argv: list[str] | None = None) -> Path:
    args = parse(argv)
    result = run(args)
    show(result)
    path = write_report(args.output, "data", result)
    print(f"\nwritten to {path}")
    return path


if __name__ == "__main__":
    main()
