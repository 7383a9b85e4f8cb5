"""A very small demo world with shards and a CLIP of few parameters, made once per test session."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import make_demo_data
from utils.models.random_clip import ClipSizes, random_state_dict, save_archive

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 12
# Twelve blocks, because the README's command reads objects at the twelfth.
CLIP_SIZES = ClipSizes(32, 8, 64, 12, 64, 64, 2, vocab_size=2000)
WITHOUT_OBJECT_FILE = ("1000003", "1000004", "1000011")
WITHOUT_OBJECTS = ("1000005", "1000017")


@dataclass(frozen=True)
class World:
    """Files of the world. Caches may be added to them; whoever changes one copies it first.

    24 clips of 4:3 for pre-training, of which three have no object file and two have one without any object; 8 test
    clips.
    """

    folder: Path

    @property
    def webvid(self) -> Path:
        return self.folder / "demo" / "webvid"

    @property
    def msrvtt(self) -> Path:
        return self.folder / "demo" / "msrvtt"

    @property
    def shards(self) -> Path:
        return self.folder / "shards"

    @property
    def labels(self) -> Path:
        return self.shards / "frozen_train_labels.json"

    @property
    def label_map(self) -> Path:
        return self.folder / "demo" / "label_map.json"

    @property
    def clip(self) -> Path:
        return self.folder / "clip" / "ViT-B-16.pt"

    def video(self, video_id: str) -> Path:
        """File of a pre-training clip."""
        return next(self.webvid.glob(f"videos/*/{video_id}.mp4"))

    def truth(self, dataset: str = "webvid") -> dict[str, dict[str, Any]]:
        """What is true of every video of a data set, by id (utils/make_demo_data.py)."""
        return json.loads((self.folder / "demo" / dataset / "truth.json").read_bytes())["videos"]

    def copy_shards(self, folder: Path) -> Path:
        """The shards and their captions, without what was cached beside them."""
        folder.mkdir(parents=True)
        for path in self.shards.iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copy(path, folder)
        return folder

    def flags(self, output_dir: Path, *more: str, shards: Path | None = None) -> list[str]:
        """A command line of tasks/pre_training.py with objects and actions; later flags win over earlier ones."""
        shards = shards or self.shards
        return [
            "--do_train", "--clip_archive", str(self.clip), "--labelmap_path", str(self.label_map),
            "--train_csv", str(shards), "--data_path", str(shards / "frozen_train_labels.json"),
            "--object_path", str(self.webvid / "objects"), "--need_object", "--use_action", "--object_count", "4",
            "--fusion_layers", "2", "--max_words", "24", "--max_frames", str(FRAMES), "--num_thread_reader", "0",
            "--n_display", "1", "--device", "cpu", "--output_dir", str(output_dir), *more,
        ]  # fmt: skip


def make_world(folder: Path) -> World:
    """Render, write shards (TensorFlow, in a process of its own) and draw the CLIP: about 10 s on one core."""
    world = World(folder)
    sizes = ["--train_clips", "24", "--val_clips", "0", "--test_clips", "8", "--size", "64"]
    sizes += ["--msvd_clips", "0", "--lsmdc_clips", "0", "--didemo_clips", "0"]
    rates = ["--seconds", "8", "--fps", "4", "--feature_framerate", "1", "--max_frames", str(FRAMES)]
    assert make_demo_data.main(["--output_dir", str(folder / "demo"), "--workers", "1", *sizes, *rates]) == 0
    objects = world.webvid / "objects"
    for video_id in WITHOUT_OBJECT_FILE:
        (objects / f"{video_id}.json").unlink()
    for video_id in WITHOUT_OBJECTS:
        (objects / f"{video_id}.json").unlink()  # not written over: MSR-VTT's file is a link to it
        (objects / f"{video_id}.json").write_text(json.dumps([{"objects": []}] * FRAMES))
    command = [sys.executable, str(ROOT / "utils/webvid_to_tfrecord.py"), "--workers", "1", "--clips_per_shard", "10"]
    command += ["--csv", str(world.webvid / "results_demo_train.csv"), "--video_dir", str(world.webvid / "videos")]
    subprocess.run([*command, "--output_dir", str(world.shards)], check=True, capture_output=True)
    save_archive(random_state_dict(CLIP_SIZES), world.clip)
    return world


@dataclass(frozen=True)
class Downstream:
    """A world with every downstream data set: 12 training, 6 validation and 7 test clips in each, and a CLIP."""

    folder: Path
    clip: Path

    def paths(self, dataset: str) -> dict[str, str]:
        """Environment of scripts/*_{dataset}.sh."""
        root = self.folder / dataset
        common = {
            "LABEL_MAP": self.folder / "label_map.json",
            "CLIP_ARCHIVE": self.clip,
            "OBJECT_PATH": root / "objects",
        }
        own = {
            "msrvtt": {
                "TRAIN_CSV": root / "train.csv",
                "CAPTIONS": root / "MSRVTT_data.json",
                "VAL_CSV": root / "val.csv",
                "TEST_CSV": root / "test.csv",
                "VIDEOS": root / "videos",
            },
            "msvd": {"ANNOTATIONS": root, "VIDEOS": root / "YouTubeClips"},
            "lsmdc": {"ANNOTATIONS": root, "VIDEOS": root / "videos"},
            "didemo": {"ANNOTATIONS": root, "VIDEOS": root / "videos.lmdb"},
        }
        return {name: str(path) for name, path in {**common, **own[dataset]}.items()}

    def choices(self) -> dict[str, str]:
        """Environment of scripts/mc_msrvtt.sh."""
        root = self.folder / "msrvtt"
        questions = {"VAL_CSV": root / "mc_val.jsonl", "TEST_CSV": root / "mc_test.jsonl"}
        return {**self.paths("msrvtt"), **{name: str(path) for name, path in questions.items()}}


def make_downstream(folder: Path, clip: Path) -> Downstream:
    """Render it: a few seconds on one core."""
    sizes = ["--train_clips", "12", "--val_clips", "6", "--test_clips", "7", "--size", "64", "--workers", "1"]
    rates = ["--seconds", "6", "--fps", "4", "--feature_framerate", "1", "--max_frames", str(FRAMES)]
    assert make_demo_data.main(["--output_dir", str(folder), *sizes, *rates]) == 0
    return Downstream(folder, clip)
