"""Building of stores, shards, caches and indexes by their commands, for the campaign of kills."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.frame_cache import FrameCache
from dataloaders.lmdb_files import forget_environment
from dataloaders.object_store import PROBLEMS_FILE, ObjectStore
from dataloaders.pretrain_index import PretrainIndex, read_path_index
from dataloaders.samples import SampleSettings
from dataloaders.stored_clips import ShardReader
from tests.campaigns.kill_reading import file_bytes, read
from tests.campaigns.kill_rounds import Case, Parts
from tests.tasks.test_retrieval_tasks import WITH_OBJECTS, flags_for
from tests.world import ROOT, Downstream, World
from utils.preparation.frame_caching import list_tasks
from utils.preparation.shard_files import INDEX, LABELS, REPORT

OBJECT_FILES, CAPTIONS, VIDEOS = 4000, 8000, 72


class Building(Case):
    """A command that builds from files which `prepare` has put into `source`.

    Args:
        source: folder of its own for the input.
        world, downstream: what the input is made from.
        workers: processes that work, as the command's own flag says.
    """

    def __init__(self, name: str, source: Path, world: World, downstream: Downstream, workers: int) -> None:
        self.name, self.source, self.world, self.downstream, self.workers = name, source, world, downstream, workers
        source.mkdir(parents=True)
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make the input, and what the variants begin with."""

    @abstractmethod
    def arguments(self, folder: Path) -> list[str]:
        """The script below the repository's root, and its arguments."""

    def command(self, folder: Path) -> list[str]:
        """The script in a Python of its own."""
        script, *arguments = self.arguments(folder)
        return [sys.executable, str(ROOT / script), *arguments]

    def run(self, folder: Path, *more: str) -> None:
        """Run the command undisturbed, in preparation."""
        subprocess.run([*self.command(folder), *more], check=True, capture_output=True)

    def copy_videos(self) -> Path:
        """Many clips: those of the world by several names."""
        originals = sorted(self.world.webvid.glob("videos/*/*.mp4"))
        folder = self.source / "videos"
        folder.mkdir()
        for number in range(VIDEOS):
            shutil.copy(originals[number % len(originals)], folder / f"{9000000 + number}.mp4")
        return folder


class WithOld(Building):
    """A folder or file that takes the place of one from other inputs: readers have that, the new one, or nothing."""

    variants = ("nothing", "old")

    def begin(self, folder: Path, variant: str) -> None:
        """The old one, made by `prepare` in {source}/old."""
        if variant == "old":
            shutil.copytree(self.source / "old", folder, dirs_exist_ok=True)


class Store(WithOld):
    """utils/build_object_store.py"""

    def prepare(self) -> None:
        """Object files; the old store is of half of them."""
        originals = sorted((self.world.webvid / "objects").glob("*.json"))
        self.names = [str(number) for number in range(OBJECT_FILES)]
        (self.source / "objects").mkdir()
        for number in range(OBJECT_FILES):
            if number == OBJECT_FILES // 2:
                self.run(self.source / "old")
            shutil.copyfile(originals[number % len(originals)], self.source / "objects" / f"{number}.json")

    def arguments(self, folder: Path) -> list[str]:
        """With the folder of the store beside nothing else."""
        files = ["--object_path", str(self.source / "objects"), "--labelmap_path", str(self.world.label_map)]
        return ["utils/build_object_store.py", *files, "--store_path", str(folder / "store"), "--object_count", "4",
                "--workers", str(self.workers)]  # fmt: skip

    def seen(self, folder: Path) -> Parts:
        """The whole store: a record or a problem of every file, the counts, the list of problems."""
        parts: Parts = {}
        read(parts, "store", lambda: self._content(folder / "store"))
        return parts

    def _content(self, folder: Path) -> Any:
        if not folder.exists():
            return None
        forget_environment(folder)
        store = ObjectStore(folder)
        records = [store.get(name) or str(store.problem(name)).replace(str(store.path), "") for name in self.names]
        lines = sorted((folder / PROBLEMS_FILE).read_bytes().splitlines())
        found = [len(store), _without_examples(store.report), lines]
        return [*found, *(list(record) if isinstance(record, tuple) else record for record in records)]


def _without_examples(report: dict[str, Any]) -> dict[str, Any]:
    """Which files serve as examples depends on the order in which a folder lists them."""
    return {name: value for name, value in report.items() if name != "examples"}


