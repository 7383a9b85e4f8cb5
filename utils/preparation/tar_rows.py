"""Clips and captions in tar files as video2dataset writes them: KEY.mp4 with KEY.txt, or a caption in KEY.json."""

from __future__ import annotations

import glob
import hashlib
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from dataloaders.decoders import VIDEO_SUFFIXES
from dataloaders.files import file_stamp
from modules.foreign_text import is_no_caption, parse_json, why_no_file
from utils.preparation.tar_members import BadTar, Member, TarVideo, iterate_members
from utils.preparation.webvid_rows import BAD_ID, EMPTY_CAPTION, Row, is_id

BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}")
MAX_TARS = 1_000_000
MAX_CAPTION = 1 << 20  # bytes of KEY.txt
MAX_METADATA = 1 << 23  # bytes of KEY.json
MAX_SAMPLES = 1 << 20  # of one archive, whose table of members is held
MAX_NAMED = 5
VIDEO, TEXT, METADATA = "video", "txt", "json"


def expand_tars(patterns: Collection[str]) -> list[Path]:
    """Tar files of paths, shell globs and names with ranges and lists in braces, `{00000..00099}` or `{a,b}`.

    Raises:
        BadTar: a file is not there or is named twice, or a glob fits none.
    """
    paths: list[Path] = []
    missing: list[str] = []
    for name in itertools.chain.from_iterable(map(_named, patterns)):
        found = [name] if os.path.lexists(name) else sorted(glob.glob(name)) if glob.has_magic(name) else []
        paths += map(Path, found)
        if not found:
            missing.append(f"{name}: there is no such file")
    missing += [f"{path}: {reason}" for path in paths if (reason := why_no_file(path))]
    if missing:
        raise BadTar(_first(missing))
    twice = [str(path) for path, count in Counter(map(os.path.realpath, paths)).items() if count > 1]
    if twice:
        raise BadTar(f"--tar names files twice: {_first(twice)}")
    return paths


def _named(pattern: str) -> Iterable[str]:
    """Names that braces stand for, as a shell has it, but for a file whose name has the braces."""
    if os.path.lexists(pattern):
        return [pattern]
    choices: list[list[str]] = []
    end = 0
    for found in BRACES.finditer(pattern):
        choices += [pattern[end : found.start()]], _values(*found.groups())
        end = found.end()
    choices.append([pattern[end:]])
    if math.prod(map(len, choices)) > MAX_TARS:
        raise BadTar(f"--tar {pattern}: more than {MAX_TARS} files")
    return map("".join, itertools.product(*choices))


def _values(first: str | None, last: str | None, listed: str | None) -> list[str]:
    if first is None or last is None:
        return (listed or "").split(",")
    is_padded = any(len(bound) > 1 and bound.startswith("0") for bound in (first, last))
    width = max(len(first), len(last)) if is_padded else 0
    step = 1 if int(first) <= int(last) else -1
    numbers = range(int(first), int(last) + step, step)[: MAX_TARS + 1]  # as many are too many
    return [f"{number:0{width}d}" for number in numbers]


def _first(texts: list[str], most: int = MAX_NAMED) -> str:
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


