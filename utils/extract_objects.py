"""Make object files of videos: python utils/extract_objects.py VIDEO_OR_FOLDER... --output DIR --detector ...

    --detector fasterrcnn_resnet50_fpn_v2 --weights DEFAULT       torchvision's model, its weights downloaded
    --detector ssdlite320_mobilenet_v3_large --weights my.pth --classes names.txt
    --detector hf --weights FOLDER                                a detector of transformers, as DETR
    --detector hf --weights hf-hub:OWNER/NAME --prompts names.txt one that looks for words, as OWLv2, downloaded
    --detector vinvl --detections predictions.tsv                 VinVL's output
    --detector coco --detections results.json --coco_annotations FILE
    --detector precomputed --detections FOLDER                    a file of records per video, also of more frames

Frames are those that the tasks sample with the same --feature_framerate, --max_frames and --slice_framepos. Writes
{output}/{video_id}.json (README, objects) and {output}/extraction/{video_id}.json: detector, settings, frame indices,
frame rate and size. A clip that is there, made in the same way from the same files, is not done again.

Class names are mapped onto --labelmap_path; without it {output}_label_map.json is written of the prompts, or else of
what was found.
Exit status: 0; 1 if nothing can be done; 3 if some videos were left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.frames import FrameSettings
from dataloaders.label_map import load_label_map
from dataloaders.video_files import list_videos
from modules.config import ModelConfig
from utils.preparation.choosing import DetectorSettings, Naming, make_detector, read_prompts
from utils.preparation.extraction import Extraction, extract_all, write_label_map
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.distributed import find_runtime
from utils.runtime.precision import PRECISIONS
from utils.runtime.terminal import show, show_error
from utils.settings.fields import add_flags, flags_of, from_flat


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("videos", nargs="+", type=Path, metavar="VIDEO_OR_FOLDER")
    add("--output", type=Path, required=True, help="folder of the object files")
    add("--labelmap_path", type=Path, help="label map onto which class names are mapped; without it names are kept "
        "and {output}_label_map.json is written of the prompts, or else of all files in the folder")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="torchvision, hf (default: %(default)s)")
    add("--precision", choices=("auto", *PRECISIONS), default="auto", help="torchvision, hf: arithmetic; auto is fp32, "
        "for in bf16 a coordinate is only right to 1/256 of the picture (default: %(default)s)")  # fmt: skip
    add("--max_frames", type=int, default=ModelConfig.max_frames, help="as in the tasks (default: %(default)s)")
    add("--overwrite", action="store_true", help="do again what is there")
    for kind in (DetectorSettings, FrameSettings):
        add_flags(parser, kind, show_default=True)
    parser.set_defaults(detector="fasterrcnn_resnet50_fpn_v2")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Write the object files; returns the exit status."""
    videos = list_videos(args.videos)
    chosen = from_flat(DetectorSettings, {flag.name: getattr(args, flag.name) for flag in flags_of(DetectorSettings)})
    frames = from_flat(FrameSettings, {flag.name: getattr(args, flag.name) for flag in flags_of(FrameSettings)})
    label_map = load_label_map(args.labelmap_path) if args.labelmap_path else None
    naming = Naming(chosen.class_map, label_map)
    prompts = read_prompts(chosen)
    detector = make_detector(chosen, find_runtime(None, args.device).device, args.precision, prompts)
    extraction = Extraction(detector, args.output, args.max_frames, frames, naming.find, naming.made_from)
    done, boxes, failed = extract_all(extraction, videos, overwrite=args.overwrite)
    show(f"{args.output}: {len(videos) - done - len(failed)} videos, {boxes} boxes; {done} were there")
    for reason in failed:
        show_error(f"left out: {reason}")
    if extraction.unknown:
        show_error(extraction.unknown_classes(args.labelmap_path))
    if extraction.dropped:
        show_error(f"boxes without area or outside their frame, which training drops: {extraction.dropped}")
    if label_map is None and len(failed) < len(videos):
        show(write_label_map(args.output, () if chosen.class_map else prompts or ()))
    return 3 if failed else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        return run(parse_arguments(argv))
    except (OSError, ValueError, CheckpointError) as error:
        show_error(f"extract_objects: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
