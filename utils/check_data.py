"""Read a data set's annotations, videos and object files before a long run, and list what is wrong with them.

    python utils/check_data.py --datatype webvid --train_csv results_2M_train.csv --features_path VIDEOS
    python utils/check_data.py --datatype pretrain --train_csv SHARDS --data_path SHARDS/frozen_train_labels.json
                               --need_object --object_path OBJECTS --labelmap_path LABEL_MAP.json
    python utils/check_data.py --datatype msvd_caption --data_path ANNOTATIONS --features_path VIDEOS --workers 8
                               --object_path OBJECTS --labelmap_path LABEL_MAP.json

It takes the flags of the tasks: a task's command line runs with this file in the place of the task, and flags that say
nothing about data have no effect. Data type webvid is csv and clips, from which utils/webvid_to_tfrecord.py writes
shards; data type pretrain is those shards, found as pre-training finds them, with their index and captions (not its
validation clips: these are data type msrvtt_retrieval). Annotations are read by the task's own readers, every video is
decoded to its end and every record's picked frames are decoded as training does, and every object file is compared with
its clip and with the frame rule. Nothing but the report is written.

Findings are of three severities:
    stop   training cannot start, or would end on the way: annotations, label map or folders are missing or damaged, a
           split has no readable video, a shard is not there, too many samples in a row are damaged, or the sizes that
           boxes are mapped by are unknown.
    error  a clip is lost, or used without all that its files hold. Training leaves it out; evaluation refuses missing
           or unreadable videos unless --on_bad_video is skip.
    note   worth knowing, but nothing is lost: short or repeated, or files that no list names.
A file that cannot be opened, or of which clearly fewer frames decode than it states, counts as truncated only if its
size or its end shows that a part is missing. Kinds and their severities are in utils/check_findings.py.

Exit status: 0 nothing but notes; 1 errors, training can start; 2 training cannot start or would end on the way (or
the flags are wrong).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.files import atomic_write_text
from utils.answer_setup import NEVER_READ
from utils.arguments import parse_arguments
from utils.check_clips import ClipResult, ClipTask, check_all, check_clip
from utils.check_findings import Finding, Report, as_records, counts, exit_status, in_order, stop, table, write_tsv
from utils.check_objects import object_files, read_label_map, wrong_order
from utils.check_setup import (
    PRETRAIN,
    CheckArguments,
    ListedSplit,
    Located,
    clip_settings,
    compare_splits,
    locate_videos,
    read_list,
)
from utils.check_shards import check_shards
from utils.video_workers import CannotStart
from utils.webvid_rows import BadCsv

DEFAULTS = {"datatype": "msrvtt_retrieval", "output_dir": "output/check_data"}
VERDICTS = (
    "training can start",
    "training can start, without what the errors name (evaluation: --on_bad_video skip)",
    "training cannot start",
)


def check_data(args: CheckArguments) -> Report:
    """Check a data set of videos; raises CannotStart if no worker process starts."""
    findings: list[Finding] = []
    splits = _read_lists(args, findings)
    label_map = read_label_map(args, findings)
    files = object_files(args, splits, findings) if label_map else {}
    videos = {split.name: len(split.video_ids) for split in splits}
    try:
        located = locate_videos(args, splits)
    except OSError as error:
        findings.append(stop(error))
        return Report(in_order(findings), videos, 0, 0)
    findings += located.unreferenced
    findings += [Finding("missing_video", video_id, args.features_path, "") for video_id in located.missing]
    missing = set(located.missing)
    tasks = [
        _task(video_id, located, files.get(video_id, ()), is_missing=video_id in missing)
        for video_id in dict.fromkeys(video_id for split in splits for video_id in split.video_ids)
    ]
    check = partial(check_clip, settings=clip_settings(args, label_map))
    results = {task.video_id: result for task, result in check_all(check, tasks, len(tasks), args.workers)}
    for result in results.values():
        findings += result.findings
    object_count = sum(result.object_files for result in results.values())
    findings += _unusable_splits(splits, results)
    findings += wrong_order(args, findings, object_count)
    return Report(in_order(findings), videos, len(tasks) - len(missing), object_count)


def _read_lists(args: CheckArguments, findings: list[Finding]) -> list[ListedSplit]:
    splits = []
    for name in args.split_names():
        try:
            split = read_list(args, name)
        except (OSError, ValueError, BadCsv) as error:
            findings.append(stop(f"{name}: {error}"))
            continue
        findings += split.findings
        splits.append(split)
    if splits:
        try:
            findings += compare_splits(args, splits)
        except (OSError, ValueError) as error:
            findings.append(stop(error))
    return splits


def _task(video_id: str, located: Located, objects: tuple[str, ...], *, is_missing: bool) -> ClipTask:
    return ClipTask(video_id, located.files.get(video_id), None if is_missing else located.lmdb, objects)


def _unusable_splits(splits: Iterable[ListedSplit], results: Mapping[str, ClipResult]) -> Iterator[Finding]:
    for split in splits:
        if not any(results[video_id].is_readable for video_id in split.video_ids):
            yield stop(f"{split.name}: none of the {len(split.video_ids)} videos can be read (--features_path)")


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
        report = check_shards(args) if args.datatype == PRETRAIN else check_data(args)
        status = exit_status(report.findings)
        output = _write(args, report, status)
    except (OSError, CannotStart) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    videos = ", ".join(f"{name} {count}" for name, count in report.videos.items()) or "none"
    read = f"{report.read} records" if args.datatype == PRETRAIN else f"{report.read} video"
    print(f"{args.datatype}: videos listed: {videos}; {read} and {report.object_files} object files read")
    for line in table(report.findings):
        print(line)
    print(f"{VERDICTS[status]}: {len(report.findings)} findings, {output}")
    return status


if __name__ == "__main__":
    sys.exit(main())
