"""A pre-training model in evaluation mode: losses and accuracies, zero-shot retrieval, what its trajectories find."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from dataloaders.caption_split import CaptionSplit
from dataloaders.samples import Sample, collate
from modules.batch import Batch, to_device
from modules.fusion_encoder import VideoTokens
from utils.evaluation.alignment import CaptionMatching, Matched, alignment_metrics
from utils.evaluation.retrieval import RetrievalResult, evaluate_retrieval
from utils.runtime.distributed import Runtime
from utils.settings.groups import ReadSettings


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


def evaluate_zero_shot(
    model: Any,
    split: CaptionSplit,
    videos: Iterable[Batch],
    runtime: Runtime,
    settings: ReadSettings,
    matching: CaptionMatching | None,
) -> tuple[RetrievalResult, dict[str, float | int]]:
    """Retrieval, and `alignment_metrics` where there is `matching`; the clips are encoded once for both.

    Args:
        model, split, videos: as for `evaluate_retrieval`, as are the errors.
    """
    mine: list[list[Matched]] = []

    def observe(batch: Batch, tokens: VideoTokens) -> None:
        if matching is not None:
            mine.extend(matching(batch, tokens))

    scored = evaluate_retrieval(model, split, videos, runtime, settings, observe=observe)
    if matching is None:
        return scored, {}
    clips = [[Matched(*one) for one in clip] for part in runtime.gather_json(mine) for clip in part]
    return scored, alignment_metrics(clips)
