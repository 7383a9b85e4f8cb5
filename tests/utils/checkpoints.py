"""Checkpoints of small models, own and released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.tasks.pretrain import PretrainModel
from tests import tiny
from tests.golden import DATA, Golden
from tests.golden_data import recipe
from tests.world import FRAMES
from utils.runtime.checkpoint import model_content, save_atomically

SIZES = {"vocab_size": 2000, "context_length": 32, "max_words": 24, "max_frames": FRAMES, "num_actions": 3}


def save_tiny(folder: Path, model_class: type = PretrainModel, **choices: Any) -> Path:
    """A checkpoint of a small model with drawn weights, whose tokenizer is CLIP's with its first merges."""
    model = tiny.model(model_class, **{**SIZES, **choices})
    path = folder / f"{model_class.__name__}.bin"
    save_atomically(model_content(model, 0, 0), path)
    return path


def released_state() -> dict[str, Tensor]:
    """Entries of a checkpoint as the released code saves it, of a tiny model."""
    keys = Golden(DATA / "tiny-seed0").meta["keys"]
    return {key: torch.as_tensor(recipe.weight(key, shape, 0)) for key, shape in keys.items()}
