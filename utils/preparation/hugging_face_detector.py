"""Detectors of transformers: of a closed set of classes, as DETR, or of whatever words are asked for, as OWLv2.

Boxes are those of the library's own post-processing. How models are loaded: utils/preparation/hugging_face_folder.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from dataloaders.frames import Clip
from modules.foreign_text import is_class_name
from utils.preparation.detectors import Frame
from utils.preparation.hugging_face_folder import ModelFolder
from utils.preparation.label_maps import NO_CLASSES
from utils.runtime.precision import autocast

TEXTS_AT_ONCE = 64


class Found(NamedTuple):
    """Boxes of a frame: (M, 4) x1, y1, x2, y2 in pixels, (M,) scores and (M,) places in the list of names."""

    boxes: Tensor
    scores: Tensor
    places: Tensor


class _Model(Protocol):
    """A model with its processor; `names` are what its boxes are called, "" for what is no class."""

    names: list[str]

    def find(self, pictures: list[np.ndarray], threshold: float) -> list[Found]:
        """Boxes of pictures of one size, uint8 (H, W, 3), whose score is above the threshold, by the library's rule."""


class HuggingFaceDetector:
    """A detection model of transformers.

    Boxes and scores are those of the library's own post-processing. Of boxes of one class that overlap, found by the
    same prompts or by others, the most confident one is kept.

    Args:
        weights: folder as `save_pretrained` writes it, or `hf-hub:OWNER/NAME[@REVISION]`, which is downloaded.
        prompts: what an open-vocabulary model looks for; boxes are called as these are written. None: the model has
            classes of its own.
        device, precision: where and how to compute.
        score_threshold, max_boxes: less confident boxes, and those beyond the number, are left out.
        nms_threshold: greatest IoU of two boxes of a class; 1 keeps all.
        batch_size: frames at once.

    Raises:
        ValueError, CheckpointError: as `ModelFolder`; or prompts where there must be none, none where there must be
            some, or one that is too long.
    """

    def __init__(
        self,
        weights: str | Path,
        prompts: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        score_threshold: float = 0.2,
        max_boxes: int = 50,
        nms_threshold: float = 0.5,
        batch_size: int = 4,
    ) -> None:
        folder = ModelFolder(weights)
        self.name = f"transformers {folder.kind}, {folder.name}"
        self.device, self.precision, self.batch_size = torch.device(device), precision, batch_size
        self.score_threshold, self.max_boxes, self.nms_threshold = score_threshold, max_boxes, nms_threshold
        self._model = self._opened(folder, prompts)
        self.settings = {
            "weights": folder.stamp,
            "prompts": prompts and hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest(),
            "score_threshold": score_threshold,
            "nms_threshold": nms_threshold,
            "max_boxes": max_boxes,
            "precision": precision,
        }

    @torch.no_grad()
    def _opened(self, folder: ModelFolder, prompts: Sequence[str] | None) -> _Model:
        if not folder.has_prompts and prompts is not None:
            raise ValueError(
                f"{folder.path}: {folder.kind} has classes of its own and looks for no others: leave out --prompts, or "
                "take a model with an open vocabulary"
            )
        if folder.has_prompts and folder.kind not in OPEN:
            raise ValueError(f"{folder.path}: {folder.kind} is not known here; with words there are {', '.join(OPEN)}")
        if folder.has_prompts and not prompts:
            raise ValueError(f"{folder.path}: {folder.kind} looks for words: say which with --prompts FILE")
        model, processor = folder.load(self.device)
        if prompts is None:
            return _ClosedSet(model, processor)
        with autocast(self.precision, self.device):
            return OPEN[folder.kind](model, processor, prompts)

    @torch.no_grad()
    def detect(self, video_id: str, clip: Clip) -> list[Frame]:
        """See `Detector`."""
        found: list[Frame] = []
        for start in range(0, len(clip.frames), self.batch_size):
            with autocast(self.precision, self.device):
                part = self._model.find(clip.frames[start : start + self.batch_size], self.score_threshold)
            found += [self._frame(one) for one in part]
        return found

    def _frame(self, found: Found) -> Frame:
        boxes, scores, places = (part.cpu() for part in found)
        if self.nms_threshold < 1:
            order = batched_nms(boxes.float(), scores.float(), places, self.nms_threshold)
        else:
            order = scores.argsort(descending=True, stable=True)
        rows = zip(boxes[order].tolist(), scores[order].tolist(), places[order].tolist(), strict=True)
        names = self._model.names
        kept = [
            {"class": names[place], "rect": [round(x, 2) for x in rect], "conf": round(score, 4)}
            for rect, score, place in rows
            if names[place]
        ]
        return kept[: self.max_boxes]


