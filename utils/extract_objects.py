"""Make object files of videos: python utils/extract_objects.py VIDEO_OR_FOLDER... --output DIR --detector ...

    --detector fasterrcnn_resnet50_fpn_v2 --weights DEFAULT       torchvision's model, its weights downloaded
    --detector ssdlite320_mobilenet_v3_large --weights my.pth --classes names.txt
    --detector vinvl --detections predictions.tsv                 VinVL's output
    --detector coco --detections results.json --coco_annotations FILE
    --detector precomputed --detections FOLDER                    a file of records per video, also of more frames

Frames are those that the tasks sample with the same --feature_framerate, --max_frames and --slice_framepos. Writes
{output}/{video_id}.json (README, objects) and {output}/extraction/{video_id}.json: detector, settings, frame indices,
frame rate and size. A clip that is there, made in the same way from the same files, is not done again.

Class names are mapped onto --labelmap_path; without it {output}_label_map.json is written from what was found.
Exit status: 0; 1 if nothing can be done; 3 if some videos were left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.frames import FrameSettings
from dataloaders.label_map import label_map_hash, load_label_map
from dataloaders.video_files import list_videos
from modules.boxes import BOX_FORMATS
from modules.config import ModelConfig
from modules.foreign_text import read_lines
from utils.preparation.class_names import class_mapper, read_class_map
from utils.preparation.detection_files import FROM_FILES, KEY_PATTERN, detections_from_files
from utils.preparation.detectors import Detector, TorchvisionDetector
from utils.preparation.extraction import Extraction, extract_all, renamer, write_label_map
from utils.runtime.terminal import show, show_error
from utils.settings.fields import add_flags, flags_of, from_flat


def make_detector(args: argparse.Namespace) -> Detector:
    """The detector that the flags name."""
    if args.detector in FROM_FILES:
        if args.detections is None:
            raise ValueError(f"--detector {args.detector} needs --detections")
        keyed = (args.key_pattern, args.frame_numbers, args.box_format)
        return detections_from_files(args.detector, args.detections, args.coco_annotations, *keyed)
    if args.weights is None:
        raise ValueError("--weights is required: a local file, or DEFAULT to download torchvision's own")
    names = [line for _, line in read_lines(args.classes)] if args.classes else []
    return TorchvisionDetector(
        args.detector, args.weights, names, args.device, args.score_threshold, args.max_boxes, args.batch_size
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("videos", nargs="+", type=Path, metavar="VIDEO_OR_FOLDER")
    add("--output", type=Path, required=True, help="folder of the object files")
    add("--detector", default="fasterrcnn_resnet50_fpn_v2", help="a torchvision detection model, vinvl, coco, "
        "or precomputed")  # fmt: skip
    add("--weights", help="torchvision: a local state dict, or DEFAULT to download")
    add("--classes", type=Path, help="torchvision: class names of a local file's weights, one per line")
    add("--detections", type=Path, help="vinvl: predictions.tsv or a JSON; coco: results; precomputed: folder "
        "of a file of records per video")  # fmt: skip
    add("--coco_annotations", type=Path, help="coco: file with images and categories, if the results are a list")
    add("--box_format", choices=BOX_FORMATS, help="vinvl, coco, precomputed: the four numbers of a box; relative ones "
        "are 0 to 1 (default: coco xywh, the others xyxy)")  # fmt: skip
    add("--key_pattern", default=KEY_PATTERN, help="vinvl, coco: what a frame's key, or an image's file_name, is "
        "(default: %(default)s)")  # fmt: skip
    choices = ("order", "index")
    add("--frame_numbers", choices=choices, default="order", help="vinvl, coco: these are the sampled frames in "
        "order, or their numbers are those of frames in the video (default: %(default)s)")  # fmt: skip
    add("--labelmap_path", type=Path, help="label map onto which class names are mapped; without it names are kept "
        "and {output}_label_map.json is written from all files in the folder")  # fmt: skip
    add("--class_map", type=Path, help='JSON {"detector\'s class": "label map\'s class"}')
    add("--score_threshold", type=float, default=0.2, help="torchvision: least confidence (default: %(default)s)")
    add("--max_boxes", type=int, default=50, help="torchvision: boxes per frame (default: %(default)s)")
    add("--batch_size", type=int, default=4, help="torchvision: frames at once (default: %(default)s)")
    add("--device", default="cpu", help="torchvision: cpu or cuda (default: %(default)s)")
    add("--max_frames", type=int, default=ModelConfig.max_frames, help="as in the tasks (default: %(default)s)")
    add("--overwrite", action="store_true", help="do again what is there")
    add_flags(parser, FrameSettings, show_default=True)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Write the object files; returns the exit status."""
    videos = list_videos(args.videos)
    renamed = read_class_map(args.class_map) if args.class_map else {}
    label_map = load_label_map(args.labelmap_path) if args.labelmap_path else None
    find = class_mapper(list(label_map["label_to_idx"]), renamed) if label_map else renamer(renamed)
    naming = {"class_map": renamed, "label_map": label_map and label_map_hash(label_map)}
    frames = from_flat(FrameSettings, {flag.name: getattr(args, flag.name) for flag in flags_of(FrameSettings)})
    extraction = Extraction(make_detector(args), args.output, args.max_frames, frames, find, naming)
    done, boxes, failed = extract_all(extraction, videos, overwrite=args.overwrite)
    show(f"{args.output}: {len(videos) - done - len(failed)} videos, {boxes} boxes; {done} were there")
    for reason in failed:
        show_error(f"left out: {reason}")
    if extraction.unknown:
        listed = ", ".join(f"{name} {count}" for name, count in extraction.unknown.most_common(20))
        show_error(f"boxes of classes that {args.labelmap_path} does not have, left out: {listed}")
    if extraction.dropped:
        show_error(f"boxes without area or outside their frame, which training drops: {extraction.dropped}")
    if label_map is None and len(failed) < len(videos):
        show(write_label_map(args.output))
    return 3 if failed else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        return run(parse_arguments(argv))
    except (OSError, ValueError) as error:
        show_error(f"extract_objects: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
