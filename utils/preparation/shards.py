"""From rows of clips and captions to TFRecord shards, with index, labels and report."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from dataloaders.decoders import UnreadableVideo
from dataloaders.files import atomic_write_text, create_file, file_lock, sync_folder
from dataloaders.frames import FRAME_RULE
from dataloaders.stored_clips import Features
from dataloaders.tfrecord import DamagedRecord, iterate_records, parse_example, read_record, record_length
from utils.preparation.caption_rows import find_video
from utils.preparation.clip_encoding import EncodedClip, encode_clip
from utils.preparation.shard_files import (
    CannotConvert,
    Counts,
    Settings,
    companion_path,
    count,
    is_finished,
    notes_path,
    partial_path,
    shard_name,
    write_lists,
)
from utils.preparation.shard_parts import WHOLE, Part, begin
from utils.preparation.tar_members import CannotCopy, TarVideo, unpacked
from utils.preparation.video_workers import WorkerDied, WorkerPool
from utils.preparation.webvid_rows import Row, video_places


class ClipSource(Protocol):
    """Clips and captions in a fixed order (webvid_rows.py, caption_rows.py, tar_rows.py)."""

    @property
    def num_rows(self) -> int:
        """How many there are, usable or not."""

    def rows(self, clips_per_shard: int, wanted: Collection[int]) -> Iterator[Row]:
        """The rows of the wanted shards."""


@dataclass(frozen=True)
class Stop:
    """Stands in for the result of a row where the next one would fail in the same way: the run ends."""

    reason: str


Result = EncodedClip | bytes | str | Stop


def convert_row(row: Row, video_dir: Path | None, output_dir: Path, settings: Settings) -> Result:
    """Find, read and encode the video of one row, in a worker process.

    Args:
        video_dir: folder of the videos; None where they are in tar files.

    Returns:
        The clip, or its record from an earlier run (bytes), or the reason why it is skipped (str) or nothing goes on.
    """
    if row.fault or row.is_further:
        return row.fault or ""
    if row.saved_at is not None:
        with partial_path(output_dir, row.shard).open("rb") as file:
            return read_record(file, row.saved_at)
    if isinstance(row.video, TarVideo):
        try:
            with unpacked(row.video) as path:
                clip = _encode(path, settings)
                return _named(clip, str(path), str(row.video))
        except CannotCopy as error:
            return Stop(str(error))
    assert video_dir is not None
    try:
        place = _find_webvid(video_dir, row) if row.video is None else find_video(video_dir, row.video)
    except OSError as error:  # a folder that may not be entered
        return str(error)
    return _encode(place, settings) if isinstance(place, Path) else place


def _find_webvid(video_dir: Path, row: Row) -> Path | str:
    places = video_places(video_dir, row.page_dir, row.video_id)
    found = next((place for place in places if place.is_file()), None)
    return found or f"no video at {' or '.join(map(str, places))}"


def _encode(path: Path, settings: Settings) -> EncodedClip | str:
    try:
        return encode_clip(path, settings.size, settings.jpeg_quality, settings.feature_framerate)
    except (UnreadableVideo, OSError) as error:
        return str(error)


def _named(clip: EncodedClip | str, path: str, name: str) -> EncodedClip | str:
    """What was read of a copy, with the name of the original in what is said of it."""
    if isinstance(clip, str):
        return clip.replace(path, name)
    return replace(clip, notes=[note.replace(path, name) for note in clip.notes])


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
    results: Iterator[tuple[Row, Result | WorkerDied]],
    frame_format: str,
    progress: tqdm,
) -> None:
    """Write one shard and then its companion in `parts`, each under a temporary name until it is complete.

    Raises:
        CannotConvert: the disk is full, what was written is not what is there, or no row can be read any more.
    """
    path, temporary = output_dir / shard_name(number), _temporary(output_dir, number)
    written: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    notes = _Notes(notes_path(output_dir, number))
    size = 0
    try:
        temporary.unlink(missing_ok=True)
        os.close(create_file(temporary))  # a link planted there would be followed
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for row, result in results:
                if isinstance(result, Stop):
                    raise CannotConvert(result.reason)
                if isinstance(result, EncodedClip):
                    notes.keep(row.video_id, result.notes)
                    result = _serialise(tf, row.video_id, result, frame_format)
                if isinstance(result, bytes):
                    writer.write(result)
                    notes.add(row.video_id)
                    written.append(_noted(row, size))
                    size += record_length(len(result))
                elif row.is_further:
                    written.append(_noted(row, None))
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
        companion = {"bytes": size, "written": written, "skipped": skipped, "notes": notes.added}
        atomic_write_text(companion_path(output_dir, number), json.dumps(companion))
        partial_path(output_dir, number).unlink(missing_ok=True)
        notes_path(output_dir, number).unlink(missing_ok=True)
    except (OSError, tf.errors.OpError) as error:
        raise CannotConvert(f"{path}: cannot be written: {error}; once there is room, run again to go on") from error


class _Notes:
    """What is said of reading the clips of a shard; a run that goes on with their records finds it here.

    Attributes:
        added: the notes of the clips that are written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, list[str]] = {}
        self.added: list[str] = []
        for line in path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else ():
            with suppress(ValueError, TypeError):  # half a line, whose record was not written
                video_id, notes = json.loads(line)
                self._kept[video_id] = notes

    def keep(self, video_id: str, notes: list[str]) -> None:
        """Note what was said of a clip, before its record is written."""
        self._kept[video_id] = notes
        if notes:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            with open(self._path, "ab", opener=lambda path, _: os.open(path, flags, 0o666)) as file:
                # Behind a line end: what a killed run wrote last may have none.
                file.write(f"\n{json.dumps([video_id, notes])}".encode())

    def add(self, video_id: str) -> None:
        """Count a clip as written."""
        self.added += self._kept.get(video_id, [])


