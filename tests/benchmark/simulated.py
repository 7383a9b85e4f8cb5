"""A simulated pre-training set of any number of clips: real index and captions, one real record, few object files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np

from tests.benchmark.clips import FPS, HEIGHT, WIDTH
from tests.tfrecords import encode, record

CLIPS_PER_SHARD = 1000
FRAMES, OBJECTS, CLASSES = 12, 10, 1594  # objects of a clip; VinVL's number of classes
SUBJECTS = ("man", "young woman", "dog", "little girl", "farmer", "surfer", "chef", "cat", "old couple", "train")
ACTIONS = ("walking", "running slowly", "playing", "sitting", "dancing", "waiting", "working", "turning around")
PLACES = ("in the park", "on a beach at sunset", "near the river", "in a busy street of the old town", "at home")
ENDINGS = ("", ", slow motion", ", aerial view", " with a red ball", " in front of tall mountains", ", close up",
           " on a rainy day", ", 4k stock footage", " and looking at the camera", ", time lapse")  # fmt: skip


def video_id(number: int) -> str:
    return str(1_000_000_000 + number)


def captions() -> list[str]:
    """4,000 distinct captions of a WebVid caption's length."""
    return [f"A {a} {b} {c}{d}" for a in SUBJECTS for b in ACTIONS for c in PLACES for d in ENDINGS]


def write_set(folder: Path, clips: int) -> None:
    """`path.index` and `frozen_train_labels.json` of so many clips; shards of 1,000 clips, all one real file.

    Every row points to the file's one record, which states no video id.
    """
    folder.mkdir(parents=True)
    texts = captions()
    shards = -(-clips // CLIPS_PER_SHARD)
    first = folder / _shard(0)
    first.write_bytes(record(_record()))
    for number in range(1, shards):
        os.link(first, folder / _shard(number))
    with (folder / "path.index").open("w") as index, (folder / "frozen_train_labels.json").open("w") as labels:
        labels.write("[\n")
        for number in range(clips):
            name = video_id(number)
            index.write(f"{name}\t{_shard(number // CLIPS_PER_SHARD)}\t0\n")
            # A stride that shares no factor with 4,000 visits all captions in mixed order.
            text = texts[number * 1597 % len(texts)]
            labels.write(("" if number == 0 else ",\n") + f'{{"video_id": "{name}", "caption": "{text}"}}')
        labels.write("\n]\n")


def _shard(number: int) -> str:
    return f"path-{number:05d}.tfrecord"


def _record() -> bytes:
    """15 frames of a 15-second clip, as JPEG of short side 256."""
    size = (round(WIDTH * 256 / HEIGHT), 256)
    draw = np.random.default_rng(0)
    images = []
    for _ in range(15):
        coarse = draw.integers(0, 256, (32, 57, 3), dtype=np.uint8)
        image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        images.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return encode(
        {
            "image": images,
            "format": [b"jpeg"],
            "width": [WIDTH],
            "height": [HEIGHT],
            "stored_width": [size[0]],
            "stored_height": [size[1]],
            "fps": [float(FPS)],
            "frame_indices": list(range(0, 15 * FPS, FPS)),
        }
    )


def write_label_map(path: Path) -> None:
    path.write_text(json.dumps({"label_to_idx": {f"class {number}": number for number in range(1, CLASSES + 1)}}))


def write_objects(folder: Path, names: list[str]) -> None:
    """Object files of these clips: 10 boxes of 7 classes in each of 12 frames."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in names:
        classes = draw.integers(1, CLASSES + 1, 7)
        corner = draw.random((FRAMES, OBJECTS, 2)) * (WIDTH * 0.6, HEIGHT * 0.6)
        boxes = np.concatenate([corner, corner + 20 + draw.random((FRAMES, OBJECTS, 2)) * 100], axis=2).tolist()
        kinds, sure = draw.choice(classes, (FRAMES, OBJECTS)).tolist(), draw.random((FRAMES, OBJECTS)).tolist()
        frames = [
            {
                "objects": [
                    {"class": f"class {kinds[t][o]}", "rect": boxes[t][o], "conf": sure[t][o]} for o in range(OBJECTS)
                ]
            }
            for t in range(FRAMES)
        ]
        (folder / f"{name}.json").write_text(json.dumps(frames))
