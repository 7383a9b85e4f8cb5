"""Make object files of videos: python utils/extract_objects.py VIDEO_OR_FOLDER... --output DIR --detector ...

    --detector fasterrcnn_resnet50_fpn_v2 --weights DEFAULT       torchvision's model, its weights downloaded
    --detector ssdlite320_mobilenet_v3_large --weights my.pth --classes names.txt
    --detector vinvl --detections predictions.tsv                 VinVL's output
    --detector precomputed --detections FOLDER                    object files of more frames than are sampled

Frames are those that the tasks sample with the same --feature_framerate, --max_frames and --slice_framepos. Writes
{output}/{video_id}.json (README, objects) and {output}/extraction/{video_id}.json: detector, settings, frame indices,
frame rate and size. A clip that is there, made in the same way from the same files, is not done again.

Class names are mapped onto --labelmap_path; without it {output}_label_map.json is written from what was found.
Exit status: 0; 1 if nothing can be done; 3 if some videos were left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from tqdm import tqdm

from dataloaders.files import atomic_write_text, file_stamp
from dataloaders.frames import Clip, UnreadableVideo, read_clip
from dataloaders.label_map import label_map_hash, load_label_map
from dataloaders.video_files import list_videos
from utils.argument_groups import DataSettings
from utils.build_label_map import label_map_from_objects
from utils.detectors import (
    KEY_PATTERN,
    Detector,
    Frame,
    PrecomputedDetections,
    TorchvisionDetector,
    VinVLDetections,
    class_mapper,
)

REPORT_FOLDER = "extraction"


class Extraction:
    """Writes the object files of videos.

    Args:
        detector: where boxes come from.
        output: folder of the files.
        frames: feature_framerate, max_frames, slice_framepos, end_seconds of `dataloaders.frames.read_clip`.
        find_class: detector's class -> label map's, None for those it does not have.
        naming: what `find_class` depends on, for the reports.

    Attributes:
        unknown: boxes left out by their class name.
    """

    def __init__(
        self,
        detector: Detector,
        output: Path,
        frames: dict[str, Any],
        find_class: Callable[[str], str | None],
        naming: dict[str, Any],
    ) -> None:
        self.detector, self.output, self.frames, self.find_class = detector, output, frames, find_class
        self.naming = naming
        self.unknown: Counter[str] = Counter()

    def is_done(self, video: Path) -> bool:
        """Whether a video's file is there, made by this detector with these settings from the same file."""
        report = self._report(video.stem)
        if not report.is_file() or not (self.output / f"{video.stem}.json").is_file():
            return False
        return json.loads(report.read_bytes()).get("made_from") == self._made_from(video)

    def extract(self, video: Path) -> int:
        """Write a video's file; the number of boxes.

        Raises:
            UnreadableVideo, ValueError: no frame decodes, or the detector has nothing for it.
        """
        clip = read_clip(video, **self.frames)
        found = self.detector.detect(video.stem, clip)
        frames = [{"objects": self._mapped(frame)} for frame in found]
        # Killed between the two, a run must not leave a report that vouches for another run's file.
        self._report(video.stem).unlink(missing_ok=True)
        atomic_write_text(self.output / f"{video.stem}.json", json.dumps(frames))
        atomic_write_text(self._report(video.stem), json.dumps(self._described(video, clip), indent=1))
        return sum(len(frame["objects"]) for frame in frames)

    def _mapped(self, frame: Frame) -> Frame:
        kept = []
        for entry in frame:
            name = self.find_class(str(entry.get("class")))
            if name is None:
                self.unknown[str(entry.get("class"))] += 1
            else:
                kept.append({**entry, "class": name})
        return kept

    def _report(self, video_id: str) -> Path:
        return self.output / REPORT_FOLDER / f"{video_id}.json"

    def _made_from(self, video: Path) -> dict[str, Any]:
        detector = {"detector": self.detector.name, **self.detector.settings}
        return {**detector, **self.frames, **self.naming, "video": file_stamp(video)}

    def _described(self, video: Path, clip: Clip) -> dict[str, Any]:
        return {
            "video": video.name,
            "width": clip.width,
            "height": clip.height,
            "fps": clip.fps,
            "frame_indices": clip.frame_indices.tolist(),
            "made_from": self._made_from(video),
        }