class TarSource:
    """The clips of several tar files, in the order of the files and of the first member of each key.

    Only their headers are read here, and of a key no more than a hash is held.

    Raises:
        BadTar: files are missing or no sound tar files, all of which are listed, or a key is there twice.

    Attributes:
        num_rows: keys with a video or a caption.
        sha256: digest of the tables of members.
    """

    def __init__(self, patterns: Collection[str]) -> None:
        self._tars = expand_tars(patterns)
        self._stamps: list[str] = []
        counts: list[int] = []
        hashes: list[np.ndarray] = []
        digest = hashlib.sha256()
        bad: list[str] = []
        for tar in tqdm(self._tars, desc="looking through", unit="tar", delay=5):
            try:
                self._stamps.append(file_stamp(tar))
                digest.update(f"{tar.name} {tar.stat().st_size}\n".encode(errors="surrogateescape"))
                keys = list(samples_of(tar, digest.update))
            except (BadTar, OSError) as error:
                bad.append(str(error))
                continue
            counts.append(len(keys))
            hashes.append(np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys)))
        if bad:
            raise BadTar(_first(bad))
        self._ends = list(itertools.accumulate(counts))
        self.num_rows = self._ends[-1] if counts else 0
        self.sha256 = digest.hexdigest()
        self._check_keys(hashes)

    def _check_keys(self, hashes: list[np.ndarray]) -> None:
        values, counts = np.unique(np.concatenate([*hashes, np.zeros(0, dtype=np.int64)]), return_counts=True)
        repeated = set(values[counts > 1].tolist())
        found: dict[str, list[str]] = {}
        for tar, here in zip(self._tars, hashes, strict=True) if repeated else ():
            if not repeated.isdisjoint(here.tolist()):
                for key in samples_of(tar):
                    if hash(key) in repeated:
                        found.setdefault(key, []).append(str(tar))
        texts = [f"key {key} is in {' and '.join(tars)}" for key, tars in found.items() if len(tars) > 1]
        if texts:
            raise BadTar(f"{_first(texts)}: keys are the ids of clips; convert sets of their own into folders each")

    def rows(self, clips_per_shard: int, wanted: Collection[int]) -> Iterator[Row]:
        """Yield the rows of the wanted shards; tar files without any are not opened.

        Raises:
            BadTar: a file has changed.
        """
        for tar, stamp, first, end in zip(self._tars, self._stamps, [0, *self._ends], self._ends, strict=False):
            shards = range(first // clips_per_shard, -(-end // clips_per_shard))
            if first == end or not any(shard in wanted for shard in shards):
                continue
            try:
                with tar.open("rb") as file:
                    samples = samples_of(tar)
                    if file_stamp(tar) != stamp or len(samples) != end - first:
                        raise BadTar(f"{tar}: was changed while it was read; run again when it is written")
                    for position, (key, sample) in enumerate(samples.items(), first):
                        if position // clips_per_shard in wanted:
                            yield _row(position // clips_per_shard, key, sample, file, stamp)
            except OSError as error:
                raise BadTar(f"{tar}: cannot be read: {error.strerror}; run again to go on once it can") from error


def samples_of(tar: Path, saw: Callable[[bytes], object] = len) -> dict[str, dict[str, Member]]:
    """Members of each key of an archive by what they are: VIDEO, TEXT, METADATA; others and hidden ones are left out.

    The key is the name of a member without folders and ending, as the id of a video file is.

    Args:
        saw: as for `iterate_members`.

    Raises:
        BadTar: as `iterate_members`; a key has two of one kind.
    """
    samples: dict[str, dict[str, Member]] = {}
    with tar.open("rb") as file:
        for member in iterate_members(file, saw):
            key, suffix = os.path.splitext(member.name.rsplit("/", 1)[-1])
            kind = VIDEO if suffix.lower() in VIDEO_SUFFIXES else suffix.lower().removeprefix(".")
            if kind not in (VIDEO, TEXT, METADATA) or key.startswith("."):
                continue
            other = samples.setdefault(key, {}).setdefault(kind, member)
            if other is not member:
                raise BadTar(f"{tar}: {other.name[:200]} and {member.name[:200]} are both of the key {key[:200]}")
            if len(samples) > MAX_SAMPLES:
                raise BadTar(f"{tar}: more than {MAX_SAMPLES} keys; make smaller archives of it")
    return samples


def _row(shard: int, key: str, sample: dict[str, Member], file: BinaryIO, stamp: str) -> Row:
    caption, fault, kind = "", None, None
    video = sample.get(VIDEO)
    place = f"{file.name}, key {key!r}"
    if not is_id(key):
        kind, fault = BAD_ID, f"{place}: no usable video id"
    elif video is None:
        fault = f"{place}: no video"
    elif not video.is_plain:
        fault = f"{place}: its video is a link or no plain file"
    else:
        try:
            caption = _caption(file, place, sample)
            if not caption:
                kind, fault = EMPTY_CAPTION, "empty caption"
        except ValueError as error:
            fault = str(error)
    in_tar = TarVideo(file.name, stamp, video.name, video.offset, video.size) if video else None
    return Row(shard, key, caption, "", fault, fault_kind=kind, video=in_tar)


def _caption(file: BinaryIO, place: str, sample: dict[str, Member]) -> str:
    """The caption of KEY.txt, else that of KEY.json; "" without one. ValueError for what is none."""
    if TEXT in sample:
        text = _text(file, place, sample[TEXT], MAX_CAPTION).strip()
        if text and not is_no_caption(text):
            return text
    if METADATA in sample:
        text = _text(file, place, sample[METADATA], MAX_METADATA)
        metadata = parse_json(text, f"{place}: its json", "write it again", any_number=True)
        if not isinstance(metadata, dict):
            raise ValueError(f"{place}: its json is no dictionary")
        for name in ("caption", "text"):
            caption = metadata.get(name)
            if caption is not None and not isinstance(caption, str):
                raise ValueError(f"{place}: its {name} is no text but {repr(caption)[:80]}")
            if caption and caption.strip() and not is_no_caption(caption):
                return caption.strip()
    return ""


def _text(file: BinaryIO, place: str, member: Member, most: int) -> str:
    if not member.is_plain:
        raise ValueError(f"{place}: its caption is a link or no plain file")
    if member.size > most:
        raise ValueError(f"{place}: its {member.name[-4:]} has {member.size} bytes, more than {most}")
    file.seek(member.offset)
    try:
        text = file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: its {member.name[-4:]} is not UTF-8 ({error})") from error
    if "\0" in text:
        raise ValueError(f"{place}: a NUL character in its caption, so it is no text")
    return text
