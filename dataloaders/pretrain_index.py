"""The samples of a pre-training set: captions, their tags, and where each clip lies in the shards."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataloaders.built_caches import build_once, fingerprint_file
from dataloaders.caption_store import CaptionArrays, CaptionWriter, PackedCaptions, iter_captions, pack_captions
from dataloaders.files import atomic_write_text
from dataloaders.parallel import chunked, ordered_map
from dataloaders.stored_clips import resolve_shard
from dataloaders.tag_rules import TAGS_VERSION
from dataloaders.tagging import TAGGERS, TaggedCaption, make_tagger, tag_caption
from modules.config import VOCAB_SIZE
from modules.foreign_text import iterate_lines, read_json
from modules.foreign_text import video_id as checked_id
from modules.tokenizer import ClipTokenizer

logger = logging.getLogger(__name__)

INDEX_FILE = "path.index"
META_FILE = "index.json"
FORMAT = 1
CHUNK = 2000
MAX_EXAMPLES = 5
MAX_DIGITS = 19  # of an offset: fewer fit into int64
Note = Callable[[str, str], None]  # told of everything left out: a counter of IndexReport, and an example
CACHED_CAPTIONS = 1 << 14  # stock footage repeats its captions: those of a series of clips are tagged once


class ClipPlace(NamedTuple):
    """A row of `path.index`."""

    video_id: str
    shard_path: str
    offset: int


class PretrainItem(NamedTuple):
    """One sample: a caption of L pieces (no start, no end) and the place of its clip."""

    video_id: str
    shard_path: str
    offset: int
    token_ids: np.ndarray  # (L,) int64
    is_noun: np.ndarray  # (L,) bool
    is_verb: np.ndarray  # (L,) bool


@dataclass
class IndexReport:
    """Counts of the rows of the caption file and path.index, with the first ids of everything left out."""

    samples: int = 0
    captions_without_clip: int = 0
    clips_without_caption: int = 0
    empty_captions: int = 0
    repeated_caption_ids: int = 0
    repeated_clips: int = 0
    broken_index_lines: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, name: str, example: str) -> None:
        """Count one `name` (a field) and keep `example` if it is among the first."""
        setattr(self, name, getattr(self, name) + 1)
        shown = self.examples.setdefault(name, [])
        if len(shown) < MAX_EXAMPLES:
            shown.append(example)

    def summary(self) -> list[str]:
        """Return lines for a log."""
        texts = {
            "captions_without_clip": "captions left out: their clip is not in the shards",
            "empty_captions": "captions left out: they are empty",
            "clips_without_caption": "clips in the shards without a caption",
            "repeated_caption_ids": "further captions of a clip that already has one, each a sample of its own",
            "repeated_clips": "repeated rows in path.index left out: the first one counts",
            "broken_index_lines": "lines of path.index that could not be read",
        }
        lines = [f"{self.samples} samples"]
        for name, text in texts.items():
            if getattr(self, name):
                lines.append(f"{getattr(self, name)} {text} ({', '.join(self.examples[name])}, ...)")
        return lines


class PretrainIndex:
    """The samples of a prepared set, by number; opening takes no time and pickling carries no captions.

    Raises:
        ValueError: the folder is damaged or none; the message names it and the remedy.

    Attributes:
        tagger: name of the tagger.
        report: counts of the preparation (fields of `IndexReport`).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            meta = read_json(self.path / META_FILE)
            self.tagger: str = meta["tagger"]
            self.report: dict[str, Any] = {**meta["report"]}
            self._samples: int = range(self.report["samples"])[-1] + 1  # a whole number above 0
            self._shards = _resolved(meta["shards"], self.path / meta["index_dir"])
            self._captions = CaptionArrays(self.path)
            self._captions.check(self._samples)
        except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
            raise self._damaged(error) from error

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> PretrainItem:
        row = range(self._samples)[index]  # IndexError beyond the end, and counting from it
        try:
            shard, offset = self._captions.place(row)
            return PretrainItem(self.video_id(row), self._shards[shard], offset, *self._captions.caption(row))
        except (IndexError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path}: a damaged index of captions ({type(error).__name__}: {error}); delete the folder to have it "
            "built again"
        )

    def shard_samples(self) -> dict[str, int]:
        """Number of samples in each shard that has any."""
        counted = np.bincount(self._captions.shards()[: self._samples], minlength=len(self._shards))
        return {shard: int(count) for shard, count in zip(self._shards, counted, strict=True) if count}

    def video_id(self, index: int) -> str:
        """Return the clip id of a sample."""
        return self._captions.video_id(range(self._samples)[index])


