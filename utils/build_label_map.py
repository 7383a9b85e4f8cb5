"""Make a label map from VinVL's dictionary file or from the object files themselves."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.files import atomic_write_text
from utils.preparation.label_maps import label_map_from_objects, label_map_from_vinvl
from utils.runtime.terminal import show, show_error


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--objects", type=Path, help="folder of object files ({video_id}.json, or tsv_files/ in it)")
    source.add_argument("--vinvl", type=Path, help="VinVL's dictionary file, VG-SGG-dicts-vgoi6-clipped.json")
    parser.add_argument("--output", type=Path, required=True, help="label map to write")
    args = parser.parse_args(argv)
    unreadable: list[str] = []
    try:
        if args.vinvl:
            label_map = label_map_from_vinvl(args.vinvl)
        else:
            label_map, unreadable = label_map_from_objects(args.objects)
        atomic_write_text(args.output, json.dumps(label_map, ensure_ascii=False))
    except (OSError, ValueError) as error:
        show_error(f"error: {error}")
        return 1
    for line in unreadable:
        show(f"unreadable, left out: {line}")
    show(
        f"{args.output}: {len(label_map['label_to_idx'])} classes, "
        f"{len(label_map.get('attribute_to_idx', {}))} attributes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
