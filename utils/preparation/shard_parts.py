"""Conversion of a set in parts by several machines into one folder, and their merge into what one would have written.

A part writes its own shards, their companions and a file of its settings, and reads those of the others: nothing is
written by two of them, and nobody waits.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dataloaders.files import atomic_write_text, file_lock
from utils.preparation.shard_files import INDEX, PARTS, CannotConvert, Counts, Settings, is_finished, write_lists

NAME = re.compile(r"settings(?:-(\d+)-of-(\d+))?\.json")
OTHERS = "run with those, name another --output_dir, or delete this one"
ROWS = "rows"  # how many the whole set has; in the files of parts


@dataclass(frozen=True)
class Part:
    """Which part of a set a run converts: number `index` of `count`, from 0."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole set."""
        return self == WHOLE

    def numbers(self, num_shards: int) -> range:
        """Its shards: a run of them, so that it opens few tar files."""
        return range(self.index * num_shards // self.count, (self.index + 1) * num_shards // self.count)

    def file(self, output_dir: Path, name: str, ending: str) -> Path:
        """A file of its own."""
        own = "" if self.is_whole else f"-{self.index}-of-{self.count}"
        return output_dir / PARTS / f"{name}{own}{ending}"


WHOLE = Part()


def begin(output_dir: Path, settings: Settings, part: Part, num_rows: int) -> None:
    """Note the settings of a part, once it agrees with what is there.

    Raises:
        CannotConvert: the folder was begun with other settings, in another number of parts, or by others.
    """
    wanted = asdict(settings) | ({} if part.is_whole else {ROWS: num_rows})
    path = part.file(output_dir, "settings", ".json")
    is_new = not path.exists()
    if is_new:
        if not _begun(output_dir) and ((output_dir / INDEX).exists() or any(output_dir.glob("path-*.tfrecord"))):
            raise CannotConvert(f"{output_dir} holds shards that this command did not write: name another --output_dir")
        atomic_write_text(path, json.dumps(wanted, indent=1))
    try:
        # Read after it was written: of two parts that start at once, one sees the other.
        for other, found in _begun(output_dir).items():
            _check_same(output_dir, part, wanted, other, found)
    except CannotConvert:
        if is_new:
            path.unlink()
        raise


def _begun(output_dir: Path) -> dict[Part, dict[str, Any]]:
    """The settings of each part that was begun."""
    begun = {}
    for path in sorted((output_dir / PARTS).glob("settings*.json")):
        if found := NAME.fullmatch(path.name):
            begun[Part(int(found[1]), int(found[2])) if found[1] else WHOLE] = _settings(path)
    return begun


def _settings(path: Path) -> dict[str, Any]:
    try:
        return {**json.loads(path.read_bytes())}
    except (ValueError, TypeError) as error:
        raise CannotConvert(
            f"{path}: damaged ({error}): delete it to go on, if {path.parents[1]} was begun with these settings"
        ) from error


def _check_same(output_dir: Path, part: Part, wanted: dict, other: Part, found: dict) -> None:
    if other.count != part.count:
        begun = "as a whole" if other.is_whole else f"in {other.count} parts"
        now = "the whole" if part.is_whole else f"part {part}"
        raise CannotConvert(f"{output_dir} was begun {begun}, and this is {now}: {OTHERS}")
    differing = [f"{key} {found.get(key)} there, {wanted[key]} now" for key in _differing(wanted, found)]
    if differing:
        whose = "" if other == part else f" by part {other}"
        raise CannotConvert(f"{output_dir} was begun with other settings{whose} ({'; '.join(differing)}): {OTHERS}")


def _differing(wanted: dict, found: dict) -> list[str]:
    return [key for key in wanted if found.get(key) != wanted[key]]


def merge(output_dir: Path) -> Counts:
    """Write index, labels and report of a folder whose parts are all there, as a run of the whole set would.

    Raises:
        CannotConvert: a part is missing, not finished or was made with other settings; the message names it.
        TimeoutError: another merge of it runs.
    """
    if not (output_dir / PARTS).is_dir():
        raise CannotConvert(f"{output_dir}: no parts are here to merge: convert with --part i/n first")
    with file_lock(output_dir / PARTS / "lock", timeout=0):
        begun = _begun(output_dir)
        if not begun or WHOLE in begun:
            reason = "was begun as a whole, so there is nothing to merge" if begun else "no parts are here to merge"
            raise CannotConvert(f"{output_dir}: {reason}")
        counts = sorted({part.count for part in begun})
        if len(counts) > 1:
            numbers = " and of ".join(map(str, counts))
            raise CannotConvert(f"{output_dir} has parts of {numbers}: keep the files of one number")
        first, wanted = next(iter(begun.items()))
        for part, found in begun.items():
            differing = "; ".join(f"{key} {found.get(key)}, not {wanted[key]}" for key in _differing(wanted, found))
            if differing:
                raise CannotConvert(
                    f"{output_dir}: part {part} was made with other settings than part {first} ({differing}): delete "
                    "the files of one of them and convert it again"
                )
        settings, num_shards = _stated(output_dir, wanted)
        _check_finished(output_dir, set(begun), counts[0], num_shards)
        return write_lists(output_dir, num_shards, settings)


def _stated(output_dir: Path, stated: dict[str, Any]) -> tuple[Settings, int]:
    try:
        settings = Settings(**{field.name: stated[field.name] for field in fields(Settings)})
        return settings, settings.num_shards(stated[ROWS])
    except (KeyError, TypeError, ValueError) as error:
        raise CannotConvert(f"{output_dir / PARTS}: damaged settings ({error!r}); run one part again") from error


def _check_finished(output_dir: Path, begun: set[Part], count: int, num_shards: int) -> None:
    lacking = []
    for part in (Part(index, count) for index in range(count)):
        numbers = part.numbers(num_shards)
        finished = sum(is_finished(output_dir, number) for number in numbers)
        if part not in begun:
            lacking.append(f"part {part} is missing")
        elif finished < len(numbers):
            lacking.append(f"part {part} is not finished ({finished} of {len(numbers)} shards)")
    if lacking:
        raise CannotConvert(f"{output_dir}: {'; '.join(lacking)}: run with --part of those, then --merge again")
