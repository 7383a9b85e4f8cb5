"""Sources of boxes: torchvision's detectors, VinVL's output, or files made before. One method: `detect`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torchvision
from torch import Tensor

from dataloaders.files import file_stamp
from dataloaders.frames import Clip
from modules.foreign_text import parse_json, read_json, read_lines
from utils.runtime.checkpoint import load
from utils.runtime.precision import autocast

Frame = list[dict[str, Any]]  # objects of one frame, as in the object files: class, rect, conf, ...
KEY_PATTERN = r"(?P<video>.+?)[_/](?P<frame>\d+)(\.\w+)?"
COCO_HEADS = 91
MAX_KEY = 1000  # characters


class Detector(Protocol):
    """A source of boxes. `name` and `settings`, all that its boxes depend on, go into the report of each clip."""

    name: str
    settings: dict[str, Any]

    def detect(self, video_id: str, clip: Clip) -> list[Frame]:
        """Objects of each of the clip's T frames, rects x1, y1, x2, y2 in pixels of the video.

        Raises:
            ValueError: there are none to be had for this clip; says why.
        """


class TorchvisionDetector:
    """A detection model of torchvision.

    Args:
        model: its name, e.g. "fasterrcnn_resnet50_fpn_v2" (torchvision.models.detection).
        weights: a local state dict, or "DEFAULT": torchvision's own, downloaded.
        classes: names of the classes from 1 on; needed for weights that are not torchvision's 91 of COCO.
        score_threshold, max_boxes: less confident boxes, and those beyond the number, are left out.
        device, precision: where and how to compute.
        batch_size: frames at once.

    Raises:
        ValueError: no such model, or weights that do not fit it; names file and reason.
    """

    def __init__(
        self,
        model: str,
        weights: str,
        classes: Sequence[str] = (),
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        score_threshold: float = 0.2,
        max_boxes: int = 50,
        batch_size: int = 4,
    ) -> None:
        if model not in torchvision.models.list_models(module=torchvision.models.detection):
            raise ValueError(f"torchvision has no detection model {model!r}")
        self.name = f"torchvision {model}, {Path(weights).name}"
        self.settings = {"score_threshold": score_threshold, "max_boxes": max_boxes, "classes": list(classes)}
        self.device, self.precision, self.batch_size = torch.device(device), precision, batch_size
        if precision != "fp32":
            self.settings["precision"] = precision
        self.score_threshold, self.max_boxes = score_threshold, max_boxes
        meta = torchvision.models.get_model_weights(model).DEFAULT.meta["categories"]
        if weights == "DEFAULT":
            self.classes = list(meta)
            self.model = torchvision.models.get_model(model, weights="DEFAULT")
        else:
            self.classes = ["background", *classes] if classes else list(meta)
            self.model = _with_weights(model, Path(weights), len(self.classes))
            self.settings["weights"] = file_stamp(weights)
        self.model.to(self.device).eval()

    @torch.no_grad()
    def detect(self, video_id: str, clip: Clip) -> list[Frame]:
        """See `Detector`."""
        pictures = [torch.from_numpy(frame).permute(2, 0, 1).float() / 255 for frame in clip.frames]
        found: list[Frame] = []
        for start in range(0, len(pictures), self.batch_size):
            part = [picture.to(self.device) for picture in pictures[start : start + self.batch_size]]
            with autocast(self.precision, self.device):
                found += [self._frame(result) for result in self.model(part)]
        return found

    def _frame(self, result: Mapping[str, Tensor]) -> Frame:
        rows = zip(result["boxes"].tolist(), result["labels"].tolist(), result["scores"].tolist(), strict=True)
        kept = [
            {"class": self.classes[label], "rect": [round(x, 2) for x in rect], "conf": round(score, 4)}
            for rect, label, score in rows
            if score >= self.score_threshold and label < len(self.classes)
        ]
        return sorted(kept, key=lambda entry: -entry["conf"])[: self.max_boxes]


def _with_weights(model: str, path: Path, classes: int) -> torch.nn.Module:
    if not path.is_file():
        raise ValueError(f"{path}: no such weight file (--weights FILE, or DEFAULT to download torchvision's own)")
    made = torchvision.models.get_model(model, weights=None, weights_backbone=None, num_classes=classes)
    try:
        state = load(path)
        made.load_state_dict(state.get("model", state))
    except Exception as error:  # damaged pickles raise whatever their bytes lead to
        reason = str(error).splitlines()[0]
        hint = "" if classes != COCO_HEADS else "; for weights of other classes than COCO's give --classes FILE"
        raise ValueError(f"{path} does not fit {model} with {classes} classes ({reason}){hint}") from error
    return made


class VinVLDetections:
    """Output of VinVL's scene_graph_benchmark: predictions.tsv (key, tab, JSON) or a JSON {key: {"objects": [...]}}.

    Args:
        path: the file.
        key_pattern: regular expression that a whole key matches, with the groups `video` and `frame`.
        frame_numbers: "order": the rows of a video, sorted by number, are its sampled frames; "index": a number is that
            of the frame in the video, and there may be more than are sampled.

    Raises:
        FileNotFoundError, ValueError: no such file, or a key or line that is not of this form.
    """

    def __init__(self, path: str | Path, key_pattern: str = KEY_PATTERN, frame_numbers: str = "order") -> None:
        self.path, self.frame_numbers = Path(path), frame_numbers
        self.name = f"VinVL output, {self.path.name}"
        pattern = re.compile(key_pattern)
        if not {"video", "frame"} <= set(pattern.groupindex):
            raise ValueError(f"--key_pattern {key_pattern!r} has no groups (?P<video>...) and (?P<frame>...)")
        self._frames: dict[str, dict[int, Frame]] = defaultdict(dict)
        for key, value in self._entries():
            match = pattern.fullmatch(key) if len(key) <= MAX_KEY else None
            if match is None or not re.fullmatch(r"[0-9]{1,9}", match["frame"]):
                raise ValueError(f"{path}: key {key[:MAX_KEY]!r} does not match --key_pattern {key_pattern!r}")
            frames, number = self._frames[match["video"]], int(match["frame"])
            if number in frames:
                raise ValueError(f"{path}, key {key!r}: frame {number} of {match['video']!r} is there twice")
            frames[number] = _objects(value, f"{path}, key {key!r}")
        self.settings = {
            "key_pattern": key_pattern, "frame_numbers": frame_numbers, "detections": file_stamp(self.path),
        }  # fmt: skip

    def _entries(self) -> Iterator[tuple[str, Any]]:
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file (--detections)")
        if self.path.suffix == ".json":
            content = read_json(self.path)
            if not isinstance(content, dict):
                raise ValueError(f"{self.path} is not an object of frames by key")
            yield from content.items()
            return
        for number, line in read_lines(self.path, is_streamed=True):
            key, tab, value = line.partition("\t")
            if not tab:
                raise ValueError(f"{self.path}, line {number}: no tab between key and JSON")
            yield key, parse_json(value, f"{self.path}, line {number}", "lines are a key, a tab and JSON")

    def detect(self, video_id: str, clip: Clip) -> list[Frame]:
        """See `Detector`."""
        if video_id not in self._frames:
            raise ValueError(f"{self.path} has no frame of {video_id}")
        frames, where = self._frames[video_id], f"{self.path}: {video_id}"
        if self.frame_numbers == "index":
            return _by_index(frames, clip, where)
        return _in_order([frames[number] for number in sorted(frames)], clip, where)


class PrecomputedDetections:
    """Object files made before, {folder}/{video_id}.json: a list with an entry per frame.

    Each entry says its number in the video under "frame"; or they are all frames of the video, or the sampled ones, in
    order.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = f"files of {self.folder.name}"
        self.settings: dict[str, Any] = {}
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder (--detections)")

    def detect(self, video_id: str, clip: Clip) -> list[Frame]:
        """See `Detector`."""
        path = self.folder / f"{video_id}.json"
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        listed = read_json(path)
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise ValueError(f"{path} is not a list with an entry per frame")
        frames = [_objects(entry, f"{path}, entry {place}") for place, entry in enumerate(listed)]
        numbers = [entry["frame"] for entry in listed if "frame" in entry]
        if numbers:
            if len(numbers) < len(listed) or not all(type(number) is int for number in numbers):
                raise ValueError(f'{path}: "frame" is to be a number in every entry, or in none')
            if len(set(numbers)) < len(numbers):
                raise ValueError(f'{path}: two entries have the same "frame"')
            return _by_index(dict(zip(numbers, frames, strict=True)), clip, str(path))
        if len(frames) == clip.decoded_frames:
            return _by_index(dict(enumerate(frames)), clip, str(path))
        return _in_order(frames, clip, str(path))


