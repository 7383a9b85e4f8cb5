"""A small model and small batches of any shape, for tests."""

from __future__ import annotations

from typing import Any

import torch

from modules.batch import Batch, finish_batch
from modules.config import Behaviour, ModelConfig
from modules.initialise import initialise
from modules.random_streams import sample_key
from modules.tasks.pretrain import PretrainModel

SIZES: dict[str, Any] = {
    "image_resolution": 32,
    "patch_size": 8,
    "vision_width": 64,
    "vision_layers": 4,
    "embed_dim": 64,
    "context_length": 20,
    "vocab_size": 100,
    "text_width": 64,
    "text_layers": 3,
    "fusion_layers": 3,
    "max_frames": 3,
    "max_words": 12,
    "object_count": 4,
    "num_actions": 2,
    "need_object": True,
    "use_action": True,
    "dropout": 0.0,
}


def config(**choices: Any) -> ModelConfig:
    return ModelConfig(**{**SIZES, **choices})


def model(cls: type = PretrainModel, behaviour: str | Behaviour = "intended", seed: int = 0, **choices: Any) -> Any:
    """A tiny model with drawn weights, the raw parameters large enough to matter."""
    torch.manual_seed(seed)
    chosen = Behaviour.preset(behaviour) if isinstance(behaviour, str) else behaviour
    made = cls(config(**choices), chosen)
    initialise(made)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(("slot_embedding", "bias")):
                parameter.normal_(std=0.1)
    return made


def sample(index: int, cfg: ModelConfig, *, words: int | None = None, boxes: int | None = None, seed: int = 0) -> dict:
    """One dataset item of random content: `words` inner tokens, at most `boxes` boxes per frame."""
    key = sample_key(seed, 0, index)
    draw = torch.Generator().manual_seed(key % 2**31)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=draw))

    length, frames, slots = cfg.max_words, cfg.max_frames, cfg.object_count
    inner = integer(2, length - 2) if words is None else words
    ids = torch.zeros(length, dtype=torch.int64)
    ids[0], ids[inner + 1] = cfg.vocab_size - 2, cfg.vocab_size - 1
    ids[1 : inner + 1] = torch.randint(0, cfg.vocab_size - 2, (inner,), generator=draw)
    inside = torch.zeros(length, dtype=torch.bool)
    inside[1 : inner + 1] = True
    tag = torch.rand(length, generator=draw)
    mlm = inside & (torch.rand(length, generator=draw) < 0.3)
    mlm[1] = True
    box = torch.full((frames, slots, 4), -1.0)
    trajectory = torch.zeros(frames, slots, dtype=torch.int64)
    for t in range(frames):
        for o in range(integer(0, slots + 1) if boxes is None else boxes):
            corner = torch.rand(2, generator=draw) * cfg.image_resolution * 0.6
            box[t, o] = torch.cat([corner, corner + 4 + torch.rand(2, generator=draw) * cfg.image_resolution * 0.3])
            trajectory[t, o] = integer(1, 4)
    present = trajectory[trajectory > 0].unique()
    ids_of_trajectories = torch.zeros(cfg.num_trajectories, dtype=torch.int64)
    ids_of_trajectories[: len(present)] = present
    side = cfg.image_resolution
    return {
        "video": torch.randint(0, 256, (frames, 3, side, side), generator=draw, dtype=torch.uint8),
        "video_mask": torch.ones(frames, dtype=torch.bool),
        "text_ids": ids,
        "text_mask": torch.arange(length) < inner + 2,
        "mlm_mask": mlm,
        "noun_mask": inside & (tag < 0.4),
        "word_ends": inside.clone(),
        "verb_mask": inside & (tag > 0.7),
        "plm_start": torch.tensor(integer(1, inner + 2)),
        "random_keys": torch.tensor(key),
        "boxes": box,
        "box_trajectory": trajectory,
        "trajectory_ids": ids_of_trajectories,
    }


def collate(samples: list[dict]) -> Batch:
    return finish_batch({name: torch.stack([s[name] for s in samples]) for name in samples[0]})


def batch(size: int, cfg: ModelConfig, seed: int = 0, **choices: Any) -> Batch:
    return collate([sample(i, cfg, seed=seed, **choices) for i in range(size)])


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum((v for k, v in losses.items() if not k.endswith("_accuracy")), torch.zeros(()))
