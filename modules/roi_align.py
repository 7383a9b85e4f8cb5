"""RoIAlign on the patches of frames: values of the cells of a box, interpolated between the patches around each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def roi_align(patches: Tensor, boxes: Tensor, frame: Tensor) -> Tensor:
    """Values at the centres of the cells of boxes, as many cells as a frame has patches.

    It equals torchvision's `roi_align(aligned=True, sampling_ratio=-1)`, which takes one sample of each cell unless a
    box is larger than the frame. By rounding, torchvision finds a box from edge to edge larger at some resolutions (336
    pixels in patches of 14) and blurs it with two samples; here it has one, as every other box.

    As a weighted sum of rows, it has a backward pass that runs on all cores, where torchvision's runs on one
    (tests/README, "A small model's step").

    Args:
        patches: (N, P, D), the square grid of patches of each frame, row by row.
        boxes: (K, 4), x1 y1 x2 y2 in patches: from 0 to the side of the grid.
        frame: (K,) int64, the frame of each box.

    Returns:
        (K, P, D), the cells of each box, row by row; 0 for a box of no width or height.
    """
    grid = round(patches.shape[1] ** 0.5)
    low, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    cells = torch.arange(grid, device=boxes.device)[:, None]
    # From the centre of the first patch, along x and along y: (K, grid, 2).
    centres = (low + (cells + 0.5) * (size / grid) - 0.5).clamp(0, grid - 1)
    before = centres.floor()
    neighbours = torch.stack([before, (before + 1).clamp(max=grid - 1)], dim=-1).long()
    weights = torch.stack([before + 1 - centres, centres - before], dim=-1) * (size > 0)[..., None]
    columns, rows = neighbours[:, None, :, 0, None, :], neighbours[:, :, None, 1, :, None]
    rows_of_frame = frame[:, None, None, None, None] * patches.shape[1] + rows * grid + columns  # (K, grid, grid, 2, 2)
    shares = weights[:, None, :, 0, None, :] * weights[:, :, None, 1, :, None]
    values = F.embedding_bag(
        rows_of_frame.reshape(-1, 4), patches.flatten(0, 1), per_sample_weights=shares.reshape(-1, 4), mode="sum"
    )
    return values.view(len(boxes), *patches.shape[1:])
