"""Sound data sets of 100 clips in every layout, made once, and copies of one that a fault may change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.world import ROOT
from utils import make_demo_data
from utils.models.random_clip import ClipSizes, random_state_dict, save_archive

FRAMES, RATE = 4, 2
SIZES = ClipSizes(32, 16, 64, 2, 64, 64, 2, vocab_size=1000)
CLIPS = {"train": 80, "val": 8, "test": 12}
FILES = {
    "webvid": {"train_csv": "results_demo_train.csv", "features_path": "videos"},
    "msrvtt": {
        "train_csv": "train.csv",
        "val_csv": "val.csv",
        "test_csv": "test.csv",
        "data_path": "MSRVTT_data.json",
        "features_path": "videos",
    },
    "msvd": {"features_path": "YouTubeClips", "data_path": ""},
    "lsmdc": {"features_path": "videos", "data_path": ""},
    "didemo": {"features_path": "videos.lmdb", "data_path": ""},
    "pretrain": {"train_csv": "", "data_path": "frozen_train_labels.json"},
}
USUAL = [
    "--do_train", "--need_object", "--object_count", "4", "--fusion_layers", "1", "--max_words", "16",
    "--num_thread_reader", "0", "--n_display", "1", "--device", "cpu", "--batch_size", "8", "--epochs", "1",
    "--max_frames", str(FRAMES), "--feature_framerate", str(RATE), "--on_bad_video", "skip",
]  # fmt: skip


def make_worlds(folder: Path) -> None:
    """Render all data sets, write shards (TensorFlow, in a process of its own) and draw the CLIP."""
    demo = folder / "demo"
    counts = [f"--{split}_clips={count}" for split, count in CLIPS.items()]
    counts += [f"--{name}_clips=80" for name in ("msvd", "lsmdc", "didemo")]
    rates = ["--size", "48", "--seconds", "3", "--fps", "4", "--feature_framerate", str(RATE)]
    rates += ["--max_frames", str(FRAMES), "--workers", "1"]
    assert make_demo_data.main(["--output_dir", str(demo), *counts, *rates]) == 0
    make_shards(demo / "webvid", demo / "pretrain", RATE)
    (demo / "pretrain" / "objects").symlink_to(demo / "webvid" / "objects")
    save_archive(random_state_dict(SIZES), folder / "ViT-B-16.pt")


def make_shards(webvid: Path, target: Path, rate: float) -> None:
    """Convert a csv and its clips as a user does."""
    command = [sys.executable, str(ROOT / "utils/webvid_to_tfrecord.py"), "--workers", "1", "--clips_per_shard", "20"]
    command += ["--csv", str(webvid / "results_demo_train.csv"), "--video_dir", str(webvid / "videos")]
    command += ["--output_dir", str(target), "--feature_framerate", str(rate)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class DataSet:
    """A copy of one data set, which a fault may change; `datatype` is that of `utils/check_data.py`."""

    folder: Path
    clip: Path
    datatype: str

    @property
    def name(self) -> str:
        """Folder of the data set."""
        return self.datatype.partition("_")[0]

    @property
    def root(self) -> Path:
        return self.folder / self.name

    @property
    def label_map(self) -> Path:
        return self.folder / "label_map.json"

    @property
    def shards(self) -> list[Path]:
        return sorted(self.root.glob("*.tfrecord"))

    def video(self, video_id: str) -> Path:
        """File of a video."""
        return next(path for path in self.root.rglob(f"{video_id}.*") if path.suffix != ".json")

    def object_file(self, video_id: str) -> Path:
        return self.root / "objects" / f"{video_id}.json"

    def flags(self) -> list[str]:
        """The task's command line, which the check takes too."""
        files = dict(FILES[self.name])
        task = self.datatype.partition("_")[2]
        if task == "caption" and self.name == "msrvtt":
            files = {key: value for key, value in files.items() if not key.endswith("_csv")}
        if task == "mc":
            files |= {"val_csv": "mc_val.jsonl", "test_csv": "mc_test.jsonl"}
        if task == "qa":
            files = {"features_path": files["features_path"]}
            suffix = "_qa.json" if self.name == "msvd" else ".jsonl"
            files |= {f"{self.name}_qa_{name}_json": f"qa/{name}{suffix}" for name in CLIPS}
            files |= {f"{self.name}_qa_anslabel_json": "qa/train_ans2label.json"}
        own = [part for name, path in files.items() for part in (f"--{name}", str(self.root / path))]
        own += ["--object_path", str(self.root / "objects"), "--labelmap_path", str(self.label_map)]
        own += ["--clip_archive", str(self.clip), "--datatype", self.datatype]
        return [*USUAL, *own]

    # -- changes: a file is never written over, since copies and data sets share files by hard links

    def write(self, path: Path, content: bytes | str) -> None:
        """Put another file in the place of one."""
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)

    def edit(self, name: str, change: Callable[[str], str], encoding: str = "utf-8") -> None:
        """Change the text of a file of the data set."""
        path = self.root / name
        text = change(path.read_bytes().decode())
        self.write(path, text.encode(encoding, "surrogatepass"))

    def edit_lines(self, name: str, change: Callable[[list[str]], list[str]]) -> None:
        """Change the lines of a file of the data set."""
        self.edit(name, lambda text: "\n".join(change(text.splitlines())) + "\n")

    def edit_json(self, path: Path, change: Callable[[Any], Any]) -> None:
        """Change the value of a JSON file."""
        self.write(path, json.dumps(change(json.loads(path.read_bytes()))))


def copy_data_set(worlds: Path, folder: Path, datatype: str) -> DataSet:
    """A copy of the world's data set for one fault, by hard links."""
    data = DataSet(folder, worlds / "ViT-B-16.pt", datatype)
    demo = worlds / "demo"
    shutil.copytree(demo / data.name, data.root, copy_function=_link)
    os.link(demo / "label_map.json", data.label_map)
    return data


def _link(source: str, target: str) -> str:
    if source.endswith(".mdb"):  # written in place
        return shutil.copy(source, target)
    os.link(source, target)
    return target
