"""Read a data set's annotations, videos and object files before a long run, and list what is wrong with them.

    python utils/check_data.py --datatype webvid --train_csv results_2M_train.csv --features_path VIDEOS
    python utils/check_data.py --datatype msvd_caption --data_path ANNOTATIONS --features_path VIDEOS --workers 8
                               --object_path OBJECTS --labelmap_path LABEL_MAP.json

It takes the flags of the tasks: a task's command line runs with this file in the place of the task, and flags that say
nothing about data have no effect. For WebVid it checks csv and clips, from which utils/webvid_to_tfrecord.py writes the
shards. Annotations are read by the task's own readers, every video is decoded to its end as training does, and every
object file is compared with its video and with the frame rule. Nothing but the report is written.

Findings are of three severities:
    stop   training cannot start: annotations, label map or folders are missing or damaged, or a split has no readable
           video.
    error  a clip is lost, or used without all that its files hold. Training leaves it out; evaluation refuses missing
           or unreadable videos unless --on_bad_video is skip.
    note   worth knowing, but nothing is lost: short or repeated, or files that no list names.
A file that cannot be opened, or of which clearly fewer frames decode than it states, counts as truncated only if its
size or its end shows that a part is missing. Kinds and their severities are in utils/check_findings.py.

Exit status: 0 nothing but notes; 1 errors, training can start; 2 training cannot start (or the flags are wrong).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from tqdm import tqdm

from dataloaders.files import atomic_write_text
from dataloaders.label_map import load_label_map
from dataloaders.object_store import (
    ObjectSettings,
    default_store_path,
    find_object_file,
    object_file_ids,
    split_object_folder,
)
from utils.answer_setup import NEVER_READ
from utils.arguments import parse_arguments
from utils.check_clips import ClipResult, ClipSettings, ClipTask, check_clip
from utils.check_findings import CANNOT_START, Finding, as_records, counts, exit_status, in_order, table, write_tsv
from utils.check_setup import WEBVID, CheckArguments, ListedSplit, Located, compare_splits, locate_videos, read_list
from utils.video_workers import CannotStart, WorkerDied, WorkerPool
from utils.webvid_rows import BadCsv

DEFAULTS = {"datatype": "msrvtt_retrieval", "output_dir": "output/check_data"}
VERDICTS = (
    "training can start",
    "training can start, without what the errors name (evaluation: --on_bad_video skip)",
    "training cannot start",
)


class Report(NamedTuple):
    """All findings in order, the number of videos by split, and how many videos and object files were read."""

    findings: list[Finding]
    videos: dict[str, int]
    read: int
    object_files: int


def check_data(args: CheckArguments) -> Report:
    """Check a data set; raises CannotStart if no worker process starts."""
    findings: list[Finding] = []
    splits = list(_read_lists(args, findings))
    label_map = _read_label_map(args, findings)
    files = _object_files(args, splits, findings) if label_map else {}
    videos = {split.name: len(split.video_ids) for split in splits}
    try:
        located = locate_videos(args, splits)
    except OSError as error:
        findings.append(_stop(error))
        return Report(in_order(findings), videos, 0, 0)
    findings += located.unreferenced
    findings += [Finding("missing_video", video_id, args.features_path, "") for video_id in located.missing]
    tasks = [
        _task(video_id, located, files.get(video_id, ()))
        for video_id in dict.fromkeys(video_id for split in splits for video_id in split.video_ids)
    ]
    results = _check_clips(tasks, _clip_settings(args, label_map), args.workers)
    for result in results.values():
        findings += result.findings
    object_count = sum(result.object_files for result in results.values())
    findings += _unusable_splits(splits, results)
    findings += _wrong_order(args, findings, object_count)
    return Report(in_order(findings), videos, len(tasks) - len(located.missing), object_count)


def _stop(reason: object) -> Finding:
    return Finding(CANNOT_START, "", "", str(reason))


def _read_lists(args: CheckArguments, findings: list[Finding]) -> Iterator[ListedSplit]:
    splits = []
    for name in args.split_names():
        try:
            split = read_list(args, name)
        except (OSError, ValueError, BadCsv) as error:
            findings.append(_stop(f"{name}: {error}"))
            continue
        findings += split.findings
        splits.append(split)
    if splits:
        try:
            findings += compare_splits(args, splits)
        except (OSError, ValueError) as error:
            findings.append(_stop(error))
    return iter(splits)


def _read_label_map(args: CheckArguments, findings: list[Finding]) -> dict[str, Any] | None:
    if not args.checks_objects:
        return None
    try:
        return load_label_map(args.labelmap_path)
    except (OSError, ValueError) as error:
        findings.append(_stop(error))
        return None


def _object_files(
    args: CheckArguments, splits: Sequence[ListedSplit], findings: list[Finding]
) -> dict[str, tuple[str, ...]]:
    """Object files of each video, one per folder that a split has it in; missing and orphaned ones are findings."""
    names_of: dict[Path, dict[str, str]] = {}
    for split in splits:
        folder = _object_folder(args, split.name)
        for video_id in split.video_ids:
            names_of.setdefault(folder, {})[split.object_names.get(video_id, video_id)] = video_id
    files: dict[str, tuple[str, ...]] = {}
    for folder, names in names_of.items():
        there = set(object_file_ids(folder))
        if not there:
            findings += _no_object_files(args, folder)
            continue
        for name, video_id in names.items():
            path = find_object_file(folder, name) if name in there else None
            if path:
                files[video_id] = (*files.get(video_id, ()), str(path))
            else:
                findings.append(Finding("missing_objects", video_id, str(folder), f"no {name}.json"))
        label_map = Path(args.labelmap_path).resolve()
        for name in there - set(names):
            path = find_object_file(folder, name)
            if path and path.resolve() != label_map:
                findings.append(Finding("orphan_objects", name, str(path), ""))
    return files


def _object_folder(args: CheckArguments, split: str) -> Path:
    """Where the task looks for the object files of a split."""
    return Path(args.object_path) if args.datatype == WEBVID else split_object_folder(args.object_path, split)


def _no_object_files(args: CheckArguments, folder: Path) -> list[Finding]:
    settings = ObjectSettings(args.object_count, args.object_rule, args.rect_order, args.max_frames)
    if default_store_path(folder, settings).is_dir():
        return []  # the task uses a store whose files are gone as it is
    return [_stop(f"{folder} and its folder tsv_files hold no object files (--object_path)")]


def _task(video_id: str, located: Located, objects: tuple[str, ...]) -> ClipTask:
    return ClipTask(video_id, located.files.get(video_id), located.lmdb, objects)


def _clip_settings(args: CheckArguments, label_map: dict[str, Any] | None) -> ClipSettings:
    return ClipSettings(
        max_frames=args.max_frames,
        feature_framerate=args.feature_framerate,
        slice_framepos=args.slice_framepos,
        end_seconds=args.end_seconds,
        min_candidates=args.max_frames if args.min_candidates is None else args.min_candidates,
        object_count=args.object_count,
        object_rule=args.object_rule,
        rect_order=args.rect_order,
        has_original_boxes=args.box_coordinates == "original",
        label_map=label_map,
    )


def _check_clips(tasks: Sequence[ClipTask], settings: ClipSettings, workers: int) -> dict[str, ClipResult]:
    """Results by video id. A decoder that brings its process down costs one video."""
    results = {}
    with WorkerPool(partial(check_clip, settings=settings), min(workers, max(1, len(tasks)))) as pool:
        for task, result in tqdm(pool.map(tasks), total=len(tasks), unit="clip", disable=None):
            if isinstance(result, WorkerDied):
                found = Finding("unreadable_video", task.video_id, task.video or task.lmdb or "", result.reason)
                result = ClipResult([found], False, 0)
            results[task.video_id] = result
    return results


def _unusable_splits(splits: Iterable[ListedSplit], results: Mapping[str, ClipResult]) -> Iterator[Finding]:
    for split in splits:
        if not any(results[video_id].is_readable for video_id in split.video_ids):
            yield _stop(f"{split.name}: none of the {len(split.video_ids)} videos can be read (--features_path)")


def _wrong_order(args: CheckArguments, findings: Iterable[Finding], object_files: int) -> list[Finding]:
    """The task stops when most files make sense in the other order only."""
    count = sum(finding.kind == "wrong_rect_order" for finding in findings)
    if 2 * count <= object_files:
        return []
    return [_stop(f"--rect_order {args.rect_order} does not fit {count} of {object_files} object files")]


def _write(args: CheckArguments, report: Report, status: int) -> Path:
    output = Path(args.output or Path(args.output_dir, "data_check.tsv"))
    write_tsv(output, report.findings)
    if args.json:
        content = {
            "status": status,
            "datatype": args.datatype,
            "videos": report.videos,
            "read": report.read,
            "object_files": report.object_files,
            "counts": counts(report.findings),
            "findings": as_records(report.findings),
        }
        atomic_write_text(args.json, json.dumps(content, indent=1, ensure_ascii=False))
    return output


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parse_arguments(argv, CheckArguments, DEFAULTS, __doc__, NEVER_READ)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")  # what readers warn of is among the findings
    try:
        report = check_data(args)
        status = exit_status(report.findings)
        output = _write(args, report, status)
    except (OSError, CannotStart) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    videos = ", ".join(f"{name} {count}" for name, count in report.videos.items()) or "none"
    print(f"{args.datatype}: videos listed: {videos}; {report.read} video and {report.object_files} object files read")
    for line in table(report.findings):
        print(line)
    print(f"{VERDICTS[status]}: {len(report.findings)} findings, {output}")
    return status


if __name__ == "__main__":
    sys.exit(main())
