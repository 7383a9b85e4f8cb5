"""The object files of a data set that is checked, and whether training could start with them."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dataloaders.built_caches import fallback_place
from dataloaders.label_map import load_label_map
from dataloaders.object_records import find_object_file, object_file_ids, split_object_folder
from dataloaders.object_store import default_store_path
from dataloaders.samples import MIN_MISFITS
from utils.checks.findings import CANNOT_START, Finding, stop
from utils.checks.setup import CheckArguments, ListedSplit


def read_label_map(args: CheckArguments, findings: list[Finding]) -> dict[str, Any] | None:
    """The label map; None if no objects are to be checked, or with a finding if it cannot be read."""
    if not args.checks_objects:
        return None
    try:
        return load_label_map(args.labelmap_path)
    except (OSError, ValueError) as error:
        findings.append(stop(error))
        return None


def object_files(
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
        if not there and not any(find_object_file(folder, name) for name in names if "/" in name):
            findings += no_object_files(args, folder)
            continue
        for name, video_id in names.items():
            path = find_object_file(folder, name) if name in there or "/" in name else None
            if path:
                files[video_id] = (*files.get(video_id, ()), str(path))
            else:
                findings.append(Finding("missing_objects", video_id, str(folder), f"no {name}.json"))
        findings += orphans(args, folder, there, names)
    return files


def _object_folder(args: CheckArguments, split: str) -> Path:
    """The folder in which the task looks for the object files of a split."""
    is_one = not args.task or args.is_own
    return Path(args.object_path) if is_one else split_object_folder(args.object_path, split)


def orphans(args: CheckArguments, folder: Path, there: Iterable[str], listed: Container[str]) -> Iterator[Finding]:
    """The object files `there` that none of the names in `listed` has; a label map among them is none."""
    label_map = Path(args.labelmap_path).resolve()
    for name in there:
        path = None if name in listed else find_object_file(folder, name)
        if path and path.resolve() != label_map:
            yield Finding("orphan_objects", name, str(path), "")


def no_object_files(args: CheckArguments, folder: Path) -> list[Finding]:
    """Finding of a folder without object files; none if the task has a store built from it, used as it is."""
    store = default_store_path(folder, args.object_settings)
    if store.is_dir() or fallback_place(store).is_dir():
        return []
    return [stop(f"{folder} and its folder tsv_files hold no object files (--object_path)")]


def wrong_order(args: CheckArguments, findings: Iterable[Finding], object_files: int) -> list[Finding]:
    """Finding that most object files make sense in the other rect order only, at which the task stops."""
    count = sum(finding.kind == "wrong_rect_order" for finding in findings)
    if 2 * count <= object_files:
        return []
    return [stop(f"--rect_order {args.objects.rect_order} does not fit {count} of {object_files} object files")]


def nothing_kept(args: CheckArguments, findings: Iterable[Finding], kept_boxes: int) -> list[Finding]:
    """Finding that no box of any object file is used, which a model with objects does not train on."""
    if kept_boxes or not args.model.need_object or any(finding.kind == CANNOT_START for finding in findings):
        return []
    reason = "no box of these object files can be used, so a model with objects sees none"
    return [stop(f"{args.object_path}: {reason} (--object_path, --labelmap_path, --max_frames)")]


def misfits(args: CheckArguments, findings: Iterable[Finding], video_ids: Collection[str]) -> Iterator[Finding]:
    """Finding that most training clips do not fit their object files: training ends at that."""
    of_kind: dict[str, set[str]] = {}
    for finding in findings:
        of_kind.setdefault(finding.kind, set()).add(finding.video_id)
    outside = of_kind.get("outside_box", set()) & of_kind.get("no_objects", set())
    count = len((outside | of_kind.get("other_frames", set())) & set(video_ids))
    if args.model.need_object and count >= MIN_MISFITS and 2 * count > len(video_ids):
        yield stop(f"{args.object_path}: the files of {count} of {len(video_ids)} clips are of other frames or sizes")
