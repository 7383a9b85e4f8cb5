"""Last step of collation, on the host: cut padding, and compute the indices that the model needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]


def finish_batch(batch: Batch) -> Batch:
    """Trim a collated batch and add indices that depend on the data; found on the device, they would cost a sync.

    Text is cut to the longest sequence (the text tower is causal), trajectory ids to the longest list (they are packed
    to the front). Neither shifts positions.

    Args:
        batch: `text_ids`, `text_mask` (B, W) with, optionally, `mlm_mask`, `noun_mask`, `verb_mask` (B, W) and
            `plm_start` (B,); `boxes` (B, T, O, 4), `box_trajectory` (B, T, O), `trajectory_ids` (B, N). Text or boxes
            may be absent. CPU tensors.

    Adds:
        text_lengths: (B,) tokens, start and end included.
        box_index: (K,) real boxes among the B·T·O slots.
        trajectory_counts: list of B ints.
        mlm_positions, mlm_index: (B, R) marked positions per clip, padded with 0, and (K,) the real ones among B·R.
        plm_index: (K,) rows of the next-token loss among B·(L-1), from `plm_start` (else 1) to the end token.
        noun_positions, verb_positions: lists of B lists, end token included (set matching is solved on the host).
    """
    batch = dict(batch)
    if "boxes" in batch:
        batch["box_index"] = (batch["boxes"][..., 0] != -1).flatten().nonzero()[:, 0]
        counts = (batch["trajectory_ids"] != 0).sum(1)
        batch["trajectory_counts"] = counts.tolist()
        batch["trajectory_ids"] = batch["trajectory_ids"][:, : max(1, int(counts.max()))]
    if "text_mask" in batch:
        _finish_text(batch)
    return batch


def _finish_text(batch: Batch) -> None:
    lengths = batch["text_mask"].sum(1)
    longest = int(lengths.max())
    for name in ("text_ids", "text_mask", "mlm_mask", "noun_mask", "verb_mask"):
        if name in batch:
            batch[name] = batch[name][:, :longest]
    batch["text_lengths"] = lengths
    if "mlm_mask" in batch:
        batch["mlm_positions"], batch["mlm_index"] = _pack_positions(batch["mlm_mask"])
    if "mlm_mask" in batch or "plm_start" in batch:
        batch["plm_index"] = _next_token_rows(lengths, batch.get("plm_start"), longest)
    for name in ("noun", "verb"):
        if f"{name}_mask" in batch:
            batch[f"{name}_positions"] = _word_positions(batch[f"{name}_mask"], lengths)


def _pack_positions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of True per row, packed to the front (B, R), and the flat indices of the real ones."""
    widest = max(1, int(mask.sum(1).max()))
    positions = torch.zeros(mask.shape[0], widest, dtype=torch.int64)
    is_real = torch.zeros_like(positions, dtype=torch.bool)
    for row, marked in enumerate(mask):
        index = marked.nonzero()[:, 0]
        positions[row, : len(index)] = index
        is_real[row, : len(index)] = True
    return positions, is_real.flatten().nonzero()[:, 0]


def _next_token_rows(lengths: Tensor, start: Tensor | None, longest: int) -> Tensor:
    """Rows i (predicting token i + 1) with start <= i + 1 <= end token, flat in (B, longest - 1)."""
    target = torch.arange(1, longest)
    first = torch.ones_like(lengths) if start is None else start
    wanted = (target >= first[:, None]) & (target < lengths[:, None])
    return wanted.flatten().nonzero()[:, 0]


def _word_positions(mask: Tensor, lengths: Tensor) -> list[list[int]]:
    """Tagged positions of each text and its end token."""
    with_end = mask.clone()
    with_end[torch.arange(len(lengths)), lengths - 1] = True
    return [row.nonzero()[:, 0].tolist() for row in with_end]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move the tensors, asynchronously where the memory is pinned; lists stay on the host."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
