"""Boxes that others found, from files: VinVL's output, COCO results, and a file of records per video."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dataloaders.built_caches import fingerprint_folder
from dataloaders.files import file_stamp
from dataloaders.frames import Clip
from modules.boxes import BOX_FORMATS, RELATIVE
from modules.foreign_text import class_name, parse_json, read_json, read_lines
from utils.preparation.detection_records import in_pixels, read_objects, read_record
from utils.preparation.detectors import Frame

KEY_PATTERN = r"(?P<video>.+?)[_/](?P<frame>\d+)(\.\w+)?"
MAX_KEY = 1000  # characters
COCO_FIELDS = ("category_id", "bbox", "score")
SHOWN_VIDEOS = 3
FROM_FILES = ("vinvl", "coco", "precomputed")  # names of --detector


class KeyedDetections:
    """Frames of many videos in one file, each under a key that has the names of its video and its number.

    Args:
        path: the file.
        key_pattern: regular expression that a whole key matches, with the groups `video` and `frame`.
        frame_numbers: "order": the frames of a video, sorted by number, are its sampled frames; "index": a number is
            that of the frame in the video, and there may be more than are sampled.
        box_format: one of modules.boxes.BOX_FORMATS; None: that of the kind of file.

    Raises:
        FileNotFoundError, ValueError: no such file, or a part of it is not of this form; names record and field.
    """

    KIND = ""
    BOX_FORMAT = "xyxy"

    def __init__(
        self,
        path: str | Path,
        key_pattern: str = KEY_PATTERN,
        frame_numbers: str = "order",
        box_format: str | None = None,
    ) -> None:
        self.path, self.frame_numbers = Path(path), frame_numbers
        self.box_format = _checked(box_format) or self.BOX_FORMAT
        self.name = f"{self.KIND}, {self.path.name}"
        pattern = _key_pattern(key_pattern)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file (--detections)")
        self._frames: dict[str, dict[int, Frame]] = defaultdict(dict)
        self._sizes: dict[str, set[tuple[int, int]]] = defaultdict(set)
        for key, objects, size in self._keyed_frames():
            match = pattern.fullmatch(key) if len(key) <= MAX_KEY else None
            if match is None or not re.fullmatch(r"[0-9]{1,9}", match["frame"] or ""):
                raise ValueError(f"{self.key_file}: key {key[:MAX_KEY]!r} does not match --key_pattern {key_pattern!r}")
            frames, number = self._frames[match["video"]], int(match["frame"])
            if number in frames:
                raise ValueError(f"{self.key_file}, key {key!r}: frame {number} of {match['video']!r} is there twice")
            frames[number] = objects
            if size:
                self._sizes[match["video"]].add(size)
        self.settings: dict[str, Any] = {
            "key_pattern": key_pattern, "frame_numbers": frame_numbers, "detections": file_stamp(self.path),
        }  # fmt: skip
        if box_format is not None:
            self.settings["box_format"] = box_format

    @property
    def key_file(self) -> Path:
        """The file that the keys are in."""
        return self.path

    def _keyed_frames(self) -> Iterator[tuple[str, Frame, tuple[int, int] | None]]:
        """Key, objects and, where it is known, size in pixels of each frame."""
        raise NotImplementedError

    def detect(self, video_id: str, clip: Clip) -> list[Frame]:
        """See `Detector`."""
        if video_id not in self._frames:
            shown = ", ".join(sorted(self._frames)[:SHOWN_VIDEOS])
            raise ValueError(f"{self.key_file} has no frame of {video_id}; by --key_pattern its videos are {shown}")
        frames, where = self._frames[video_id], f"{self.key_file}: {video_id}"
        others = self._sizes[video_id] - {(clip.width, clip.height)}
        if others and not self.box_format.startswith(RELATIVE):
            width, height = min(others)
            raise ValueError(
                f"{where}: its images are {width}x{height}, the video is {clip.width}x{clip.height}; scale the boxes, "
                "and correct width and height of the images or leave them out"
            )
        if self.frame_numbers == "index":
            picked = _by_index(frames, clip, where)
        else:
            picked = _in_order([frames[number] for number in sorted(frames)], clip, where)
        return in_pixels(picked, self.box_format, clip, f"{self.path}: {video_id}")


class VinVLDetections(KeyedDetections):
    """Output of VinVL's scene_graph_benchmark: predictions.tsv (key, tab, JSON) or a JSON {key: {"objects": [...]}}."""

    KIND = "VinVL output"

    def _keyed_frames(self) -> Iterator[tuple[str, Frame, tuple[int, int] | None]]:
        for key, value in self._entries():
            yield key, read_objects(value, f"{self.path}, key {key[:MAX_KEY]!r}", self.box_format), None

    def _entries(self) -> Iterator[tuple[str, Any]]:
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


