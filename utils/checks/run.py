"""From the command line of utils/check_data.py to its report, and the check of a data set of videos."""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.files import atomic_write_text
from dataloaders.samples import MAX_BAD_CLIPS
from utils.checks.clips import ClipResult, ClipTask, check_all, check_clip
from utils.checks.findings import (
    DAMAGED_CACHE,
    REPLACED_TEXT,
    WRONGLY_UNREADABLE,
    Finding,
    Report,
    as_records,
    counts,
    exit_status,
    in_order,
    shown,
    stop,
    table,
    write_tsv,
)
from utils.checks.objects import misfits, nothing_kept, object_files, read_label_map, wrong_order
from utils.checks.setup import (
    PRETRAIN,
    CheckArguments,
    ListedSplit,
    Located,
    clip_settings,
    compare_splits,
    locate_videos,
    read_list,
    sample_settings,
)
from utils.checks.shards import check_shards, longest_run
from utils.data.questions import NEVER_READ
from utils.preparation.frame_caching import CacheTask, survey_cache
from utils.preparation.webvid_rows import BadCsv
from utils.runtime.terminal import log_to_stderr
from utils.settings.parser import parse_arguments

DEFAULTS = {"datatype": "msrvtt_retrieval", "output_dir": "output/check_data"}
VERDICTS = (
    "training can start",
    "training can start, without what the errors name (evaluation: --on_bad_video skip)",
    "training cannot start",
)


def check_videos(args: CheckArguments) -> Report:
    """Check a data set of videos; raises CannotStart if no worker process starts."""
    findings: list[Finding] = []
    splits = _read_lists(args, findings)
    are_all_read = len(splits) == len(args.split_names())
    label_map = read_label_map(args, findings)
    files = object_files(args, splits, findings) if label_map else {}
    videos = {split.name: len(split.video_ids) for split in splits}
    try:
        located = locate_videos(args, splits)
    except (OSError, ValueError) as error:
        findings.append(stop(error))
        return Report(in_order(findings), videos, 0, 0)
    findings += located.unreferenced
    findings = _of_no_list(findings, splits, are_all_read=are_all_read)
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
    findings += _unusable_splits(splits, results, missing)
    findings += [
        found for split in splits if split.name == "train" for found in misfits(args, findings, split.video_ids)
    ]
    findings += wrong_order(args, findings, object_count)
    if object_count:
        findings += nothing_kept(args, findings, sum(result.kept_boxes for result in results.values()))
    cache = _check_cache(args, tasks, results, findings) if args.cache.frame_cache else None
    return Report(in_order(findings), videos, len(tasks) - len(missing), object_count, cache)


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


def _of_no_list(findings: list[Finding], splits: Iterable[ListedSplit], *, are_all_read: bool) -> list[Finding]:
    """The findings without those on files of no list that a list names, if only to leave them out, or may name."""
    named = {finding.video_id for split in splits for finding in split.findings}

    def holds(finding: Finding) -> bool:
        if finding.kind not in ("orphan_objects", "unreferenced_video", "unlisted_captions"):
            return True
        return are_all_read and not {finding.video_id, finding.video_id.split(".")[0]} & (named - {""})

    return list(filter(holds, findings))


def _task(video_id: str, located: Located, objects: tuple[str, ...], *, is_missing: bool) -> ClipTask:
    return ClipTask(video_id, located.files.get(video_id), None if is_missing else located.lmdb, objects)


def _unusable_splits(
    splits: Iterable[ListedSplit], results: Mapping[str, ClipResult], missing: Container[str]
) -> Iterator[Finding]:
    """Splits of which nothing can be read; training gives up where many videos in a row cannot be."""
    for split in splits:
        there = [video_id for video_id in split.video_ids if video_id not in missing]
        lost = np.array([not results[video_id].is_readable for video_id in there], dtype=bool)
        if lost.all():
            yield stop(f"{split.name}: none of the {len(split.video_ids)} videos can be read (--features_path)")
        elif split.name == "train" and (run := longest_run(lost)) >= MAX_BAD_CLIPS:
            yield stop(
                f"{run} videos in a row, of {len(there)}, cannot be read: training gives up after {MAX_BAD_CLIPS}"
            )


def _check_cache(
    args: CheckArguments, tasks: Iterable[ClipTask], results: Mapping[str, ClipResult], findings: list[Finding]
) -> str | None:
    """What the frame cache has of the videos, as a line; None if it cannot be read."""
    settings = sample_settings(args)
    there = {
        task.video_id: CacheTask(task.video or task.video_id, task.lmdb) for task in tasks if task.video or task.lmdb
    }
    try:
        survey = survey_cache(args.cache, there, settings)
    except OSError as error:
        findings.append(stop(error))
        return None
    folder = str(args.cache.frame_cache)
    findings += [Finding(DAMAGED_CACHE, "", folder, damage) for damage in survey.damages]
    findings += [
        Finding(WRONGLY_UNREADABLE, video_id, folder, reason)
        for video_id, reason in survey.unreadable.items()
        if results[video_id].is_readable
    ]
    kind = f"{args.cache.frame_cache_format}, {settings.max_frames} frames of {settings.resolution} pixels"
    return (
        f"frame cache {folder} ({kind}): {survey.stored} of {len(there)} videos are there, "
        f"{len(survey.unreadable)} are remembered as unreadable; {survey.size / 1e9:.3f} GB"
    )


class _Replaced(logging.Handler):
    """Findings of what readers replace, of which they only warn."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.findings: list[Finding] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning of replaced text, whose first argument is the file."""
        if "lone surrogates" in str(record.msg) and isinstance(record.args, tuple):
            self.findings.append(Finding(REPLACED_TEXT, "", str(record.args[0]), record.getMessage()))


def _checked(args: CheckArguments) -> Report:
    """The report of a data set, with what its readers have replaced."""
    replaced, readers = _Replaced(), [logging.getLogger(name) for name in ("dataloaders", "modules")]
    for reader in readers:
        reader.addHandler(replaced)
    try:
        report = check_shards(args) if args.datatype == PRETRAIN else check_videos(args)
    finally:
        for reader in readers:
            reader.removeHandler(replaced)
    return report._replace(findings=in_order(map(shown, [*report.findings, *replaced.findings])))


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
            "frame_cache": report.cache,
            "counts": counts(report.findings),
            "findings": as_records(report.findings),
        }
        atomic_write_text(args.json, json.dumps(content, indent=1, ensure_ascii=False))
    return output


def run(argv: list[str] | None, description: str | None) -> tuple[list[str], int]:
    """Run the command; returns the lines that it prints and its exit status. OSError and CannotStart as they come."""
    args = parse_arguments(argv, CheckArguments, DEFAULTS, description, NEVER_READ)
    log_to_stderr(logging.ERROR)  # what readers warn of is among the findings
    report = _checked(args)
    status = exit_status(report.findings)
    output = _write(args, report, status)
    videos = ", ".join(f"{name} {count}" for name, count in report.videos.items()) or "none"
    read = f"{report.read} records" if args.datatype == PRETRAIN else f"{report.read} video"
    title = f"{args.datatype}: videos listed: {videos}; {read} and {report.object_files} object files read"
    verdict = f"{VERDICTS[status]}: {len(report.findings)} findings, {output}"
    return [title, *filter(None, [report.cache]), *table(report.findings), verdict], status
