"""Make a label map, or say how many nouns of captions label maps can name.

    --objects FOLDER, --vinvl FILE    of object files, or of VinVL's dictionary file
    --captions FILE --most 500        of the most frequent nouns of captions; --videos: of those of a split only
    --coverage FILE --map MAP...      share of the noun tokens of captions that maps can name, and what they cannot

A caption file is one of a data set (MSR-VTT's json, MSVD's pkl, LSMDC's csv), or a json, jsonl, csv or tsv with a
column caption, sentence, description, text or name, or a text file with one per line.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.caption_files import caption_texts
from dataloaders.files import atomic_write_text
from dataloaders.id_lists import read_ids
from dataloaders.tagging import TAGGERS, make_tagger
from utils.preparation.caption_nouns import count_nouns, measure_coverage, most_frequent, noun_names
from utils.preparation.label_maps import label_map_from_names, label_map_from_objects, label_map_from_vinvl, names_of
from utils.runtime.terminal import show, show_error, show_lines


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--objects", type=Path, help="folder of object files ({video_id}.json, or tsv_files/ in it)")
    source.add_argument("--vinvl", type=Path, help="VinVL's dictionary file, VG-SGG-dicts-vgoi6-clipped.json")
    source.add_argument("--captions", type=Path, help="caption file")
    add = parser.add_argument
    add("--output", type=Path, help="label map to write")
    add("--most", type=int, default=500, help="captions: names at most (default: %(default)s)")
    add("--videos", type=Path, help="captions: list of the videos whose captions are read")
    add("--coverage", type=Path, help="caption file whose nouns are to be named")
    add("--coverage_videos", type=Path, help="coverage: list of the videos whose captions are read")
    add("--map", "--labelmap_path", nargs="+", default=[], metavar="MAP", help="coverage: label maps, .txt files with "
        "a name per line, or torchvision detection models")  # fmt: skip
    add("--show", type=int, default=20, help="coverage: things that are listed as missing (default: %(default)s)")
    add("--tagger", choices=tuple(TAGGERS), default="hanta", help="part-of-speech tagger (default: %(default)s)")
    args = parser.parse_args(argv)
    has_source = bool(args.objects or args.vinvl or args.captions)
    if has_source != bool(args.output):
        parser.error("--output goes with one of --objects, --vinvl and --captions")
    if not has_source and not (args.coverage and args.map):
        parser.error("one of --objects, --vinvl and --captions is required, or --coverage with --map")
    return args


def make_label_map(args: argparse.Namespace) -> dict[str, Any]:
    """The label map of the source that the arguments name; files that cannot be read are shown."""
    if args.vinvl:
        return label_map_from_vinvl(args.vinvl)
    if args.captions:
        videos = read_ids(args.videos) if args.videos else None
        names = noun_names(count_nouns(caption_texts(args.captions, videos), make_tagger(args.tagger)))
        return label_map_from_names({name: names[name] for name in most_frequent(names, args.most)})
    label_map, unreadable = label_map_from_objects(args.objects)
    for line in unreadable:
        show(f"unreadable, left out: {line}")
    return label_map


def show_coverage(args: argparse.Namespace) -> None:
    """Print what the maps, and the one that was just written, can name."""
    maps = {source: names_of(source) for source in [*args.map, *([str(args.output)] if args.output else [])]}
    videos = read_ids(args.coverage_videos) if args.coverage_videos else None
    counts = count_nouns(caption_texts(args.coverage, videos, "--coverage"), make_tagger(args.tagger))
    show(f"{args.coverage}: {counts.total():,} noun tokens, {len(counts):,} different ones")
    for source, names in maps.items():
        found = measure_coverage(counts, names)
        named, more = (100 * count / max(found.tokens, 1) for count in (found.named, found.with_plurals))
        show(f"{source}: {len(names)} names for {named:.1f} % ({more:.1f} % with plurals such as men)")
        most = sorted(found.missing.items(), key=lambda pair: (-pair[1], pair[0]))[: args.show]
        show_lines([f"  without a name: {', '.join(f'{name} {count}' for name, count in most)}"] if most else [])


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parse_arguments(argv)
    try:
        if args.output:
            label_map = make_label_map(args)
            atomic_write_text(args.output, json.dumps(label_map, ensure_ascii=False))
            attributes = len(label_map.get("attribute_to_idx", {}))
            show(f"{args.output}: {len(label_map['label_to_idx'])} classes, {attributes} attributes")
        if args.coverage:
            show_coverage(args)
    except (OSError, ValueError, ImportError) as error:
        show_error(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