def _resolved(shards: list[str], folder: Path) -> list[str]:
    """Full paths of the shards of an index in `folder`; those outside of it are warned of."""
    paths = [resolve_shard(shard, folder) for shard in shards]
    missing = [shard for shard, path in zip(shards, paths, strict=True) if not os.path.isfile(path)]
    outside = [shard for shard in missing if os.path.isfile(folder / shard)]
    if outside:
        logger.warning(
            "%d shards of %s lie outside of its folder (%s, ...), where none is opened; move or link them into it",
            len(outside), os.path.abspath(folder / INDEX_FILE), outside[0],
        )  # fmt: skip
    return paths


def prepare_pretrain_index(
    data_path: str | Path,
    index_dir: str | Path,
    cache_dir: str | Path | None = None,
    tagger: str = "hanta",
    workers: int = 1,
    vocab_size: int = VOCAB_SIZE,
) -> Path:
    """Return the folder to open with `PretrainIndex`, tagging the captions if nobody has yet.

    Call it before the process group starts: the first process builds, the others wait, however long it takes.

    Args:
        data_path: frozen_train_labels.json, a list of {"video_id", "caption"}.
        index_dir: folder of the shards with `path.index` (lines "video_id <tab> shard <tab> byte offset").
        cache_dir: where to put the result; by default in `index_dir`, or the user's cache where that is read-only.
        tagger: "hanta" or "spacy".
        workers: processes that tag.
        vocab_size: of the tokenizer.

    Raises:
        FileNotFoundError: if the captions or `path.index` are missing.
        ValueError: if either file is not what it should be, or no caption belongs to a clip.
    """
    data_path, index_dir = Path(data_path), Path(index_dir)
    index_path = require_inputs(data_path, index_dir)
    if tagger not in TAGGERS:
        raise ValueError(f"tagger {tagger!r} is unknown; it must be one of {', '.join(TAGGERS)}")
    target = Path(cache_dir or index_dir) / f"{data_path.stem}.{tagger}.{vocab_size}.captions"
    relative = os.path.relpath(index_dir.resolve(), target.resolve())
    fingerprint = {
        "format": FORMAT,
        "captions": fingerprint_file(data_path),
        "index": fingerprint_file(index_path),
        "index_dir": relative,
        "tagger": tagger,
        "tags_version": TAGS_VERSION,
        "vocab_size": vocab_size,
    }

    def build(folder: Path) -> None:
        is_beside = folder.parent == target.parent
        shards = relative if is_beside else str(index_dir.resolve())
        _build(folder, data_path, index_path, shards, tagger, vocab_size, workers)

    return build_once(target, fingerprint, build, may_move=cache_dir is None)


def require_inputs(data_path: Path, index_dir: Path) -> Path:
    """Return the path of `path.index`; FileNotFoundError if it or the caption file is missing."""
    index_path = index_dir / INDEX_FILE
    for path, what in ((data_path, "captions (--data_path)"), (index_path, "index of the shards")):
        if not path.is_file():
            raise FileNotFoundError(f"no {what} at {path}")
    return index_path


def read_path_index(path: str | Path, note: Note | None = None) -> Iterator[ClipPlace]:
    """Yield the rows of a `path.index` file; lines that are not id, shard and offset are left out and noted."""
    for number, line in iterate_lines(path, is_streamed=True):
        place = _clip_place(line)
        if place is not None:
            yield place
        elif line.strip() and note is not None:
            note("broken_index_lines", f"line {number}: {line.strip()[:60]!r}")


def _clip_place(line: str) -> ClipPlace | None:
    fields = [part.strip() for part in line.split("\t")]
    if len(fields) != 3 or not fields[1] or not (fields[2].isascii() and fields[2].isdecimal()):
        return None
    try:
        checked_id(fields[0], "")
    except ValueError:
        return None
    return ClipPlace(fields[0], fields[1], int(fields[2])) if len(fields[2]) < MAX_DIGITS else None