def _objects(value: Any, where: str) -> Frame:
    objects = value.get("objects") if isinstance(value, dict) else value
    if not isinstance(objects, list):
        raise ValueError(f"{where}: no list 'objects'")
    for place, entry in enumerate(objects):
        name = entry.get("class") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f'{where}: object {place} is {repr(entry)[:80]}, without a "class" that is a name')
    return objects


def _by_index(frames: Mapping[int, Frame], clip: Clip, where: str) -> list[Frame]:
    wanted = clip.frame_indices.tolist()
    if missing := sorted(set(wanted) - set(frames)):
        raise ValueError(f"{where}: {len(frames)} frames, without {missing}, which the frame rule picks")
    return [frames[index] for index in wanted]


def _in_order(frames: list[Frame], clip: Clip, where: str) -> list[Frame]:
    wanted = clip.frame_indices.tolist()
    if len(frames) != len(wanted):
        raise ValueError(f"{where}: {len(frames)} frames, but {len(wanted)} are sampled: {wanted}")
    return frames


def read_class_map(path: Path) -> dict[str, str]:
    """A label map's class names by a detector's; ValueError if the file is not such a dictionary."""
    renamed = read_json(path)
    if not isinstance(renamed, dict) or not all(isinstance(name, str) and name.strip() for name in renamed.values()):
        raise ValueError(f"{path} is not a JSON dictionary of names by names (--class_map)")
    return renamed


def class_mapper(names: Sequence[str], renamed: Mapping[str, str]) -> Callable[[str], str | None]:
    """From a detector's class name to a label map's: by `renamed`, as it is, or but for case, signs and a plural s."""
    known = set(names)
    loose = {_loose(name): name for name in reversed(names)}

    def find(name: str) -> str | None:
        name = renamed.get(name, name)
        if name in known:
            return name
        return loose.get(_loose(name)) or loose.get(_loose(name).removesuffix("s")) or loose.get(f"{_loose(name)}s")

    return find


def _loose(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()
