"""Build a data set's object store before the first run (which would otherwise do it) and print what was found."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.id_lists import read_frame_sizes, read_ids
from dataloaders.label_map import load_label_map
from dataloaders.object_records import ObjectRules, ObjectSettings
from dataloaders.object_store import PROBLEMS_FILE, ObjectStore, build_object_store
from modules.utils_object_tractor import ObjectReport
from utils.runtime.terminal import log_to_stderr, show, show_error
from utils.settings.fields import add_flags, flags_of, from_flat


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--object_path", type=Path, required=True, help="folder of {video_id}.json, or with a folder tsv_files of them")
    add("--labelmap_path", type=Path, required=True, help="label map with 'label_to_idx'")
    add("--object_count", type=int, default=10, help="boxes per frame")
    add("--max_frames", type=int, default=12, help="frames that every file must have; 0 accepts any number")
    add("--ids", type=Path, help="csv, json, jsonl or text file of video ids (default: every file there is)")
    add("--frame_sizes", type=Path, help="json or csv of video sizes, to find boxes beyond the frame")
    add(
        "--store_path",
        type=Path,
        help="folder of the store (default: inside --object_path, as the training tasks look for it)",
    )
    add("--workers", type=int, default=1, help="processes that read the files")
    add_flags(parser, ObjectRules)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parse_arguments(argv)
    log_to_stderr(logging.WARNING)
    rules = from_flat(ObjectRules, {flag.name: getattr(args, flag.name) for flag in flags_of(ObjectRules)})
    settings = ObjectSettings(args.object_count, args.max_frames or None, rules)
    try:
        path = build_object_store(
            args.object_path,
            load_label_map(args.labelmap_path),
            settings,
            read_ids(args.ids) if args.ids else None,
            args.store_path,
            read_frame_sizes(args.frame_sizes) if args.frame_sizes else None,
            args.workers,
        )
        store = ObjectStore(path)
    except (OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    show(f"{path}: {len(store)} clips")
    report = ObjectReport(**store.report)
    for line in report.summary():
        show(line)
    if report.problems():
        show(f"one line per file and problem: {path / PROBLEMS_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
