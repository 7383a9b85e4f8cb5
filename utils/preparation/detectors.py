"""Sources of boxes: one method, `detect`. Here are torchvision's detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torchvision
from torch import Tensor

from dataloaders.files import file_stamp
from dataloaders.frames import Clip
from modules.foreign_text import class_name
from utils.runtime.checkpoint import load
from utils.runtime.precision import autocast

Frame = list[dict[str, Any]]  # objects of one frame, as in the object files: class, rect, conf, ...
COCO_HEADS = 91


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
        ValueError: no such model, weights that do not fit it (names file and reason), or a class that is no name.
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
            names = [class_name(name, f"--classes, name {number}") for number, name in enumerate(classes, 1)]
            self.classes = ["background", *names] if names else list(meta)
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