class CocoDetections(KeyedDetections):
    """COCO results: a list of {"image_id", "category_id", "bbox", "score"}, a box being x, y, width, height.

    A frame's key is the "file_name" of its image; images without a result are frames without objects.

    Args:
        path: the list; or a whole COCO file, whose "annotations" it is then.
        annotations: a COCO file with the results' "images" and "categories"; None: `path` is one.
    """

    KIND = "COCO results"
    BOX_FORMAT = "xywh"

    def __init__(self, path: str | Path, annotations: str | Path | None = None, *args: Any, **named: Any) -> None:
        self.annotations = Path(annotations) if annotations else None
        super().__init__(path, *args, **named)
        if self.annotations:
            self.settings["annotations"] = file_stamp(self.annotations)

    @property
    def key_file(self) -> Path:
        """The file that has the images."""
        return self.annotations or self.path

    def _keyed_frames(self) -> Iterator[tuple[str, Frame, tuple[int, int] | None]]:
        content = read_json(self.path)
        if self.annotations and not self.annotations.is_file():
            raise FileNotFoundError(f"{self.annotations}: no such file (--coco_annotations)")
        source, described = self.key_file, read_json(self.annotations) if self.annotations else content
        if not isinstance(described, dict):
            raise ValueError(f'{source} has no "images" and "categories"; give the file that has (--coco_annotations)')
        results = content.get("annotations") if isinstance(content, dict) else content
        if not isinstance(results, list):
            raise ValueError(f"{self.path} is neither a list of results nor a COCO file with a list 'annotations'")
        keys = _by_id(described, "images", "file_name", source)
        names = _by_id(described, "categories", "name", source)
        names = {number: class_name(name, f"{source}: category {number!r}") for number, name in names.items()}
        frames: dict[Any, Frame] = {number: [] for number in keys}
        for number, result in enumerate(results):
            where = f"{self.path}, result {number}"
            image = _known(result, "image_id", keys, f"images of {source}", where)
            name = _known(result, "category_id", names, f"categories of {source}", where)
            # Outlines and what else there is would be long, and nothing reads them.
            fields = {field: result[field] for field in ("bbox", "score") if field in result}
            record = {"category_id": names[name], **fields}
            frames[image].append(read_record(record, where, self.box_format, COCO_FIELDS))
        sizes = {image["id"]: (image.get("width"), image.get("height")) for image in described["images"]}
        for number, key in keys.items():
            width, height = sizes[number]
            is_sized = type(width) is int and type(height) is int and width > 0 and height > 0
            yield key, frames[number], (width, height) if is_sized else None


def _by_id(content: Mapping[str, Any], part: str, name: str, path: Path) -> dict[Any, str]:
    """The text under `name` of each entry of a COCO file's part, by the entry's id."""
    entries = content.get(part)
    if not isinstance(entries, list):
        raise ValueError(f"{path} has no list '{part}'; give a COCO file that has (--coco_annotations)")
    found: dict[Any, str] = {}
    for place, entry in enumerate(entries):
        where = f"{path}: {part} {place}"
        if not isinstance(entry, dict) or not isinstance(entry.get(name), str) or not _is_id(entry.get("id")):
            raise ValueError(f'{where} is {repr(entry)[:80]}, without an "id" or a "{name}" that is text')
        if entry["id"] in found:
            raise ValueError(f'{where}: "id" {entry["id"]!r} is there twice')
        found[entry["id"]] = entry[name]
    return found