def _build(
    folder: Path, data_path: Path, index_path: Path, index_dir: str, tagger: str, vocab_size: int, workers: int
) -> None:
    logger.info("tagging the captions of %s with %s", data_path, tagger)
    report = IndexReport()
    clips, shards = clip_places(index_path, report.note)
    has_caption = bytearray(len(clips.offsets))
    writer = CaptionWriter(folder)
    try:
        chunks = chunked(captioned_clips(data_path, clips, has_caption, report.note), CHUNK)
        for rows in ordered_map(_tag_chunk, chunks, workers, _start_worker, (tagger, vocab_size)):
            _write_chunk(writer, clips, *rows, report)
    finally:
        writer.close()
    report.samples = writer.rows
    for video_id, row in clips.rows.items():
        if not has_caption[row]:
            report.note("clips_without_caption", video_id)
    if not report.samples:
        raise ValueError(f"no caption of {data_path} belongs to a clip of {index_path}: {'; '.join(report.summary())}")
    meta = {"tagger": tagger, "index_dir": index_dir, "shards": shards, "report": asdict(report)}
    atomic_write_text(folder / META_FILE, json.dumps(meta, indent=1))
    for line in report.summary():
        logger.info("%s: %s", data_path.name, line)


def _write_chunk(
    writer: CaptionWriter,
    clips: Clips,
    video_ids: list[str],
    rows: list[int],
    packed: PackedCaptions,
    report: IndexReport,
) -> None:
    for place in np.flatnonzero(packed.lengths == 0):
        report.note("empty_captions", video_ids[place])
    kept = np.flatnonzero(packed.lengths)
    kept_rows = np.array(rows)[kept]
    # An empty caption has no pieces, so dropping its length is all there is to drop.
    packed = packed._replace(lengths=packed.lengths[kept])
    writer.extend([video_ids[place] for place in kept], clips.shards[kept_rows], clips.offsets[kept_rows], packed)


class Clips(NamedTuple):
    """The clips of a `path.index`, N of them."""

    rows: dict[str, int]  # video id -> row of the two arrays, in the order of the rows
    shards: np.ndarray  # (N,) int64 number of the shard
    offsets: np.ndarray  # (N,) int64 where the record starts, in bytes


def clip_places(path: Path, note: Note) -> tuple[Clips, list[str]]:
    """Return the clips of a `path.index`, and its shards as it names them; of rows with one id the first counts."""
    rows: dict[str, int] = {}
    shard_numbers: dict[str, int] = {}
    places = np.zeros((1024, 2), dtype=np.int64)
    for place in read_path_index(path, note):
        if place.video_id in rows:
            note("repeated_clips", place.video_id)
            continue
        row = rows[place.video_id] = len(rows)
        if row == len(places):
            places = np.concatenate([places, np.zeros_like(places)])
        places[row] = shard_numbers.setdefault(place.shard_path, len(shard_numbers)), place.offset
    return Clips(rows, places[: len(rows), 0], places[: len(rows), 1]), list(shard_numbers)


def captioned_clips(
    data_path: Path, clips: Clips, has_caption: bytearray, note: Note
) -> Iterator[tuple[str, int, str]]:
    """Yield (video id, row of its clip, caption) for every caption whose clip is in the shards.

    `has_caption`, a byte per clip, becomes 1 for those that have one; errors as `iter_captions`.
    """
    for video_id, caption in iter_captions(data_path):
        row = clips.rows.get(video_id)
        if row is None:
            note("captions_without_clip", video_id)
            continue
        if has_caption[row]:
            note("repeated_caption_ids", video_id)
        has_caption[row] = 1
        yield video_id, row, caption


_tag: Callable[[str], TaggedCaption] | None = None


def _start_worker(tagger_name: str, vocab_size: int) -> None:
    global _tag
    tokenizer, tagger = ClipTokenizer(vocab_size), make_tagger(tagger_name)

    @lru_cache(CACHED_CAPTIONS)
    def tag(caption: str) -> TaggedCaption:
        return tag_caption(caption, tokenizer, tagger)

    _tag = tag


def _tag_chunk(chunk: list[tuple[str, int, str]]) -> tuple[list[str], list[int], PackedCaptions]:
    assert _tag is not None
    packed = pack_captions([_tag(caption) for _, _, caption in chunk])
    return [video_id for video_id, _, _ in chunk], [row for _, row, _ in chunk], packed
