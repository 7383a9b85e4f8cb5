"""Runs of the shard writer in processes of their own, since TensorFlow and PyTorch in one process crash."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from dataloaders.stored_clips import ShardReader, StoredClip
from tests.tfrecords import encode, record
from tests.videos import write_video
from utils.preparation.shard_files import Settings

ROOT = Path(__file__).parents[2]
SETTINGS = Settings("", "jpeg", 256, 1.0, 90, 3)

# Converts in both formats, reads the shards with TensorFlow's own reader, and runs into a file size limit.
CONVERT_AND_READ = """
import hashlib, json, resource, sys
from pathlib import Path
from utils.webvid_to_tfrecord import main
if __name__ == "__main__":
    out, common = Path(sys.argv[1]), sys.argv[2:]
    codes = [main([*common, "--output_dir", str(out / "jpeg"), "--clips_per_shard", "3"])]
    codes.append(main([*common, "--output_dir", str(out / "raw"), "--frame_format", "raw", "--size", "32"]))
    import tensorflow as tf
    records = {}
    for shard in sorted(out.glob("*/path-*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            images = list(feature["image"].bytes_list.value)
            records[shard.parent.name + "/" + feature["video_id"].bytes_list.value[0].decode()] = {
                "image": [hashlib.md5(image).hexdigest() for image in images],
                "frame_indices": list(feature["frame_indices"].int64_list.value),
                "fps": list(feature["fps"].float_list.value),
            }
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    codes.append(main([*common, "--output_dir", str(out / "full"), "--frame_format", "raw"]))
    print(json.dumps({"codes": codes, "torch": "torch" in sys.modules, "records": records}))
"""


# Runs the command several times, its arguments in lists.
CONVERT_ALL = """
import json, sys
from utils.webvid_to_tfrecord import main
if __name__ == "__main__":
    print(json.dumps([main(arguments) for arguments in json.loads(sys.argv[1])]))
"""


class Converted(NamedTuple):
    """Folder with jpeg/ and raw/, what TensorFlow read there, and stderr."""

    folder: Path
    tensorflow: dict[str, Any]
    stderr: str


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python code in the repository's root, in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def write_source(folder: Path) -> Path:
    """A csv, and videos of most of its rows."""
    videos = folder / "videos"
    write_video(videos / "001_050/a1.mp4", 25)
    write_video(videos / "a2.mp4", 31, fps=29.97)
    write_video(videos / "001_050/a3.mp4", 8, size=(400, 320))
    write_video(videos / "a4.mp4", 45, size=(48, 64))
    write_video(videos / "a5.mp4", 12)
    (videos / "broken.mp4").write_bytes(b"no video")
    rows = [
        ("a1", "a red square is moving, slowly", "001_050"),
        ("gone", "never downloaded", "001_050"),
        ("a2", 'a "quoted" caption', "001_050"),
        ("a1", "a second row of a1", "001_050"),
        ("a3", "a large clip", "001_050"),
        ("broken", "a damaged file", ""),
        ("a5", "  ", ""),
        ("", "a row without an id", ""),
        ("a4", "Überraschung\nin two lines", ""),
    ]
    with (folder / "webvid.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["videoid", "name", "page_idx", "page_dir", "duration", "contentUrl"])
        writer.writerows([(video_id, name, 1, page, "PT00H00M17S", "") for video_id, name, page in rows])
    return folder


def common_arguments(source: Path) -> list[str]:
    return ["--csv", str(source / "webvid.csv"), "--video_dir", str(source / "videos"), "--workers", "2"]


def convert_in_both_formats(source: Path, out: Path) -> Converted:
    """Convert a folder of `write_source`: about 10 s."""
    process = run(CONVERT_AND_READ, out, *common_arguments(source))
    assert process.returncode == 0, process.stderr
    return Converted(out, json.loads(process.stdout.splitlines()[-1]), process.stderr)


def convert_all(*runs: list[str]) -> str:
    """Run the command with each of these arguments, in one process of its own; what it printed."""
    process = run(CONVERT_ALL, json.dumps(runs))
    assert process.returncode == 0 and json.loads(process.stdout.splitlines()[-1]) == [0] * len(runs), process.stderr
    return process.stdout


def stored_clips(folder: Path) -> Iterator[tuple[str, StoredClip]]:
    """Every clip that the index of a folder lists."""
    reader = ShardReader(folder)
    for line in (folder / "path.index").read_text().splitlines():
        video_id, shard, offset = line.split("\t")
        yield video_id, reader.read(shard, int(offset), video_id)


def write_companion(folder: Path, number: int, written: list[str], skipped: tuple[str, ...] = ()) -> None:
    """What is noted of a shard of so many bytes as it has clips."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    content = {
        "bytes": len(written),
        "written": [{"video_id": i, "caption": f"a {i}", "offset": place} for place, i in enumerate(written)],
        "skipped": [{"video_id": i, "reason": "gone"} for i in skipped],
    }
    (folder / "parts" / f"{number:05d}.json").write_text(json.dumps(content))
    (folder / f"path-{number:05d}.tfrecord").write_bytes(bytes(len(written)))


class _Writer:
    """As TensorFlow's writer of records."""

    def __init__(self, path: str, before: Callable[[], object]) -> None:
        self._path, self._before = path, before

    def __enter__(self) -> _Writer:
        self._file = open(self._path, "wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, payload: bytes) -> None:
        """One record."""
        self._before()
        self._file.write(record(payload))


def stand_in(before: Callable[[], object] = int) -> Any:
    """What the shard writer needs of TensorFlow, in no time; `before` is called before each record is written."""

    def example(features: dict[str, list]) -> SimpleNamespace:
        return SimpleNamespace(SerializeToString=lambda deterministic: encode(features))

    lists = dict.fromkeys(("BytesList", "Int64List", "FloatList"), lambda value: list(value))
    train = SimpleNamespace(
        **lists,
        Feature=lambda **values: next(iter(values.values())),
        Features=lambda feature: feature,
        Example=lambda features: example(features),
    )
    errors = SimpleNamespace(OpError=ZeroDivisionError)
    return SimpleNamespace(
        train=train, errors=errors, io=SimpleNamespace(TFRecordWriter=lambda path: _Writer(path, before))
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """The files that a conversion is for: all but the folder of parts."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
