"""Object files of videos: a detector's boxes of the sampled frames, with a report on how each was made."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from dataloaders.decoders import UnreadableVideo
from dataloaders.files import atomic_write_text, file_stamp
from dataloaders.frames import FRAME_RULE, Clip, FrameSettings, read_clip
from dataloaders.object_store import REPORT_FOLDER
from modules.foreign_text import class_name
from modules.utils_object_tractor import ObjectFileError, ObjectReport, usable_objects
from utils.preparation.detectors import Detector, Frame
from utils.preparation.label_maps import label_map_from_objects


class Extraction:
    """Writes the object files of videos.

    Args:
        detector: where boxes come from.
        output: folder of the files.
        max_frames: frames of each video.
        frames: which frames those are.
        find_class: detector's class -> label map's, None for those it does not have.
        naming: what `find_class` depends on, for the reports.

    Attributes:
        unknown: boxes left out by their class name.
        dropped: boxes that training will not use: without area, or wholly outside the frame.
    """

    def __init__(
        self,
        detector: Detector,
        output: Path,
        max_frames: int,
        frames: FrameSettings,
        find_class: Callable[[str], str | None],
        naming: dict[str, Any],
    ) -> None:
        self.detector, self.output, self.find_class, self.naming = detector, output, find_class, naming
        self.max_frames, self.frames = max_frames, frames
        self.unknown: Counter[str] = Counter()
        self.dropped = 0

    def is_done(self, video: Path) -> bool:
        """Whether a video's file is there, made by this detector with these settings from the same file.

        A file of an earlier frame rule counts if that chose the same frames, which holds but for videos whose rate
        varies; its report then says so.

        Raises:
            UnreadableVideo: the video of such a file cannot be read.
        """
        path = self._report(video.stem)
        if not path.is_file() or not (self.output / f"{video.stem}.json").is_file():
            return False
        try:
            report = {**json.loads(path.read_bytes())}
            made_from, wanted = {**report["made_from"]}, self._made_from(video)
        except (ValueError, TypeError, KeyError):  # a damaged report: the file is made again
            return False
        if made_from == wanted or {**made_from, "frame_rule": FRAME_RULE} != wanted:
            return made_from == wanted
        clip = read_clip(video, self.max_frames, self.frames, lambda frame: frame[:1, :1])
        if clip.frame_indices.tolist() != report.get("frame_indices"):
            return False
        atomic_write_text(path, json.dumps({**report, "made_from": wanted}, indent=1))
        return True

    def extract(self, video: Path) -> int:
        """Write a video's file; the number of boxes.

        Raises:
            UnreadableVideo, ValueError: no frame decodes, or the detector has nothing for it that training would read.
        """
        clip = read_clip(video, self.max_frames, self.frames)
        found = self.detector.detect(video.stem, clip)
        frames = [{"objects": self._mapped(frame)} for frame in found]
        self._check(frames, clip)
        # Killed between the two, a run must not leave a report that vouches for another run's file.
        self._report(video.stem).unlink(missing_ok=True)
        atomic_write_text(self.output / f"{video.stem}.json", json.dumps(frames))
        atomic_write_text(self._report(video.stem), json.dumps(self._described(video, clip), indent=1))
        return sum(len(frame["objects"]) for frame in frames)

    def _mapped(self, frame: Frame) -> Frame:
        kept = []
        for entry in frame:
            found = class_name(entry.get("class"), f"what {self.detector.name} found: class")
            name = self.find_class(found)
            if name is None:
                self.unknown[found] += 1
            else:
                kept.append({**entry, "class": name})
        return kept

    def _check(self, frames: list[dict[str, Any]], clip: Clip) -> None:
        """Raise ValueError for frames of which training's reader would not take an object; boxes it drops are counted.

        A wrong convention of boxes is told here too, for those that do not come from a file.
        """
        names = {entry["class"]: 1 for frame in frames for entry in frame["objects"]}
        report = ObjectReport()
        try:
            usable_objects(frames, names, "objects", report, frame_size=(clip.width, clip.height))
        except ObjectFileError as error:
            raise ValueError(f"what {self.detector.name} found: {error}") from error
        if report.malformed_objects:
            raise ValueError(f"what {self.detector.name} found: {report.examples['malformed_objects'][0]}")
        self.dropped += report.degenerate_boxes + report.outside_boxes

    def _report(self, video_id: str) -> Path:
        return self.output / REPORT_FOLDER / f"{video_id}.json"

    def _made_from(self, video: Path) -> dict[str, Any]:
        detector = {"detector": self.detector.name, **self.detector.settings}
        frames = {"max_frames": self.max_frames, **self.frames.rule()}
        return {**detector, **frames, **self.naming, "video": file_stamp(video)}

    def _described(self, video: Path, clip: Clip) -> dict[str, Any]:
        return {
            "video": video.name,
            "width": clip.width,
            "height": clip.height,
            "fps": clip.fps,
            "frame_indices": clip.frame_indices.tolist(),
            "made_from": self._made_from(video),
        }


class Outcome(NamedTuple):
    """Videos whose file was there already, boxes of the others, and the videos left out with the reason."""

    done: int
    boxes: int
    failed: list[str]


def extract_all(extraction: Extraction, videos: Sequence[Path], *, overwrite: bool) -> Outcome:
    """Write the files of videos that are not there yet, or of all, with a progress bar.

    Raises:
        ValueError: two videos would write the same file.
    """
    stems = Counter(video.stem for video in videos)
    if doubled := [stem for stem, count in stems.items() if count > 1]:
        raise ValueError(f"several videos would write {doubled[0]}.json: give them different names")
    boxes = done = 0
    failed: list[str] = []
    for video in tqdm(videos, unit="video", disable=not sys.stderr.isatty()):
        try:
            if not overwrite and extraction.is_done(video):
                done += 1
                continue
            boxes += extraction.extract(video)
        except (UnreadableVideo, ValueError) as error:
            failed.append(f"{video}: {error}")
    return Outcome(done, boxes, failed)


def write_label_map(folder: Path) -> str:
    """Write {folder}_label_map.json of all object files in a folder; what was done."""
    try:
        content, _ = label_map_from_objects(folder)
    except ValueError as error:
        return f"no label map: {error}"
    path = folder.with_name(f"{folder.name}_label_map.json")
    atomic_write_text(path, json.dumps(content, ensure_ascii=False))
    return f"{path}: {len(content['label_to_idx'])} classes"


def renamer(renamed: dict[str, str]) -> Callable[[str], str | None]:
    """Class names by a map, the others as they are: for a detector whose classes are all kept."""
    return lambda name: renamed.get(name, name)