class Shards(Building):
    """utils/webvid_to_tfrecord.py"""

    refusal = "is held by"

    def prepare(self) -> None:
        """Clips and their csv."""
        videos = self.copy_videos()
        rows = [f"{path.stem},a thing moves {path.stem},none" for path in sorted(videos.glob("*.mp4"))]
        (self.source / "rows.csv").write_text(
            "\n".join(["videoid,name,page_dir", *rows, "1,no such video,none"]) + "\n"
        )

    def arguments(self, folder: Path) -> list[str]:
        """Many small shards."""
        files = ["--csv", str(self.source / "rows.csv"), "--video_dir", str(self.source / "videos")]
        return ["utils/webvid_to_tfrecord.py", *files, "--output_dir", str(folder), "--clips_per_shard", "6",
                "--workers", str(self.workers)]  # fmt: skip

    def seen(self, folder: Path) -> Parts:
        """Each shard and list, and through the index each clip."""
        parts: Parts = {}
        for path in (*sorted(folder.glob("path-*.tfrecord")), *(folder / name for name in (INDEX, LABELS, REPORT))):
            read(parts, path.name, lambda path=path: file_bytes(path))
        if (folder / INDEX).is_file():
            reader = ShardReader(folder)
            for place in read_path_index(folder / INDEX):
                read(parts, place.video_id, lambda place=place: list(reader.read(place.shard_path, place.offset)))
        return parts


class Cache(Building):
    """utils/build_frame_cache.py"""

    def prepare(self) -> None:
        """Clips."""
        self.copy_videos()
        self.settings = SampleSettings(64, 12)

    def arguments(self, folder: Path) -> list[str]:
        """Raw frames of 64 pixels."""
        return ["utils/build_frame_cache.py", str(self.source / "videos"), "--frame_cache", str(folder / "cache"),
                "--resolution", "64", "--workers", str(self.workers)]  # fmt: skip

    def seen(self, folder: Path) -> Parts:
        """Each clip that the cache gives."""
        parts: Parts = {}
        if (folder / "cache").is_dir():
            cache = FrameCache(folder / "cache")
            for task in list_tasks([self.source / "videos"]):
                key = task.key(self.settings)
                read(parts, Path(task.video_id).name, lambda key=key: _as_list(cache.get(key)))
        return parts


def _as_list(clip: Any) -> Any:
    return None if clip is None else list(clip)


class Captions(WithOld):
    """utils/tag_captions.py"""

    def prepare(self) -> None:
        """The world's shards with many captions; the old index is of other captions."""
        self.world.copy_shards(self.source / "shards")
        rows = json.loads(self.world.labels.read_bytes())
        for number in (1, 2):
            many = [
                {**rows[i % len(rows)], "caption": f"{rows[i % len(rows)]['caption']} number {number * i}"}
                for i in range(CAPTIONS)
            ]
            (self.source / "captions.json").write_text(json.dumps(many))
            if number == 1:
                self.run(self.source / "old")

    def arguments(self, folder: Path) -> list[str]:
        """Into a folder of its own."""
        files = ["--data_path", str(self.source / "captions.json"), "--shards", str(self.source / "shards")]
        return ["utils/tag_captions.py", *files, "--cache_dir", str(folder), "--workers", str(self.workers)]

    def seen(self, folder: Path) -> Parts:
        """The whole index: every sample."""
        parts: Parts = {}
        for path in folder.glob("*.captions"):
            read(parts, "index", lambda path=path: _samples(path))
        return parts


def _samples(folder: Path) -> list[Any]:
    index = PretrainIndex(folder)
    items = (index[row] for row in range(len(index)))
    return [index.report, *(list(item._replace(shard_path=Path(item.shard_path).name)) for item in items)]


class Search(WithOld):
    """tasks/predict.py search"""

    def prepare(self) -> None:
        """Clips, a model, and an old index of half of the clips."""
        videos = self.copy_videos()
        train = ["--do_train", "--max_steps", "2", "--select_on", "test", *WITH_OBJECTS]
        argv = [str(ROOT / "tasks/eval_retrieval.py"), *flags_for(self.downstream, self.source / "run", *train)]
        subprocess.run([sys.executable, *argv], check=True, capture_output=True)
        later = sorted(videos.glob("*.mp4"))[VIDEOS // 2 :]
        (self.source / "later").mkdir()
        for path in later:
            path.rename(self.source / "later" / path.name)
        (self.source / "old").mkdir()
        self.run(self.source / "old")
        for path in later:
            (self.source / "later" / path.name).rename(path)

    def arguments(self, folder: Path) -> list[str]:
        """One query, the index where nothing else is."""
        model = ["--checkpoint", str(self.source / "run" / "best.bin"), "--device", "cpu", "--precision", "fp32"]
        return ["tasks/predict.py", "search", str(self.source / "videos"), "--query", "a man", *model, "--index",
                str(folder / "search.npz"), "--num_thread_reader", str(self.workers)]  # fmt: skip

    def seen(self, folder: Path) -> Parts:
        """The whole index: names, stamps and features."""
        parts: Parts = {}
        read(parts, "index", lambda: _arrays(folder / "search.npz"))
        return parts


def _arrays(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return {name: str(file[name]) if file[name].dtype.kind == "U" else file[name] for name in file}


BUILDINGS: dict[str, Callable[..., Building]] = {
    "store": Store,
    "shards": Shards,
    "cache": Cache,
    "captions": Captions,
    "search": Search,
}


def building_case(name: str, source: Path, world: World, downstream: Downstream, workers: int) -> Building:
    """The case of a builder, its input made in `source`."""
    return BUILDINGS[name](name, source, world, downstream, workers)