def _known(result: Any, field: str, known: Mapping[Any, str], part: str, where: str) -> Any:
    """The id under a result's field, which a COCO file's part has."""
    if not isinstance(result, dict) or field not in result:
        raise ValueError(f'{where} is {repr(result)[:80]}, without "{field}"; it has to be a COCO result')
    value = result[field]
    if not _is_id(value) or value not in known:
        raise ValueError(f'{where}: "{field}" is {repr(value)[:80]}, which is no id of the {part}')
    return value


def _is_id(value: Any) -> bool:
    return type(value) in (int, str)


class PrecomputedDetections:
    """A file per video made before, {folder}/{video_id}.json: a list with an entry per frame.

    Each entry says its number in the video under "frame"; or they are all frames of the video, or the sampled ones, in
    order. An entry is {"objects": [...]}, or all are the lists themselves; records as `read_record` takes them.

    Args:
        folder: of the files.
        box_format: one of modules.boxes.BOX_FORMATS; None: xyxy.
    """

    def __init__(self, folder: str | Path, box_format: str | None = None) -> None:
        self.folder, self.box_format = Path(folder), _checked(box_format) or "xyxy"
        self.name = f"files of {self.folder.name}"
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder (--detections)")
        self.settings: dict[str, Any] = {"detections": fingerprint_folder(self.folder, ".json")}
        if box_format is not None:
            self.settings["box_format"] = box_format

    def detect(self, video_id: str, clip: Clip) -> list[Frame]:
        """See `Detector`."""
        path = self.folder / f"{video_id}.json"
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        listed = read_json(path)
        if not isinstance(listed, list) or not (_are_all(listed, dict) or _are_all(listed, list)):
            raise ValueError(f"{path} is not a list with an entry per frame")
        frames = [read_objects(entry, f"{path}, entry {place}", self.box_format) for place, entry in enumerate(listed)]
        return in_pixels(_of_clip(listed, frames, clip, str(path)), self.box_format, clip, str(path))


def detections_from_files(
    kind: str,
    path: str | Path,
    coco_annotations: str | Path | None = None,
    key_pattern: str = KEY_PATTERN,
    frame_numbers: str = "order",
    box_format: str | None = None,
) -> KeyedDetections | PrecomputedDetections:
    """The detections of one of FROM_FILES; arguments and errors as of its class."""
    if kind == "precomputed":
        return PrecomputedDetections(path, box_format)
    if kind == "coco":
        return CocoDetections(path, coco_annotations, key_pattern, frame_numbers, box_format)
    return VinVLDetections(path, key_pattern, frame_numbers, box_format)


def _of_clip(listed: list[Any], frames: list[Frame], clip: Clip, where: str) -> list[Frame]:
    """The sampled frames of the entries of a file, by their numbers or their order."""
    numbers = [entry["frame"] for entry in listed if isinstance(entry, dict) and "frame" in entry]
    if numbers:
        if len(numbers) < len(listed) or not all(type(number) is int for number in numbers):
            raise ValueError(f'{where}: "frame" is to be a number in every entry, or in none')
        if len(set(numbers)) < len(numbers):
            raise ValueError(f'{where}: two entries have the same "frame"')
        return _by_index(dict(zip(numbers, frames, strict=True)), clip, where)
    if len(frames) == clip.decoded_frames:
        return _by_index(dict(enumerate(frames)), clip, where)
    return _in_order(frames, clip, where)


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


def _are_all(values: Iterable[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


def _key_pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"--key_pattern {text!r} is no regular expression: {error}") from error
    if not {"video", "frame"} <= set(pattern.groupindex):
        raise ValueError(f"--key_pattern {text!r} has no groups (?P<video>...) and (?P<frame>...)")
    return pattern


def _checked(box_format: str | None) -> str | None:
    if box_format not in (None, *BOX_FORMATS):
        raise ValueError(f"--box_format {box_format}: it is one of {', '.join(BOX_FORMATS)}")
    return box_format
