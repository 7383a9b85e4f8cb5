"""Losses and accuracies of a pre-training model in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from dataloaders.samples import Sample, collate
from modules.batch import Batch, to_device
from utils.runtime.distributed import Runtime


def collate_whole_captions(samples: Sequence[Sample]) -> Batch:
    """`collate`, with the next-token loss over all tokens instead of a drawn part."""
    return collate([{**sample, "plm_start": torch.ones_like(sample["plm_start"])} for sample in samples])


@torch.no_grad()
def evaluate_losses(model: Any, batches: Iterable[Batch], runtime: Runtime) -> dict[str, Any]:
    """Means over batches of what the model returns, without dropout.

    Args:
        model: a pre-training model; all its losses are computed.
        batches: of the same number and size on all ranks, made with `collate_whole_captions`.

    Returns:
        Losses and `*_accuracy` (share of right answers: masked tokens, next tokens, matching pairs), and `clips`.
    """
    model.eval()
    active = model.active_losses
    model.active_losses = frozenset(model.available_losses)
    sums: dict[str, torch.Tensor] = {}
    steps = clips = 0
    for batch in batches:
        for name, value in model(to_device(batch, runtime.device)).items():
            sums[name] = sums.get(name, torch.zeros(())) + value.float().cpu()
        steps += 1
        clips += len(batch["video_id"])
    model.active_losses = active
    names = sorted(sums)
    if not names:
        return {"clips": 0}
    means = runtime.sum(torch.stack([sums[name] for name in names])) / (steps * runtime.world_size)
    return {**dict(zip(names, means.tolist(), strict=True)), "clips": clips * runtime.world_size}