class _ClosedSet:
    """A model with classes of its own, those of its configuration."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        known = model.config.id2label
        names = [known.get(place) for place in range(max(known) + 1)]
        self.names = [name if is_class_name(name) and name not in NO_CLASSES else "" for name in names]

    def find(self, pictures: list[np.ndarray], threshold: float) -> list[Found]:
        """See `_Model`."""
        outputs = self.model(**_inputs(self.processor, pictures, self.model.device))
        results = self.processor.post_process_object_detection(
            outputs, threshold=threshold, target_sizes=_sizes(pictures)
        )
        return [_known(Found(one["boxes"], one["scores"], one["labels"]), len(self.names)) for one in results]


class _Owl:
    """OWL-ViT and OWLv2: each box has its most similar prompt. A prompt's score does not depend on the others.

    So prompts are encoded once, in parts, and pictures once for all of them; the library's own `forward` would encode
    every prompt again for every picture.
    """

    def __init__(self, model: Any, processor: Any, prompts: Sequence[str]) -> None:
        self.model, self.processor, self.names = model, processor, list(prompts)
        length = model.config.text_config.max_position_embeddings
        tokens = processor.tokenizer(self.names, padding=True, return_tensors="pt")["attention_mask"].sum(1)
        for name, count in zip(self.names, tokens.tolist(), strict=True):
            _check_length(name, count, length)
        parts = [self.names[start : start + TEXTS_AT_ONCE] for start in range(0, len(self.names), TEXTS_AT_ONCE)]
        self.texts = torch.cat([self._encoded(part, length) for part in parts])

    def _encoded(self, prompts: list[str], length: int) -> Tensor:
        tokens = self.processor.tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        output = self.model.base_model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return output.pooler_output / torch.linalg.norm(output.pooler_output, dim=-1, keepdim=True)

    def find(self, pictures: list[np.ndarray], threshold: float) -> list[Found]:
        """See `_Model`."""
        pixels = _inputs(self.processor.image_processor, pictures, self.model.device)["pixel_values"]
        grid, _ = self.model.image_embedder(pixels)  # (N, rows, columns, width)
        patches = grid.flatten(1, 2)
        texts = self.texts.expand(len(pictures), -1, -1)
        logits, _ = self.model.class_predictor(patches, texts, torch.ones_like(texts[..., 0], dtype=torch.bool))
        outputs = SimpleNamespace(logits=logits, pred_boxes=self.model.box_predictor(patches, grid))
        results = self.processor.post_process_grounded_object_detection(
            outputs, threshold=threshold, target_sizes=_sizes(pictures)
        )
        return [Found(one["boxes"], one["scores"], one["labels"]) for one in results]


class _Grounded:
    """Grounding DINO: reads as many prompts at once as the model has room for, as one text.

    A box has the prompt whose word it fits best, by the name that was given; the library's own names are what words of
    the text are above a threshold, which may be parts of several prompts. Prompts that are read together bear on each
    other through the picture, so which share a text depends on those before them alone.
    """

    def __init__(self, model: Any, processor: Any, prompts: Sequence[str]) -> None:
        self.model, self.processor, self.names = model, processor, list(prompts)
        config = model.config
        room = min(config.max_text_len, config.text_config.max_position_embeddings)
        self.texts = list(self._texts(room))

    def _texts(self, room: int) -> Iterator[tuple[str, list[tuple[int, int]], int]]:
        """Text, places of the tokens of each of its prompts, and number of the first of them."""
        text, spans, first, end = "", list[tuple[int, int]](), 0, 1  # behind the start token
        for place, name in enumerate(self.names):
            # Both signs end a phrase for the model.
            words = " ".join(name.lower().replace(".", " ").replace("?", " ").split())
            count = len(self.processor.tokenizer(words, add_special_tokens=False)["input_ids"])
            if not count:
                raise ValueError(f"prompt {name!r}: no word in it (--prompts)")
            _check_length(name, count + 3, room)
            if end + count + 2 > room:  # a full stop behind it, and the end token
                yield text, spans, first
                text, spans, first, end = "", [], place, 1
            text, end = f"{text} {words}.".strip(), end + count + 1
            spans.append((end - count - 1, end - 1))
        yield text, spans, first

    def find(self, pictures: list[np.ndarray], threshold: float) -> list[Found]:
        """See `_Model`."""
        images = _inputs(self.processor.image_processor, pictures, self.model.device)
        parts = [self._find_text(images, _sizes(pictures), threshold, *text) for text in self.texts]
        return [Found(*map(torch.cat, zip(*one, strict=True))) for one in zip(*parts, strict=True)]

    def _find_text(
        self, images: Any, sizes: Tensor, threshold: float, text: str, spans: list[tuple[int, int]], first: int
    ) -> list[Found]:
        tokens = self.processor.tokenizer([text] * len(sizes), return_token_type_ids=True, return_tensors="pt")
        if tokens["input_ids"].shape[1] != spans[-1][1] + 2:
            raise ValueError(f"the model's tokenizer reads words otherwise beside others: {text[:200]!r}")
        outputs = self.model(**images, **tokens.to(self.model.device))
        results = self.processor.post_process_grounded_object_detection(
            outputs, tokens["input_ids"], threshold=threshold, target_sizes=sizes
        )
        words = outputs.logits.sigmoid()  # (N, queries, tokens)
        is_kept = words.amax(-1) > threshold
        best = torch.stack([words[..., start:end].amax(-1) for start, end in spans], -1).argmax(-1) + first
        return [
            Found(one["boxes"], one["scores"], own[kept]) for one, own, kept in zip(results, best, is_kept, strict=True)
        ]


def _inputs(processor: Any, pictures: list[np.ndarray], device: torch.device) -> Any:
    """What the model reads of pictures, by its own processor."""
    return processor(images=pictures, input_data_format="channels_last", return_tensors="pt").to(device)


def _sizes(pictures: list[np.ndarray]) -> Tensor:
    """(N, 2) heights and widths."""
    return torch.tensor([picture.shape[:2] for picture in pictures])


def _known(found: Found, count: int) -> Found:
    """Without boxes of classes that have no name."""
    is_known = found.places < count
    return Found(*(part[is_known] for part in found))


def _check_length(name: str, tokens: int, room: int) -> None:
    if tokens > room:
        raise ValueError(
            f"prompt {name[:80]!r} is {tokens} tokens long, the model reads {room}: shorten it (--prompts)"
        )


OPEN: dict[str, type[_Owl] | type[_Grounded]] = {
    "owlvit": _Owl,
    "owlv2": _Owl,
    "grounding-dino": _Grounded,
    "mm-grounding-dino": _Grounded,
}
