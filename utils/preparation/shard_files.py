"""The files of a folder of shards: their names, when one is complete, and the lists of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from dataloaders.files import atomic_file

INDEX, LABELS, REPORT, PARTS = "path.index", "frozen_train_labels.json", "report.json", "parts"


@dataclass(frozen=True)
class Settings:
    """The settings that the content of the shards depends on; a run continues only one with the same."""

    csv_sha256: str | None
    frame_format: str
    size: int
    feature_framerate: float
    jpeg_quality: int | None
    clips_per_shard: int
    tar_sha256: str | None = None

    def num_shards(self, num_rows: int) -> int:
        """Shards of so many rows."""
        return len(range(0, num_rows, self.clips_per_shard))


class CannotConvert(Exception):
    """The conversion cannot start or go on; the message says what to do."""


class Counts(NamedTuple):
    """What became of the rows: clips with a record, their captions, and rows that were left out."""

    clips: int
    captions: int
    skipped: int


def shard_name(number: int) -> str:
    """Name of a shard."""
    return f"path-{number:05d}.tfrecord"


def companion_path(output_dir: Path, number: int) -> Path:
    """File of what is noted of a shard that is complete."""
    return output_dir / PARTS / f"{number:05d}.json"


def partial_path(output_dir: Path, number: int) -> Path:
    """File of the beginning of a shard that an earlier run did not complete."""
    return output_dir / PARTS / f"{number:05d}.partial"


def notes_path(output_dir: Path, number: int) -> Path:
    """File of what was said of the clips of such a beginning."""
    return output_dir / PARTS / f"{number:05d}.notes"


def is_finished(output_dir: Path, number: int) -> bool:
    """Tell whether a shard is complete: its companion is there, and the shard has the size that it states.

    A shard whose companion is damaged is written again.
    """
    try:
        companion = json.loads(companion_path(output_dir, number).read_bytes())
        return (output_dir / shard_name(number)).stat().st_size == companion["bytes"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return False


def write_lists(output_dir: Path, num_shards: int, settings: Settings) -> Counts:
    """Write index, labels and report from the companions, one at a time: millions of rows are never held together."""
    with ExitStack() as stack:
        index, labels, report = (
            stack.enter_context(atomic_file(output_dir / name, "w")) for name in (INDEX, LABELS, REPORT)
        )
        report.write(f'{{"settings": {json.dumps(asdict(settings))},\n"skipped": ')
        label_list, skipped_list, notes = _JsonList(labels), _JsonList(report), list[str]()
        clips = 0
        captioned: set[str] = set()  # of the ids that have several captions
        for number in range(num_shards):
            companion = json.loads(companion_path(output_dir, number).read_bytes())
            for skipped in companion["skipped"]:
                skipped_list.append(skipped)
            for clip in companion["written"]:
                video_id = clip["video_id"]
                if clip["offset"] is not None:
                    # Relative, so that the folder can be moved.
                    index.write(f"{video_id}\t{shard_name(number)}\t{clip['offset']}\n")
                    clips += 1
                    if clip.get("has_further"):
                        captioned.add(video_id)
                elif video_id not in captioned:
                    skipped_list.append({"video_id": video_id, "reason": "its video is skipped: see its first row"})
                    continue
                label_list.append({"video_id": video_id, "caption": clip["caption"]})
            notes += companion.get("notes", [])  # companions of earlier versions have none
        label_list.end()
        skipped_list.end()
        captions = label_list.count
        report.write(f',\n"notes": {json.dumps(notes)},\n"written": {clips},\n"captions": {captions}}}\n')
    return Counts(clips, captions, skipped_list.count)


def count(output_dir: Path, numbers: Iterable[int]) -> Counts:
    """What became of the rows of some shards; a further caption counts, whatever became of its video."""
    clips = captions = skipped = 0
    for number in numbers:
        companion: dict[str, Any] = json.loads(companion_path(output_dir, number).read_bytes())
        clips += sum(clip["offset"] is not None for clip in companion["written"])
        captions += len(companion["written"])
        skipped += len(companion["skipped"])
    return Counts(clips, captions, skipped)


class _JsonList:
    """Writes a JSON list item by item."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.count = 0

    def append(self, item: dict[str, str]) -> None:
        self._file.write(("[\n" if self.count == 0 else ",\n") + json.dumps(item))
        self.count += 1

    def end(self) -> None:
        self._file.write("\n]" if self.count else "[]")
