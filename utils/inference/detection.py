"""Objects found on the fly: a detector looks at the very frames that the model reads."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dataloaders.frames import Clip
from dataloaders.label_map import load_label_map
from dataloaders.object_records import ObjectRecord, ObjectSettings, read_record, record_of_frames
from dataloaders.samples import ClipFrames, SampleSettings, UnusableObjects
from dataloaders.video_files import VideoSource, clip_frames, read_sampled
from modules.config import ModelConfig
from modules.utils_object_tractor import ObjectFileError, ObjectReport
from utils.data.clips import object_settings
from utils.preparation.choosing import DetectorSettings, Naming, make_detector, read_prompts
from utils.preparation.detectors import Detector, Frame
from utils.preparation.extraction import Extraction
from utils.settings.fields import flags_of, from_flat
from utils.settings.groups import UseSettings


class ChosenDetector:
    """A user's choice of a detector; it is made when it is first needed.

    Args:
        flags: settings by flag, of which those of `DetectorSettings` are taken out. `detector` is a name, or a
            `Detector` of the user's own.

    Raises:
        ValueError: a flag does not go with the others.
    """

    def __init__(self, flags: MutableMapping[str, Any]) -> None:
        chosen = {flag.name: flags.pop(flag.name) for flag in flags_of(DetectorSettings) if flag.name in flags}
        named = chosen.get("detector")
        self._own: Detector | None = None if named is None or isinstance(named, str) else chosen.pop("detector")
        self.settings = from_flat(DetectorSettings, chosen)
        self.is_given = named is not None
        self._precision = flags.get("precision", "auto")
        self._keeps = "object_path" in flags
        if self.is_given and flags.get("num_thread_reader"):
            raise ValueError(
                "--detector finds objects in the main process, where the frames are read too: leave out "
                "--num_thread_reader"
            )

    def _made(self, device: torch.device) -> Detector:
        return make_detector(self.settings, device, self._precision, read_prompts(self.settings))

    def clips(
        self, videos: VideoSource, settings: UseSettings, config: ModelConfig, device: torch.device
    ) -> DetectedClips:
        """Clips with objects of the model's classes, kept in --object_path if that was given.

        Raises:
            ValueError, OSError, CheckpointError: the label map is missing, or as `make_detector`.
        """
        label_map = load_label_map(settings.labelmap_path)
        naming = Naming(self.settings.class_map, label_map)
        detector = self._own or self._made(device)
        folder = Path(settings.object_path) if self._keeps else None
        extraction = Extraction(detector, folder, config.max_frames, settings.frames, naming.find, naming.made_from)
        return DetectedClips(videos, extraction, label_map, object_settings(settings, config))


class DetectedClips:
    """Videos by path and their objects: a `VideoSource`, and an `ObjectSource` for the clip that was read last.

    A detector needs whole frames, so a video is decoded here, once, and its frames are cut to the model's picture
    afterwards. With a folder of object files what is found is kept there, and a video whose file is there, made in the
    same way, is read from `videos`.

    Args:
        videos: for clips that need no detection.
        extraction: of the objects, with the frames of the model.
        label_map: dictionary with "label_to_idx".
        settings: which boxes are kept; they are always in pixels of the video, x1, y1, x2, y2.
    """

    def __init__(
        self, videos: VideoSource, extraction: Extraction, label_map: Mapping[str, Any], settings: ObjectSettings
    ) -> None:
        self.videos, self.extraction, self.label_map = videos, extraction, label_map
        self.settings = replace(settings, rules=replace(settings.rules, rect_order="xyxy"))
        self._last: tuple[str, ObjectRecord] | None = None
        self._clips = self._seen = 0

    def stamp(self, video_id: str) -> str:
        """Of the video itself."""
        return self.videos.stamp(video_id)

    def read(self, video_id: str, settings: SampleSettings) -> ClipFrames:
        """Frames by the frame rule, whose objects `get` then gives.

        Raises:
            UnreadableVideo: there are none.
            UnusableObjects: the detector has nothing for them.
            ValueError: its object file was made by something else, and would be written over.
        """
        path = Path(video_id)
        self._last = None
        if self.extraction.is_of_others(path.stem):
            raise ValueError(
                f"{self.extraction.object_file(path.stem)}: not made by a --detector, and it would be written over: "
                "give another --object_path, or leave out --detector to use this file"
            )
        try:
            if self.extraction.is_done(path):
                frames = self.videos.read(video_id, settings)
                file = self.extraction.object_file(path.stem)
                record = read_record(file, self.label_map, self.settings, ObjectReport())
            else:
                clip = read_sampled(path, settings)
                frames = clip_frames(clip)
                found = self._found(path, clip)
                record = record_of_frames(
                    found, video_id, self.label_map, self.settings, ObjectReport(), clip.frame_indices
                )
                self.extraction.keep(path, clip, found)
        except ObjectFileError as error:
            raise UnusableObjects(f"{video_id}: the objects of {self.extraction.detector.name}: {error}") from error
        self._last = (video_id, record)
        self._clips += 1
        self._seen += bool(record.trajectory_ids.any())
        return frames

    def remarks(self, label_map: str) -> list[str]:
        """What is to be said of the clips since it was asked last; `label_map` is the name of the model's."""
        unknown = [self.extraction.unknown_classes(label_map)] if self.extraction.unknown else []
        blind = f"{self.extraction.detector.name}: no object found in {self._clips} videos; the model sees none"
        lines = [*unknown, *([blind] if self._clips and not self._seen else [])]
        self.extraction.unknown.clear()
        self._clips = self._seen = 0
        return lines

    def _found(self, path: Path, clip: Clip) -> list[dict[str, Frame]]:
        try:
            return self.extraction.find(path.stem, clip)
        except ValueError as error:
            raise UnusableObjects(f"{path}: {error}") from error

    def get(self, video_id: str) -> ObjectRecord:
        """The objects of the clip that was read last, which is the one that is asked for."""
        assert self._last is not None and self._last[0] == video_id
        return self._last[1]
