"""The flags that choose a source of boxes, and the source that they name: for files of objects and on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dataloaders.label_map import label_map_hash, load_label_map
from dataloaders.tagging import make_tagger
from modules.boxes import BOX_FORMATS
from modules.config import check_settings, setting
from modules.foreign_text import class_name, read_lines
from utils.preparation.caption_nouns import prompts_from_captions
from utils.preparation.class_names import class_mapper, read_class_map
from utils.preparation.detection_files import FROM_FILES, KEY_PATTERN, detections_from_files
from utils.preparation.detectors import Detector, TorchvisionDetector
from utils.preparation.extraction import renamer
from utils.preparation.hugging_face_detector import HuggingFaceDetector

HUGGING_FACE = "hf"
CAPTIONS = "captions:"


@dataclass(frozen=True)
class DetectorSettings:
    """Where boxes come from."""

    detector: str | None = setting(
        None, "a torchvision detection model, hf (a detector of transformers), vinvl, coco, or precomputed"
    )
    weights: str | None = setting(
        None,
        "torchvision: a local state dict, or DEFAULT to download; hf: a folder, or hf-hub:OWNER/NAME[@REVISION] to "
        "download",
    )
    classes: str | None = setting(None, "torchvision: class names of a local file's weights, one per line")
    prompts: str | None = setting(
        None,
        "hf, open vocabulary: file with what is looked for, one per line; or a label map, whose classes it is; or "
        "captions:FILE, whose most frequent nouns it is",
    )
    most: int = setting(500, "captions:FILE: nouns at most", minimum=1)
    detections: str | None = setting(
        None, "vinvl: predictions.tsv or a JSON; coco: results; precomputed: folder of a file of records per video"
    )
    coco_annotations: str | None = setting(None, "coco: file with images and categories, if the results are a list")
    box_format: str | None = setting(
        None,
        "vinvl, coco, precomputed: the four numbers of a box; relative ones are 0 to 1. Default: coco xywh, the others "
        "xyxy",
        choices=BOX_FORMATS,
    )
    key_pattern: str = setting(KEY_PATTERN, "vinvl, coco: what a frame's key, or an image's file_name, is")
    frame_numbers: str = setting(
        "order",
        "vinvl, coco: these are the sampled frames in order, or their numbers are those of frames in the video",
        choices=("order", "index"),
    )
    class_map: str | None = setting(None, 'JSON {"detector\'s class": "label map\'s class"}')
    score_threshold: float = setting(0.2, "torchvision, hf: least confidence", minimum=0, maximum=1)
    nms_threshold: float = setting(
        0.5,
        "hf: of boxes of a class that overlap by more than this IoU the most confident one is kept; 1 keeps all",
        minimum=0,
        maximum=1,
    )
    max_boxes: int = setting(50, "torchvision, hf: boxes per frame", minimum=1)
    batch_size: int = setting(4, "torchvision, hf: frames at once", minimum=1)

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("weights", "classes", "prompts", "detections"):
            if self.detector is None and getattr(self, name) is not None:
                raise ValueError(f"--{name} is for --detector, which is not given")


def make_detector(
    settings: DetectorSettings, device: torch.device, precision: str = "auto", prompts: Sequence[str] | None = None
) -> Detector:
    """The detector that the flags name.

    Args:
        precision: of --precision; `auto` is fp32, for in bf16 a coordinate is only right to 1/256 of the picture.
        prompts: of `read_prompts`.

    Raises:
        ValueError, OSError: a flag is missing or does not go with the detector, or a file is missing or damaged.
    """
    if settings.detector in FROM_FILES:
        return _from_files(settings)
    if settings.weights is None:
        raise ValueError(
            "--weights is required: a local file, or DEFAULT to download torchvision's own; with --detector hf a "
            "folder, or hf-hub:OWNER/NAME"
        )
    limits = {name: getattr(settings, name) for name in ("score_threshold", "max_boxes", "batch_size")}
    precision = "fp32" if precision == "auto" else precision
    if settings.detector == HUGGING_FACE:
        if settings.classes is not None:
            raise ValueError("--classes is for torchvision's models: those of --detector hf are in its config.json")
        limits["nms_threshold"] = settings.nms_threshold
        return HuggingFaceDetector(settings.weights, prompts, device, precision, **limits)
    names = [line for _, line in read_lines(settings.classes)] if settings.classes else []
    return TorchvisionDetector(str(settings.detector), settings.weights, names, device, precision, **limits)


def _from_files(settings: DetectorSettings) -> Detector:
    if settings.detections is None:
        raise ValueError(f"--detector {settings.detector} needs --detections")
    keyed = (settings.key_pattern, settings.frame_numbers, settings.box_format)
    return detections_from_files(str(settings.detector), settings.detections, settings.coco_annotations, *keyed)


def read_prompts(settings: DetectorSettings) -> list[str] | None:
    """What an open-vocabulary detector looks for, each once; None where no prompts are given.

    Raises:
        ValueError, OSError: no such file, a damaged or empty one, or another detector.
    """
    path = settings.prompts
    if path is None:
        return None
    if settings.detector != HUGGING_FACE:
        raise ValueError(f"--prompts is for --detector {HUGGING_FACE}, not for {settings.detector}")
    if path.startswith(CAPTIONS):
        return prompts_from_captions(path.removeprefix(CAPTIONS), settings.most, make_tagger("hanta"))
    if path.endswith(".json"):
        return list(load_label_map(path)["label_to_idx"])
    prompts = list(dict.fromkeys(class_name(line, f"{path}, line {number}") for number, line in read_lines(path)))
    if not prompts:
        raise ValueError(f"{path}: no line with a name of something to look for (--prompts)")
    return prompts


class Naming:
    """From a detector's class names to those that are kept.

    Args:
        class_map: file of --class_map.
        label_map: whose classes the names become; None: names are kept as they are.

    Attributes:
        find: the name for a detector's class, None for one that the label map does not have.
        made_from: what `find` depends on, for the reports of object files.
    """

    def __init__(self, class_map: str | Path | None, label_map: dict[str, Any] | None) -> None:
        renamed = read_class_map(Path(class_map)) if class_map else {}
        self.made_from = {"class_map": renamed, "label_map": label_map and label_map_hash(label_map)}
        self.find = class_mapper(list(label_map["label_to_idx"]), renamed) if label_map else renamer(renamed)
