"""From the rows of a WebVid csv to TFRecord shards, with index, labels and report."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from dataloaders.decoders import UnreadableVideo
from dataloaders.files import atomic_file, atomic_write_text, create_file, file_lock, sync_folder
from dataloaders.frames import FRAME_RULE
from dataloaders.stored_clips import Features
from dataloaders.tfrecord import DamagedRecord, iterate_records, parse_example, read_record, record_length
from utils.preparation.clip_encoding import EncodedClip, encode_clip
from utils.preparation.video_workers import WorkerDied, WorkerPool
from utils.preparation.webvid_rows import Row, read_rows, survey_csv, video_places

INDEX, LABELS, REPORT, PARTS = "path.index", "frozen_train_labels.json", "report.json", "parts"


@dataclass(frozen=True)
class Settings:
    """The settings that the content of the shards depends on; a run continues only one with the same."""

    csv_sha256: str
    frame_format: str
    size: int
    feature_framerate: float
    jpeg_quality: int | None
    clips_per_shard: int


class CannotConvert(Exception):
    """The conversion cannot start or go on; the message says what to do."""


def convert_row(row: Row, video_dir: Path, output_dir: Path, settings: Settings) -> EncodedClip | bytes | str:
    """Find, read and encode the video of one row, in a worker process.

    Returns:
        The clip, or its record from an earlier run (bytes), or the reason why it is skipped (str).
    """
    if row.fault:
        return row.fault
    if row.saved_at is not None:
        with _partial(output_dir, row.shard).open("rb") as file:
            return read_record(file, row.saved_at)
    places = video_places(video_dir, row.page_dir, row.video_id)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return f"no video at {' or '.join(map(str, places))}"
    try:
        return encode_clip(path, settings.size, settings.jpeg_quality, settings.feature_framerate)
    except (UnreadableVideo, OSError) as error:
        return str(error)


def _serialise(tf: Any, video_id: str, clip: EncodedClip, frame_format: str) -> bytes:
    def feature_bytes(*values: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def feature_integers(*values: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def feature_number(value: float) -> Any:
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    features = {
        Features.IMAGE: feature_bytes(*clip.images),
        Features.FORMAT: feature_bytes(frame_format.encode()),
        Features.VIDEO_ID: feature_bytes(video_id.encode()),
        Features.WIDTH: feature_integers(clip.original_size[0]),
        Features.HEIGHT: feature_integers(clip.original_size[1]),
        Features.STORED_WIDTH: feature_integers(clip.stored_size[0]),
        Features.STORED_HEIGHT: feature_integers(clip.stored_size[1]),
        Features.FRAME_INDICES: feature_integers(*clip.frame_indices),
        Features.FRAME_RULE: feature_integers(FRAME_RULE),
        Features.FPS: feature_number(clip.fps),
        Features.FEATURE_FRAMERATE: feature_number(clip.feature_framerate),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def write_shard(
    tf: Any,
    output_dir: Path,
    number: int,
    results: Iterator[tuple[Row, EncodedClip | bytes | str | WorkerDied]],
    frame_format: str,
    progress: tqdm,
) -> None:
    """Write one shard and then its companion in `parts`, each under a temporary name until it is complete.

    Raises:
        CannotConvert: the disk is full, or what was written is not what is there.
    """
    path = output_dir / _shard_name(number)
    temporary = path.with_name(path.name + ".tmp")
    written: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    notes: list[str] = []
    size = 0
    try:
        temporary.unlink(missing_ok=True)
        os.close(create_file(temporary))  # a link planted there would be followed
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for row, result in results:
                if isinstance(result, EncodedClip):
                    notes += result.notes
                    result = _serialise(tf, row.video_id, result, frame_format)
                if isinstance(result, bytes):
                    writer.write(result)
                    written.append({"video_id": row.video_id, "caption": row.caption, "offset": size})
                    size += record_length(len(result))
                else:
                    reason = result.reason if isinstance(result, WorkerDied) else result
                    skipped.append({"video_id": row.video_id, "reason": reason})
                progress.update()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if temporary.stat().st_size != size:
            raise OSError(f"{temporary.stat().st_size} bytes are there, {size} were written")
        os.replace(temporary, path)
        sync_folder(output_dir)
        companion = {"bytes": size, "written": written, "skipped": skipped, "notes": notes}
        atomic_write_text(_companion(output_dir, number), json.dumps(companion))
        _partial(output_dir, number).unlink(missing_ok=True)
    except (OSError, tf.errors.OpError) as error:
        raise CannotConvert(f"{path}: cannot be written: {error}; once there is room, run again to go on") from error


def _shard_name(number: int) -> str:
    return f"path-{number:05d}.tfrecord"


def _companion(output_dir: Path, number: int) -> Path:
    return output_dir / PARTS / f"{number:05d}.json"


def _partial(output_dir: Path, number: int) -> Path:
    """File of the beginning of a shard that an earlier run did not complete."""
    return output_dir / PARTS / f"{number:05d}.partial"


def _save_beginnings(output_dir: Path) -> None:
    """Put unfinished shards of an earlier run aside, so that their clips need not be decoded again."""
    for temporary in output_dir.glob("path-*.tfrecord.tmp"):
        if temporary.is_symlink():  # none of ours
            continue
        partial_path = _partial(output_dir, int(temporary.name.split(".")[0].removeprefix("path-")))
        # A shard's content is fixed, so of two beginnings the longer one holds the other.
        if not partial_path.exists() or partial_path.stat().st_size < temporary.stat().st_size:
            os.replace(temporary, partial_path)
    for leftover in (*output_dir.glob("*.tmp"), *(output_dir / PARTS).glob("*.tmp")):
        leftover.unlink()


def _saved_offsets(output_dir: Path, number: int) -> dict[str, int]:
    """Offsets of the sound records, by video id, in what is left of an unfinished shard."""
    offsets: dict[str, int] = {}
    path = _partial(output_dir, number)
    if path.exists():
        try:
            for offset, payload in iterate_records(path):
                offsets[bytes(parse_example(payload)[Features.VIDEO_ID][0]).decode()] = offset
        except DamagedRecord:
            # The last record is the one that was being written.
            return offsets
    return offsets


def is_finished(output_dir: Path, number: int) -> bool:
    """Tell whether a shard is complete: its companion is there, and the shard has the size that it states.

    A shard whose companion is damaged is written again.
    """
    try:
        companion = json.loads(_companion(output_dir, number).read_bytes())
        return (output_dir / _shard_name(number)).stat().st_size == companion["bytes"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return False


def sha256_of(path: Path) -> str:
    """Digest of a file, read in parts."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def convert(
    csv_path: Path,
    video_dir: Path,
    output_dir: Path,
    workers: int,
    settings: Settings,
    load_tensorflow: Callable[[], Any],
) -> tuple[int, int]:
    """Write the shards that are not there yet, then index, labels and report; return (clips written, rows skipped).

    Args:
        load_tensorflow: imports it, when there is something to write.
    """
    num_rows, repeated = survey_csv(csv_path)
    with file_lock(output_dir / PARTS / "lock", timeout=0):
        _check_settings(output_dir, settings)
        _save_beginnings(output_dir)
        num_shards = -(-num_rows // settings.clips_per_shard)
        finished = {number for number in range(num_shards) if is_finished(output_dir, number)}
        if len(finished) < num_shards:
            tf = load_tensorflow()
            rows = read_rows(csv_path, settings.clips_per_shard, repeated)
            convert_one = partial(convert_row, video_dir=video_dir, output_dir=output_dir, settings=settings)
            with WorkerPool(convert_one, workers) as pool, tqdm(total=num_rows, unit="clip") as progress:
                converted = pool.map(_unfinished(rows, finished, output_dir, progress))
                for number, results in groupby(converted, lambda pair: pair[0].shard):
                    write_shard(tf, output_dir, number, results, settings.frame_format, progress)
        return _write_lists(output_dir, num_shards, settings)


def _unfinished(rows: Iterator[Row], finished: set[int], output_dir: Path, progress: tqdm) -> Iterator[Row]:
    for number, shard_rows in groupby(rows, lambda row: row.shard):
        saved = {} if number in finished else _saved_offsets(output_dir, number)
        for row in shard_rows:
            if number in finished:
                progress.update()
            else:
                yield replace(row, saved_at=saved.get(row.video_id))


def _check_settings(output_dir: Path, settings: Settings) -> None:
    path = output_dir / PARTS / "settings.json"
    wanted = asdict(settings)
    if path.exists():
        found = _settings(path)
        differing = [
            f"{key} {found.get(key)} there, {value} now" for key, value in wanted.items() if found.get(key) != value
        ]
        if differing:
            raise CannotConvert(
                f"{output_dir} was begun with other settings ({'; '.join(differing)}): "
                "run with those, name another --output_dir, or delete this one"
            )
    elif (output_dir / INDEX).exists() or any(output_dir.glob("path-*.tfrecord")):
        raise CannotConvert(f"{output_dir} holds shards that this command did not write: name another --output_dir")
    else:
        atomic_write_text(path, json.dumps(wanted, indent=1))


def _settings(path: Path) -> dict[str, Any]:
    try:
        return {**json.loads(path.read_bytes())}
    except (ValueError, TypeError) as error:
        raise CannotConvert(
            f"{path}: damaged ({error}): delete it to go on, if {path.parents[1]} was begun with these settings"
        ) from error


def _write_lists(output_dir: Path, num_shards: int, settings: Settings) -> tuple[int, int]:
    """Write index, labels and report from the companions, one at a time: millions of rows are never held together."""
    with ExitStack() as stack:
        index, labels, report = (
            stack.enter_context(atomic_file(output_dir / name, "w")) for name in (INDEX, LABELS, REPORT)
        )
        report.write(f'{{"settings": {json.dumps(asdict(settings))},\n"skipped": ')
        label_list, skipped_list, notes = _JsonList(labels), _JsonList(report), list[str]()
        for number in range(num_shards):
            companion = json.loads(_companion(output_dir, number).read_bytes())
            for clip in companion["written"]:
                # Relative, so that the folder can be moved.
                index.write(f"{clip['video_id']}\t{_shard_name(number)}\t{clip['offset']}\n")
                label_list.append({"video_id": clip["video_id"], "caption": clip["caption"]})
            for clip in companion["skipped"]:
                skipped_list.append(clip)
            notes += companion.get("notes", [])  # companions of earlier versions have none
        label_list.end()
        skipped_list.end()
        report.write(f',\n"notes": {json.dumps(notes)},\n"written": {label_list.count}}}\n')
    return label_list.count, skipped_list.count


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
