"""Text-video retrieval of a model on a test list: sharded over ranks, gathered, scored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from modules.batch import Batch, to_device
from utils.distributed import Runtime
from utils.metrics import ranks_of_diagonal, retrieval_metrics


class BadVideos(Exception):
    """Test clips cannot be read; the message lists them."""


@torch.no_grad()
def zero_shot_retrieval(
    model: Any, batches: Iterable[Batch], runtime: Runtime, on_bad_video: str = "error"
) -> dict[str, Any]:
    """Rank clips by their similarity to each text, and the other way round.

    Args:
        model: a backbone in evaluation mode.
        batches: this rank's part of the pairs (dataloaders/retrieval.py), in order.
        on_bad_video: "error" stops with the list of unreadable clips, "skip" leaves their pairs out.

    Returns:
        `t2v_*` and `v2t_*` metrics, the number of `pairs`, and `skipped`: the clips left out with their reasons.

    Raises:
        BadVideos: a clip cannot be read and `on_bad_video` is "error", or none can be read.
    """
    texts, frames, masks, bad = [], [], [], []
    for batch in batches:
        on_device = to_device(batch, runtime.device)
        video = model.encode_video(on_device, features_need_grad=False)
        text = model.encode_text(on_device["text_ids"])
        readable = torch.tensor([not reason for reason in batch["bad_video"]])
        bad += [reason for reason in batch["bad_video"] if reason]
        texts.append(model.text_feature(text, on_device["text_lengths"]).float().cpu()[readable])
        frames.append(video.frames.float().cpu()[readable])
        masks.append(video.frame_mask.cpu()[readable])
    config = model.config
    text_feature = _gather_rows(texts, (config.embed_dim,), runtime)
    video_frames = _gather_rows(frames, (config.max_frames, config.embed_dim), runtime)
    frame_mask = _gather_rows(masks, (config.max_frames,), runtime, torch.bool)
    skipped = [reason for part in runtime.gather_json(bad) for reason in part]
    if skipped and on_bad_video == "error":
        raise BadVideos(
            f"{len(skipped)} test clips cannot be read:\n  " + "\n  ".join(skipped) + "\nMend or remove them, or leave "
            "them out of the results with --on_bad_video skip."
        )
    if not len(text_feature):
        raise BadVideos("none of the test clips can be read")
    device = runtime.device
    similarity = model.similarity_matrix(text_feature.to(device), video_frames.to(device), frame_mask.to(device))
    scores = similarity.float().cpu().numpy()
    result: dict[str, Any] = {"pairs": len(scores), "skipped": skipped}
    for name, matrix in (("t2v", scores), ("v2t", scores.T)):
        result |= {f"{name}_{key}": value for key, value in retrieval_metrics(ranks_of_diagonal(matrix)).items()}
    return result


def _gather_rows(
    parts: list[Tensor], shape: tuple[int, ...], runtime: Runtime, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Rows of all ranks in rank order; ranks may have different numbers of them, also none."""
    mine = torch.cat([torch.empty(0, *shape, dtype=dtype), *parts]).float()
    counts = [int(n) for n in runtime.gather_tensors(torch.tensor([len(mine)]))]
    padded = torch.zeros(max(counts), *shape)
    padded[: len(mine)] = mine
    rows = runtime.gather_tensors(padded)
    return torch.cat([part[:count] for part, count in zip(rows, counts, strict=True)]).to(dtype)