def make_detector(args: argparse.Namespace) -> Detector:
    """The detector that the flags name."""
    if args.detector in ("vinvl", "precomputed"):
        if args.detections is None:
            raise ValueError(f"--detector {args.detector} needs --detections")
        if args.detector == "vinvl":
            return VinVLDetections(args.detections, args.key_pattern, args.frame_numbers)
        return PrecomputedDetections(args.detections)
    if args.weights is None:
        raise ValueError("--weights is required: a local file, or DEFAULT to download torchvision's own")
    classes = args.classes.read_text(encoding="utf-8").split("\n") if args.classes else []
    names = [line.strip() for line in classes if line.strip()]
    return TorchvisionDetector(
        args.detector, args.weights, names, args.device, args.score_threshold, args.max_boxes, args.batch_size
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    data = DataSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("videos", nargs="+", type=Path, metavar="VIDEO_OR_FOLDER")
    add("--output", type=Path, required=True, help="folder of the object files")
    add("--detector", default="fasterrcnn_resnet50_fpn_v2", help="a torchvision detection model, vinvl, or precomputed")
    add("--weights", help="torchvision: a local state dict, or DEFAULT to download")
    add("--classes", type=Path, help="torchvision: class names of a local file's weights, one per line")
    add("--detections", type=Path, help="vinvl: predictions.tsv or a JSON; precomputed: folder of object files")
    add("--key_pattern", default=KEY_PATTERN, help="vinvl: what a frame's key is (default: %(default)s)")
    choices = ("order", "index")
    add("--frame_numbers", choices=choices, default="order", help="vinvl: rows are the sampled frames in order, or "
        "their numbers are those of frames in the video (default: %(default)s)")  # fmt: skip
    add("--labelmap_path", type=Path, help="label map onto which class names are mapped; without it names are kept "
        "and {output}_label_map.json is written from all files in the folder")  # fmt: skip
    add("--class_map", type=Path, help='JSON {"detector\'s class": "label map\'s class"}')
    add("--score_threshold", type=float, default=0.2, help="torchvision: least confidence (default: %(default)s)")
    add("--max_boxes", type=int, default=50, help="torchvision: boxes per frame (default: %(default)s)")
    add("--batch_size", type=int, default=4, help="torchvision: frames at once (default: %(default)s)")
    add("--device", default="cpu", help="torchvision: cpu or cuda (default: %(default)s)")
    add("--feature_framerate", type=float, default=data.feature_framerate, help="as in the tasks")
    add("--max_frames", type=int, default=data.max_frames, help="as in the tasks")
    add("--slice_framepos", type=int, default=data.slice_framepos, choices=(0, 1, 2), help="as in the tasks")
    add("--end_seconds", type=float, default=data.end_seconds, help="as in the tasks")
    add("--overwrite", action="store_true", help="do again what is there")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Extract; the exit status."""
    videos = list_videos(args.videos)
    stems = Counter(video.stem for video in videos)
    if doubled := [stem for stem, count in stems.items() if count > 1]:
        raise ValueError(f"several videos would write {doubled[0]}.json: give them different names")
    renamed = json.loads(args.class_map.read_bytes()) if args.class_map else {}
    label_map = load_label_map(args.labelmap_path) if args.labelmap_path else None
    find = class_mapper(list(label_map["label_to_idx"]), renamed) if label_map else _renamer(renamed)
    naming = {"class_map": renamed, "label_map": label_map and label_map_hash(label_map)}
    frames = {
        name: getattr(args, name) for name in ("feature_framerate", "max_frames", "slice_framepos", "end_seconds")
    }
    extraction = Extraction(make_detector(args), args.output, frames, find, naming)
    boxes = done = 0
    failed: list[str] = []
    for video in tqdm(videos, unit="video", disable=not sys.stderr.isatty()):
        if not args.overwrite and extraction.is_done(video):
            done += 1
            continue
        try:
            boxes += extraction.extract(video)
        except (UnreadableVideo, ValueError) as error:
            failed.append(f"{video}: {error}")
    print(f"{args.output}: {len(videos) - done - len(failed)} videos, {boxes} boxes; {done} were there")
    for reason in failed:
        print(f"left out: {reason}", file=sys.stderr)
    if extraction.unknown:
        listed = ", ".join(f"{name} {count}" for name, count in extraction.unknown.most_common(20))
        print(f"boxes of classes that {args.labelmap_path} does not have, left out: {listed}", file=sys.stderr)
    if label_map is None and len(failed) < len(videos):
        print(_write_label_map(args.output))
    return 3 if failed else 0


def _write_label_map(folder: Path) -> str:
    """Write the label map of all object files in a folder; what was done."""
    try:
        content, _ = label_map_from_objects(folder)
    except ValueError as error:
        return f"no label map: {error}"
    path = folder.with_name(f"{folder.name}_label_map.json")
    atomic_write_text(path, json.dumps(content, ensure_ascii=False))
    return f"{path}: {len(content['label_to_idx'])} classes"


def _renamer(renamed: dict[str, str]) -> Callable[[str], str | None]:
    return lambda name: renamed.get(name, name)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        return run(parse_arguments(argv))
    except (OSError, ValueError) as error:
        print(f"extract_objects: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
