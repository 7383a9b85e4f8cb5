"""Ways of reading a clip, from MP4 and from shards, and the clips to read."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from dataloaders.frames import candidate_indices, pick_positions, read_clip
from dataloaders.pretrain_index import INDEX_FILE, ClipPlace, read_path_index
from dataloaders.stored_clips import ShardReader
from dataloaders.stored_frames import stored_candidates
from dataloaders.transforms import frames_to_tensor
from tests.benchmark.report import ROOT

MAX_FRAMES, RESOLUTION = 12, 224
WIDTH, HEIGHT, FPS = 596, 336, 25  # a WebVid clip

Read = Callable[[], torch.Tensor]


def render_clip(path: Path, seconds: float, seed: int) -> None:
    """Write an MP4 of a drifting texture with moving discs, about as hard to code as stock footage."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grain = draw.normal(0, 6, (HEIGHT, WIDTH, 1))
    texture = np.clip(texture * 0.6 + 50 + grain, 0, 255).astype(np.uint8)
    speed, discs = draw.uniform(-1.5, 1.5, 2), draw.uniform(0, 1, (4, 4))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise OSError(f"{path}: OpenCV cannot write this video")
    for moment in range(round(seconds * FPS)):
        frame = np.roll(texture, np.rint(speed * moment).astype(int), axis=(0, 1))
        for x, y, turn, size in discs:
            angle = 2 * np.pi * (turn + moment / FPS / 5)
            centre = (int(WIDTH * (x + 0.2 * np.cos(angle))), int(HEIGHT * (y + 0.2 * np.sin(angle))))
            cv2.circle(frame, centre, int(20 + 40 * size), (int(255 * x), int(255 * y), int(255 * size)), -1)
        writer.write(frame)
    writer.release()


def find_clips(folder: Path | None, scratch: Path, count: int, seconds: float) -> list[Path]:
    """At most `count` MP4 files of a folder and those below it, or as many rendered ones, under numbers as names."""
    target = scratch / "videos"
    target.mkdir()
    found = sorted(folder.rglob("*.mp4"))[:count] if folder else []
    if folder and not found:
        raise FileNotFoundError(f"no *.mp4 in {folder} (--videos)")
    paths = [target / f"{number}.mp4" for number in range(len(found) or count)]
    for number, path in enumerate(paths):
        if found:
            path.symlink_to(found[number].resolve())
        else:
            render_clip(path, seconds, number)
    return paths


def write_shards(videos: list[Path], scratch: Path, frame_format: str) -> Path:
    """Run utils/webvid_to_tfrecord.py in a process of its own (TensorFlow); returns the shard folder."""
    table, output = scratch / "clips.csv", scratch / frame_format
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("videoid", "name", "page_dir"))
        rows.writerows((path.stem, "a moving texture", "") for path in videos)
    command = [sys.executable, "utils/webvid_to_tfrecord.py", "--csv", table, "--video_dir", videos[0].parent]
    command += ["--output_dir", output, "--workers", "1", "--frame_format", frame_format]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"utils/webvid_to_tfrecord.py failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return output


def shard_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.tfrecord"))


def forward_reads(videos: list[Path]) -> list[Read]:
    """MP4 as the loaders read it: decoded forward, only picked frames converted and transformed."""
    return [lambda path=path: frames_to_tensor(read_clip(path, MAX_FRAMES).frames, RESOLUTION) for path in videos]


def shard_reads(folder: Path) -> list[Read]:
    """Records as the pre-training dataset reads them."""
    reader = ShardReader(folder)

    def read(place: ClipPlace) -> torch.Tensor:
        clip = reader.read(place.shard_path, place.offset, place.video_id)
        candidates = stored_candidates(clip, 1, place.video_id)
        return frames_to_tensor(clip.decode(candidates[pick_positions(len(candidates), MAX_FRAMES)]), RESOLUTION)

    return [lambda place=place: read(place) for place in read_path_index(folder / INDEX_FILE)]


def seek_reads(videos: list[Path], *, all_candidates: bool) -> list[Read]:
    """MP4 by seeking to each frame that is wanted.

    The released code seeks to every second, transforms every frame that it gets, and picks afterwards
    (`all_candidates`); seeking to the picked frames alone is the best that seeking can do.
    """
    return [lambda path=path: _seek(path, all_candidates) for path in videos]


def _seek(path: Path, all_candidates: bool) -> torch.Tensor:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    fps, stated = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    candidates = candidate_indices(stated, fps)
    picks = pick_positions(len(candidates), MAX_FRAMES)
    frames: dict[int, np.ndarray] = {}
    for position in range(len(candidates)) if all_candidates else sorted(set(picks.tolist())):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(candidates[position]))
        is_image, image = capture.read()
        if is_image:
            frames[position] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    capture.release()
    if not frames:
        raise ValueError(f"{path}: seeking gives no frame")
    # A frame that seeking misses is replaced by the last one that it gives.
    held = [max((p for p in frames if p <= pick), default=min(frames)) for pick in picks.tolist()]
    if not all_candidates:
        return frames_to_tensor([frames[position] for position in held], RESOLUTION)
    order = {position: row for row, position in enumerate(frames)}
    return frames_to_tensor(list(frames.values()), RESOLUTION)[[order[position] for position in held]]
