"""The object store: one LMDB with the chosen boxes of every clip, built once from the detector's JSON files.

A value is the stored form of `object_records`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from dataloaders.built_caches import CannotCache, build_once, fallback_place, fingerprint_folder, read_fingerprint
from dataloaders.files import atomic_write_text, stable_hash
from dataloaders.frames import FRAME_RULE
from dataloaders.label_map import label_map_hash
from dataloaders.lmdb_files import forget_environment, read_environment
from dataloaders.object_records import (
    JSON_FOLDERS,
    ObjectRecord,
    ObjectSettings,
    find_object_file,
    object_file_ids,
    pack_problem,
    pack_record,
    read_record,
    unpack_record,
)
from dataloaders.parallel import chunked, ordered_map
from modules.foreign_text import read_json
from modules.utils_object_tractor import PROBLEMS, ObjectFileError, ObjectReport

logger = logging.getLogger(__name__)

FORMAT = 2
CHUNK = 256
INITIAL_MAP_SIZE = 64 << 20
META_FILE = "store.json"
PROBLEMS_FILE = "problems.tsv"


class RectOrderError(ValueError):
    """Most object files make sense only in the other order of rect."""


def default_store_path(
    object_path: str | Path, settings: ObjectSettings, video_ids: Iterable[str] | None = None
) -> Path:
    """Return where a store lies by default: inside `object_path`, named after what it depends on."""
    frames = "any" if settings.frames is None else settings.frames
    subset = "" if video_ids is None else f"_ids{ids_digest(video_ids)[:8]}"
    count, rules = settings.object_count, settings.rules
    tracked = "" if rules.trajectory == "class" else f"_{rules.trajectory}"
    name = f"objects_{count}_{rules.object_rule}_{rules.rect_order}_{frames}frames{tracked}{subset}.lmdb"
    return Path(object_path) / name


def ids_digest(video_ids: Iterable[str]) -> str:
    """Return a digest of a set of ids that does not depend on their order."""
    return f"{sum(map(stable_hash, set(video_ids))) % 2**64:016x}"


def build_object_store(
    object_path: str | Path,
    label_map: dict[str, Any],
    settings: ObjectSettings,
    video_ids: Iterable[str] | None = None,
    store_path: str | Path | None = None,
    frame_sizes: Mapping[str, tuple[int, int]] | None = None,
    workers: int = 1,
) -> Path:
    """Return the folder to open with `ObjectStore`, built from the JSON files unless it is there and current.

    Call it before the process group starts: the first process builds, the others wait. A store whose JSON files were
    removed after it was built is used as it is, if it was built with the same settings and label map.

    Args:
        object_path: folder of {video_id}.json, or of tsv_files/{video_id}.json.
        video_ids: clips to store, which may be paths to files in folders below; None takes every file there is in the
            folder itself, so that one store serves all splits of a data set.
        store_path: folder of the store; by default inside `object_path`, or the user's cache where that is read-only.
        frame_sizes: video id -> (width, height), for boxes beyond the frame; without it only negative coordinates are
            seen.
        workers: processes that read JSON.

    Raises:
        FileNotFoundError: if `object_path` has no object files.
        RectOrderError: if most files only make sense in another order or form of boxes.
        ValueError: the object count is below 1.
    """
    if settings.object_count < 1:
        raise ValueError(f"--object_count {settings.object_count}: must be at least 1")
    ids = None if video_ids is None else sorted(set(video_ids))
    target = Path(store_path) if store_path else default_store_path(object_path, settings, ids)
    fixed = {
        "format": FORMAT,
        "frame_rule": FRAME_RULE,
        "settings": settings.stored(),
        "label_map": label_map_hash(label_map),
        "ids": None if ids is None else ids_digest(ids),
        "frame_sizes": None if not frame_sizes else ids_digest(f"{key} {frame_sizes[key]}" for key in frame_sizes),
    }
    inside = sorted({os.path.dirname(video_id) for video_id in ids or ()} | {""})
    folders = [Path(object_path, folder, place) for place in inside for folder in JSON_FOLDERS]
    files = [fingerprint_folder(folder, ".json") if folder.is_dir() else {"count": 0} for folder in folders]
    if not any(entry["count"] for entry in files):
        unusable = ""
        for place in [target] if store_path else [target, fallback_place(target)]:
            built_with = read_fingerprint(place) or {}
            if {**fixed, **{key: built_with.get(key) for key in fixed if key != "frame_rule"}} == fixed:
                logger.info("%s: its JSON files are gone; used as it is", place)
                return place
            if built_with:
                unusable = f"; {place} was built with other settings or by another version"
        raise FileNotFoundError(
            f"no object files: looked for *.json in {folders[0]} and {folders[1]} (--object_path){unusable}"
        )
    if "frame_rule" not in (read_fingerprint(target) or {"frame_rule": FRAME_RULE}):
        logger.info("%s: of a version that did not know which frames its boxes are of; made anew", target)
    job = _Job(Path(object_path), label_map, settings, frame_sizes or {})

    def build(folder: Path) -> None:
        _build(folder, job, ids, workers)
        for place in (target, fallback_place(target)):
            forget_environment(place)

    return build_once(target, {**fixed, "files": files}, build, may_move=store_path is None)


class _Job(NamedTuple):
    object_path: Path
    label_map: dict[str, Any]
    settings: ObjectSettings
    frame_sizes: Mapping[str, tuple[int, int]]


class _Parsed(NamedTuple):
    values: list[tuple[bytes, bytes]]
    report: ObjectReport
    problem_lines: list[str]


def _build(folder: Path, job: _Job, ids: list[str] | None, workers: int) -> None:
    logger.info("building the object store of %s", job.object_path)
    report = ObjectReport()
    names = object_file_ids(job.object_path) if ids is None else iter(ids)
    chunks = (_sized(chunk, job) for chunk in chunked(names, CHUNK))
    environment = lmdb.open(str(folder), map_size=INITIAL_MAP_SIZE, sync=False, metasync=False)
    try:
        with open(folder / PROBLEMS_FILE, "w", encoding="utf-8", errors="backslashreplace") as problems:
            for parsed in ordered_map(_parse_chunk, chunks, workers, _start_worker, (job._replace(frame_sizes={}),)):
                _write_values(environment, parsed.values)
                problems.writelines(parsed.problem_lines)
                report.merge(parsed.report)
                _check_rect_order(report, job.settings)
        environment.sync(True)
    except lmdb.Error as error:  # on a full disk it is an input/output error
        raise CannotCache(f"{folder}: cannot be written ({error}); free space there, then start again") from error
    finally:
        environment.close()
    (folder / "lock.mdb").unlink(missing_ok=True)  # readers open without a lock
    meta = {"settings": job.settings.stored(), "label_map": label_map_hash(job.label_map), "report": report.as_dict()}
    atomic_write_text(folder / META_FILE, json.dumps(meta, indent=1))
    for line in report.summary():
        logger.info("objects: %s", line)


def _sized(video_ids: list[str], job: _Job) -> list[tuple[str, tuple[int, int] | None]]:
    """Pair ids with their frame sizes here, so that workers need not hold the sizes of millions of clips."""
    return [(video_id, job.frame_sizes.get(video_id)) for video_id in video_ids]


def _write_values(environment: lmdb.Environment, values: list[tuple[bytes, bytes]]) -> None:
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in values:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def _check_rect_order(report: ObjectReport, settings: ObjectSettings) -> None:
    """Stop a build early when the order is wrong as a rule; single such files are reported like other broken ones."""
    if 2 * report.rect_order_files > report.files:
        raise RectOrderError(
            f"{report.rect_order_files} of {report.files} object files hold boxes that do not make sense in the stated "
            f"order, --rect_order {settings.rules.rect_order}; for example {report.examples['rect_order_files'][0]}"
        )


_worker: _Job | None = None


def _start_worker(job: _Job) -> None:
    global _worker
    _worker = job


def _parse_chunk(chunk: list[tuple[str, tuple[int, int] | None]]) -> _Parsed:
    assert _worker is not None
    total, values, lines = ObjectReport(), [], []
    for video_id, frame_size in chunk:
        report = ObjectReport(max_examples=total.max_examples)
        value = _parse_clip(video_id, frame_size, _worker, report)
        if value is not None:
            values.append((_key(video_id), value))
        for problem, count in report.problems().items():
            example = report.examples[problem][0].replace("\t", " ").replace("\n", " ")
            lines.append(f"{problem}\t{video_id}\t{count}\t{example}\n")
        total.merge(report)
    return _Parsed(values, total, lines)


def _parse_clip(video_id: str, frame_size: tuple[int, int] | None, job: _Job, report: ObjectReport) -> bytes | None:
    path = find_object_file(job.object_path, video_id)
    if path is None:
        report.note("missing_files", video_id)
        return None
    try:
        return pack_record(read_record(path, job.label_map, job.settings, report, frame_size))
    except ObjectFileError as error:
        report.note(error.problem, str(path), str(error))
        return pack_problem(f"{path.name}: {PROBLEMS[error.problem]}: {error}")


def _key(video_id: str) -> bytes:
    """Return the key of a clip: its id, or a digest of an id that LMDB would find too long (511 bytes)."""
    key = os.fsencode(video_id)
    return key if len(key) <= 511 else key[:480] + f"{stable_hash(video_id):016x}".encode()


class ObjectStore:
    """Reads a store that `build_object_store` returned; opened on first use in each process, pickled as its path.

    Attributes:
        settings: what it was built with.
        report: counts of the build (fields of `ObjectReport`).

    Raises:
        FileNotFoundError: the folder is no store.
        ValueError: it is damaged, which reading may find too; the message names the folder and the remedy.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        try:
            meta = read_json(self.path / META_FILE)
            self.settings = ObjectSettings.from_stored(meta["settings"])
            self.report: dict[str, Any] = {**meta["report"]}
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.path} is not an object store: it has no {META_FILE}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(f"{META_FILE} is not that of a store ({type(error).__name__}: {error})") from error

    def get(self, video_id: str) -> ObjectRecord | None:
        """Return the objects of a clip; None when it has no file or its file was unusable (see `problem`)."""
        found = self._read(video_id)
        return found if isinstance(found, ObjectRecord) else None

    def problem(self, video_id: str) -> str | None:
        """Return why a clip has no objects, None when it has."""
        found = self._read(video_id)
        if found is None:
            return f"{video_id}: no object file when {self.path} was built"
        return found if isinstance(found, str) else None

    def __len__(self) -> int:
        return int(self._environment().stat()["entries"])

    def _read(self, video_id: str) -> ObjectRecord | str | None:
        try:
            with self._environment().begin() as transaction:
                value = transaction.get(_key(video_id))
            return None if value is None else unpack_record(value)
        except (ValueError, lmdb.Error) as error:
            raise self._damaged(f"clip {video_id}: {error}") from error

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(f"{self.path}, {reason}; delete the folder to have it built again")

    def _environment(self) -> lmdb.Environment:
        return read_environment(self.path, readahead=False)
