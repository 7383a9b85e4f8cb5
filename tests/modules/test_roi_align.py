"""Interpolated cells of boxes, beside torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision import ops

from modules.roi_align import roi_align


def boxes_of(grid: int, count: int) -> Tensor:
    """Boxes anywhere in a frame of grid x grid patches, and the special ones: (count + 5, 4)."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(0)) * grid
    drawn = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    side = float(grid)
    special = [
        [0, 0, side, side],
        [0, 0, side, 0.5],
        [side, 0, side, side],  # no width
        [0.5, 0.5, 0.5, 0.5],
        [side - 0.1, side - 0.1, side, side],
    ]
    return torch.cat([drawn, torch.tensor(special)])


@pytest.mark.parametrize("grid", [1, 2, 8, 14])
def test_cells_and_gradients_equal_torchvision(grid: int):
    draw = torch.Generator().manual_seed(1)
    patches = torch.randn(3, grid**2, 5, generator=draw, requires_grad=True)
    boxes = boxes_of(grid, 40)
    frame = torch.randint(0, 3, (len(boxes),), generator=draw)
    found = roi_align(patches, boxes, frame)
    maps = patches.transpose(1, 2).unflatten(2, (grid, grid))
    regions = torch.cat([frame[:, None].float(), boxes], dim=1)
    expected = ops.roi_align(maps, regions, (grid, grid), sampling_ratio=-1, aligned=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    wanted = torch.randn(expected.shape, generator=draw)
    gradients = [torch.autograd.grad((cells * wanted).sum(), patches)[0] for cells in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_a_cell_lies_between_its_patches():
    """A frame of 2 x 2 patches; the one box has its four cells on the line between the upper and the lower ones."""
    patches = torch.tensor([[[0.0], [1.0], [10.0], [11.0]]])
    cells = roi_align(patches, torch.tensor([[0.0, 0.5, 2.0, 1.5]]), torch.tensor([0]))
    assert cells[0, :, 0].tolist() == [2.5, 3.5, 7.5, 8.5]


def test_no_box_has_no_cell():
    patches = torch.randn(2, 4, 3, requires_grad=True)
    cells = roi_align(patches, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert cells.shape == (0, 4, 3)
    cells.sum().backward()
    assert patches.grad is not None and not patches.grad.any()