def _noted(row: Row, offset: int | None) -> dict[str, Any]:
    """What a companion has of a caption: the place of its record, or None where an earlier row has that."""
    noted = {"video_id": row.video_id, "caption": row.caption, "offset": offset}
    return noted | ({"has_further": True} if row.has_further and offset is not None else {})


def _temporary(output_dir: Path, number: int) -> Path:
    return output_dir / f"{shard_name(number)}.tmp"


def _save_beginnings(output_dir: Path, numbers: Iterable[int]) -> None:
    """Put unfinished shards of an earlier run aside, so that their clips need not be decoded again."""
    for number in numbers:
        temporary, partial_shard = _temporary(output_dir, number), partial_path(output_dir, number)
        # A link is none of ours. A shard's content is fixed, so of two beginnings the longer one holds the other.
        size = temporary.stat().st_size if temporary.is_file() and not temporary.is_symlink() else -1
        if size > (partial_shard.stat().st_size if partial_shard.exists() else -1):
            os.replace(temporary, partial_shard)
        temporary.unlink(missing_ok=True)


def _saved_offsets(output_dir: Path, number: int) -> dict[str, int]:
    """Offsets of the sound records, by video id, in what is left of an unfinished shard."""
    offsets: dict[str, int] = {}
    path = partial_path(output_dir, number)
    if path.exists():
        try:
            for offset, payload in iterate_records(path):
                offsets[bytes(parse_example(payload)[Features.VIDEO_ID][0]).decode()] = offset
        except DamagedRecord:
            # The last record is the one that was being written.
            return offsets
    return offsets


def sha256_of(path: Path) -> str:
    """Digest of a file, read in parts."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def convert(
    source: ClipSource,
    video_dir: Path | None,
    output_dir: Path,
    workers: int,
    settings: Settings,
    load_tensorflow: Callable[[], Any],
    part: Part = WHOLE,
) -> Counts:
    """Write the shards of a part that are not there yet; if that is the whole set, then index, labels and report.

    Args:
        video_dir: folder of the videos; None where they are in tar files.
        load_tensorflow: imports it, when there is something to write.
    """
    num_shards = settings.num_shards(source.num_rows)
    numbers = part.numbers(num_shards)
    with file_lock(part.file(output_dir, "lock", ""), timeout=0):
        begin(output_dir, settings, part, source.num_rows)
        _save_beginnings(output_dir, numbers)
        unfinished = {number for number in numbers if not is_finished(output_dir, number)}
        if unfinished:
            tf = load_tensorflow()
            rows = source.rows(settings.clips_per_shard, unfinished)
            convert_one = partial(convert_row, video_dir=video_dir, output_dir=output_dir, settings=settings)
            total = sum(_num_rows(number, settings, source.num_rows) for number in numbers)
            done = total - sum(_num_rows(number, settings, source.num_rows) for number in unfinished)
            with WorkerPool(convert_one, workers) as pool, tqdm(total=total, initial=done, unit="clip") as progress:
                converted = pool.map(_with_places(rows, output_dir))
                for number, results in groupby(converted, lambda pair: pair[0].shard):
                    write_shard(tf, output_dir, number, results, settings.frame_format, progress)
        return write_lists(output_dir, num_shards, settings) if part.is_whole else count(output_dir, numbers)


def _num_rows(number: int, settings: Settings, num_rows: int) -> int:
    return min(settings.clips_per_shard, num_rows - number * settings.clips_per_shard)


def _with_places(rows: Iterator[Row], output_dir: Path) -> Iterator[Row]:
    """The rows, with the places of their records in what an earlier run left."""
    for number, shard_rows in groupby(rows, lambda row: row.shard):
        saved = _saved_offsets(output_dir, number)
        for row in shard_rows:
            yield replace(row, saved_at=saved.get(row.video_id))
