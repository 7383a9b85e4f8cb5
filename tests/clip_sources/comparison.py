"""One set of pixels and tokens through a source library's CLIP and through this project's, and how far they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dataloaders.transforms import frames_to_tensor
from modules.batch import finish_batch
from modules.tasks.retrieval import RetrievalModel
from modules.tokenizer import ClipTokenizer
from utils.models.setup import setup_model
from utils.settings.fields import from_flat
from utils.settings.groups import UseSettings

BOUND = 1e-4
LOGIT_SCALE = 3.1  # of the drawn weights; CLIP starts from 2.66
# Of several lengths; the last is longer than any text tower has room for.
TEXTS = (
    "a dog",
    "at sea",
    "two people are cooking dinner!",
    "",
    "a man in a red shirt throws a ball over the fence while children are watching him from the garden",
    " ".join(["the camera pans slowly over 12 mountains, lakes and villages"] * 12),
)


class Inputs(NamedTuple):
    """Frames (N, R, R, 3) uint8, one for each clip; ids (M, W) int64, padded with 0, and (M,) their lengths."""

    frames: np.ndarray
    ids: Tensor
    lengths: Tensor


class Features(NamedTuple):
    """What a CLIP makes of them: image (N, E) and text (M, E) features, logits (M, N) of texts and (N, M) of images."""

    image: Tensor
    text: Tensor
    text_logits: Tensor
    image_logits: Tensor


class Difference(NamedTuple):
    """Largest difference, relative to the largest number of the source's."""

    image: float
    text: float
    logits: float

    @property
    def largest(self) -> float:
        """Of all three."""
        return max(self)


def draw_inputs(resolution: int, vocab_size: int, context_length: int, seed: int = 0) -> Inputs:
    """Frames of coarse and fine noise, no two channels alike, and texts of several lengths."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 1, (3, 4, 4, 3)).repeat(-(-resolution // 4), 1).repeat(-(-resolution // 4), 2)
    fine = generator.uniform(0, 1, (3, resolution, resolution, 3))
    mixed = (0.7 * coarse[:, :resolution, :resolution] + 0.3 * fine) * (1.0, 0.8, 0.6) + (0, 0, 0.3)
    tokenizer = ClipTokenizer(vocab_size)
    ids, masks = zip(*(tokenizer.to_tensor_ids(text, context_length) for text in TEXTS), strict=True)
    lengths = torch.from_numpy(np.stack(masks)).sum(1)
    return Inputs((mixed * 255).round().clip(0, 255).astype(np.uint8), torch.from_numpy(np.stack(ids)), lengths)


def draw_weights(model: nn.Module, seed: int = 0) -> None:
    """Random weights that no part of a CLIP computes nothing with.

    At the libraries' initial values biases are 0, norms do nothing and activations stay where GELU and QuickGELU are
    alike, so that a wrong reader would be right.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale, shift = _spread(name, parameter)
            parameter.normal_(generator=generator).mul_(scale).add_(shift)


def _spread(name: str, parameter: Tensor) -> tuple[float, float]:
    """Deviation and mean of an entry's numbers."""
    if name.endswith("logit_scale"):
        return 0.0, LOGIT_SCALE
    if name.endswith("bias"):
        return 0.3, 0.0
    if parameter.ndim == 1 and name.endswith((".weight", ".gamma")):
        return 0.3, 1.0
    if "embedding" in name and parameter.ndim <= 2 or parameter.ndim < 2:
        return 0.7, 0.0
    inputs = parameter[0].numel() if name.endswith("weight") else parameter.shape[0]  # projections of OpenAI are x @ w
    return (2.0 if name.endswith(("fc1.weight", "c_fc.weight")) else 1.0) * inputs**-0.5, 0.0


def differences(ours: Features, theirs: Features) -> Difference:
    """How far two sets of features are apart; infinite if they have other shapes or numbers that are none."""
    image, text, texts, images = (_relative(a, b) for a, b in zip(ours, theirs, strict=True))
    return Difference(image, text, max(texts, images))


def _relative(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    difference = float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())
    return difference if math.isfinite(difference) else float("inf")


def settings_for(flags: Mapping[str, Any], inputs: Inputs) -> UseSettings:
    """The settings that a user's flags mean, with a small fusion encoder and room for the longest text."""
    return from_flat(UseSettings, {"fusion_layers": 1, "max_frames": 1, "max_words": inputs.ids.shape[1], **flags})


def load_ours(archive: Path, flags: Mapping[str, Any], inputs: Inputs, log: list[str] | None = None) -> Any:
    """This project's model with the weights of `--clip_archive`.

    Raises:
        CheckpointError, ValueError: as `setup_model`.
    """
    settings = settings_for({"clip_archive": str(archive), **flags}, inputs)
    return setup_model(RetrievalModel, settings, ([] if log is None else log).append).eval()


@torch.no_grad()
def our_features(model: Any, inputs: Inputs) -> Features:
    """What this project's model makes of the inputs, read as its data sets read them."""
    clips = [frames_to_tensor([frame], model.config.image_resolution) for frame in inputs.frames]
    batch = finish_batch(
        {
            "video": torch.stack(clips),
            "video_mask": torch.ones(len(clips), 1, dtype=torch.bool),
            "text_ids": inputs.ids,
            "text_mask": torch.arange(inputs.ids.shape[1]) < inputs.lengths[:, None],
        }
    )
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    feature = model.text_feature(text, batch["text_lengths"])
    matrix = model.similarity_matrix(feature, video.frames, video.frame_mask)
    return Features(video.frames[:, 0], feature, matrix, pair_logits(model, video, text, batch["text_lengths"]))


def pair_logits(model: Any, video: Any, text: Tensor, lengths: Tensor) -> Tensor:
    """Logits (N, M) of the clips with the texts, as the contrastive loss reads them."""
    return model.similarity_logits(video, text, lengths).video_to_text
