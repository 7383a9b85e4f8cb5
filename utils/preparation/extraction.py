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
from dataloaders.object_records import REPORT_FOLDER
from modules.foreign_text import class_name
from modules.utils_object_tractor import ObjectFileError, ObjectReport, usable_objects
from utils.preparation.detectors import Detector, Frame
from utils.preparation.label_maps import label_map_from_names, label_map_from_objects


class Extraction:
    """Writes the object files of videos.

    Args:
        detector: where boxes come from.
        output: folder of the files; None: nothing is kept.
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
        output: Path | None,
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
        if self.output is None or not self.object_file(video.stem).is_file():
            return False
        path = self._report(video.stem)
        if not path.is_file():
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
        frames = self.find(video.stem, clip)
        self.keep(video, clip, frames)
        return sum(len(frame["objects"]) for frame in frames)

    def find(self, video_id: str, clip: Clip) -> list[dict[str, Frame]]:
        """What the detector finds in a clip, as an object file has it, under the label map's names.

        Raises:
            ValueError: the detector has nothing for it that training would read.
        """
        frames = [{"objects": self._mapped(frame)} for frame in self.detector.detect(video_id, clip)]
        self._check(frames, clip)
        return frames

    def keep(self, video: Path, clip: Clip, frames: list[dict[str, Frame]]) -> None:
        """Write the file of what was found, and the report on it; nothing without a folder."""
        if self.output is None:
            return
        # Killed between the two, a run must not leave a report that vouches for another run's file.
        self._report(video.stem).unlink(missing_ok=True)
        atomic_write_text(self.object_file(video.stem), json.dumps(frames))
        atomic_write_text(self._report(video.stem), json.dumps(self._described(video, clip), indent=1))

    def object_file(self, video_id: str) -> Path:
        """The file of a video."""
        assert self.output is not None
        return self.output / f"{video_id}.json"

    def is_of_others(self, video_id: str) -> bool:
        """Whether a video's file is there that no extraction made, so that it must not be written over."""
        is_there = self.output is not None and self.object_file(video_id).is_file()
        return is_there and not self._report(video_id).is_file()

    def unknown_classes(self, label_map: str | Path) -> str:
        """A line on the classes that the label map of this name does not have, the most frequent first."""
        listed = ", ".join(f"{name} {count}" for name, count in self.unknown.most_common(20))
        return f"boxes of classes that {label_map} does not have, left out: {listed}"

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
        path = self.object_file(video_id)
        return path.parent / REPORT_FOLDER / path.name

    def rule(self) -> dict[str, Any]:
        """All that the objects of any video depend on, as plain values."""
        detector = {"detector": self.detector.name, **self.detector.settings}
        frames = {"max_frames": self.max_frames, **self.frames.rule()}
        return {**detector, **frames, **self.naming}

    def _made_from(self, video: Path) -> dict[str, Any]:
        return {**self.rule(), "video": file_stamp(video)}

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


def write_label_map(folder: Path, names: Sequence[str] = ()) -> str:
    """Write {folder}_label_map.json of names, or else of all object files in a folder; what was done."""
    try:
        content = label_map_from_names(Counter(names)) if names else label_map_from_objects(folder)[0]
    except ValueError as error:
        return f"no label map: {error}"
    path = folder.with_name(f"{folder.name}_label_map.json")
    atomic_write_text(path, json.dumps(content, ensure_ascii=False))
    return f"{path}: {len(content['label_to_idx'])} classes"


def renamer(renamed: dict[str, str]) -> Callable[[str], str | None]:
    """Class names by a map, the others as they are: for a detector whose classes are all kept."""
    return lambda name: renamed.get(name, name)
