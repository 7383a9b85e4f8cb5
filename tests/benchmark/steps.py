"""Training steps to be measured: models of the README's settings, batches of realistic content, one whole update."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modules.batch import Batch, finish_batch, to_device
from modules.config import Behaviour, ModelConfig
from modules.initialise import initialise
from modules.random_streams import sample_key
from modules.tasks.captioning import CaptionModel
from modules.tasks.pretrain import PretrainModel
from tests.golden_data import recipe
from tests.plain_forms import PlainCaptionModel, PlainPretrainModel
from utils.training.optimizer import BertAdam, freeze_layers, parameter_groups

# The README's flags. Dropout would be .5; the plain forms have none, so both are measured without.
README = {"need_object": True, "object_layer": None, "object_fuse": "fusion", "use_action": True, "dropout": 0.0}
SIZES: dict[str, dict[str, Any]] = {
    "vit-b16": {},
    "tiny": {
        "image_resolution": 64,
        "vision_width": 128,
        "vision_layers": 4,
        "embed_dim": 128,
        "vocab_size": 2000,
        "text_width": 128,
        "text_layers": 2,
        "fusion_layers": 2,
        "max_words": 24,
    },
}
TASKS: dict[str, tuple[Any, Any]] = {
    "pretrain": (PretrainModel, PlainPretrainModel),
    "caption": (CaptionModel, PlainCaptionModel),
}
LONGEST = 20  # tokens of a caption, start and end included; the recipe's shortest has 8
SEED = 42


def build(size: str, frames: int, device: str, task: str = "pretrain") -> tuple[Any, Any]:
    """A model of `TASKS` with drawn weights, and its plain forms on the very same parameters, all losses on."""
    torch.manual_seed(SEED)
    model_class, plain_class = TASKS[task]
    model = model_class(ModelConfig(**{**SIZES[size], **README, "max_frames": frames}), Behaviour.preset("intended"))
    initialise(model)
    freeze_layers(model, 0)
    model.remember_trainable()
    model.set_active_losses(set(model.available_losses))
    model.to(device).train()
    plain = plain_class.__new__(plain_class)
    plain.__dict__ = model.__dict__
    return model, plain


def build_optimizer(model: nn.Module, steps: int) -> BertAdam:
    """BertAdam with the README's rates."""
    return BertAdam(parameter_groups(model, 1e-5, 1e-3, 1e-5), 1e-5, t_total=max(10, steps))


def make_batches(
    config: ModelConfig, size: int, device: str, seed: int = SEED, *, task: str = "pretrain"
) -> tuple[Batch, Batch]:
    """The same clips as our loader gives them (padding cut) and as the released one does (W words, 2·O trajectories).

    Captions have 8 to 20 tokens, as most of WebVid's do. Captioning predicts all of them, pre-training from a random
    one on.
    """
    side, words = config.image_resolution, config.max_words
    drawn = recipe.inputs(
        seed, size, config.vocab_size, LONGEST + 4, config.max_frames, config.object_count, resolution=side
    )
    draw = np.random.default_rng(seed)
    lengths = torch.from_numpy(drawn["input_mask"].sum(1))
    text = {
        "text_ids": drawn["input_ids"],
        "text_mask": drawn["input_mask"].astype(bool),
        "mlm_mask": drawn["mlm_mask"].astype(bool),
        "noun_mask": drawn["noun_mask"].astype(bool),
        "verb_mask": drawn["verb_mask"].astype(bool),
    }
    common = {
        "video": torch.from_numpy(draw.integers(0, 256, (size, config.max_frames, 3, side, side), dtype=np.uint8)),
        "video_mask": torch.ones(size, config.max_frames, dtype=torch.bool),
        "plm_start": torch.tensor(
            [int(draw.integers(1, int(length))) if task == "pretrain" else 1 for length in lengths]
        ),
        "random_keys": torch.tensor([sample_key(seed, 0, index) for index in range(size)]),
        "boxes": torch.from_numpy(drawn["boxes"]),
        "box_trajectory": torch.from_numpy(drawn["box_classes"]),
        "trajectory_ids": torch.from_numpy(drawn["trajectory_classes"]),
    }
    padded = {name: nn.functional.pad(torch.from_numpy(x), (0, words - x.shape[1])) for name, x in text.items()}
    batch = finish_batch({**common, **padded})
    return to_device(batch, torch.device(device)), to_device(_untrimmed(batch, common, padded), torch.device(device))


def _untrimmed(batch: Batch, common: dict[str, Tensor], padded: dict[str, Tensor]) -> Batch:
    """A finished batch with its padding put back; flat indices into B·(L-1) rows move with L."""
    longest, words = batch["text_ids"].shape[1], padded["text_ids"].shape[1]
    clip, row = batch["plm_index"] // (longest - 1), batch["plm_index"] % (longest - 1)
    restored = {**padded, "trajectory_ids": common["trajectory_ids"], "plm_index": clip * (words - 1) + row}
    return {**batch, **restored}


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """Sum of all losses, weights 1."""
    return torch.stack([value for name, value in losses.items() if not name.endswith("_accuracy")]).sum()


def backward(model: PretrainModel, batch: Batch) -> dict[str, Tensor]:
    """Forward and backward pass; returns what the model returned."""
    losses = model(batch)
    total_loss(losses).backward()
    return losses


def update(model: PretrainModel, optimizer: BertAdam) -> None:
    """What follows the backward pass in the trainer."""
    optimizer.clip(1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    model.after_update()


def describe(config: ModelConfig, batch: Batch) -> dict[str, Any]:
    """Sizes of model and batch, for the report."""
    return {
        "model": asdict(config),
        "clips": len(batch["video"]),
        "text_lengths": batch["text_lengths"].tolist(),
        "boxes": len(batch["box_index"]),
        "trajectories": batch["trajectory_counts"],
        "marked_tokens": len(batch["mlm_index"]),
        "next_tokens": len(batch["plm_index"]),
    }
