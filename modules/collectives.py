"""Collectives that are no-ops in a single process. Gradients of gathered tensors go back to the rank that owns them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        # Every rank's loss may read every row: the owner's gradient is the sum over ranks.
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[rank() * ctx.rows :][: ctx.rows]


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks in rank order: (B, ...) -> (W·B, ...). Sizes must agree between ranks."""
    return x if world_size() == 1 else _Gather.apply(x.contiguous())


def gather_constant(x: Tensor) -> Tensor:
    """`gather` without gradient; booleans travel as bytes."""
    with torch.no_grad():
        if x.dtype == torch.bool:
            return gather(x.to(torch.uint8)).bool()
        return gather(x.detach())


def global_mean(total: Tensor, count: float, kept: Tensor | None = None) -> Tensor:
    """Sum of this rank's terms over the number of terms on all ranks, times the number of ranks.

    So scaled, DDP's mean of gradients over ranks is the gradient of the global mean, however unevenly the terms are
    spread. The count is known on the host; only its sum over ranks lives on the device. 0 terms give 0.

    Args:
        kept: () number of the terms that count, where only the device knows it; the others are 0.
    """
    if world_size() == 1:
        return local_mean(total, count, kept)
    everywhere = torch.tensor(float(count), device=total.device) if kept is None else kept.float()
    dist.all_reduce(everywhere)
    return total * world_size() / everywhere.clamp(min=1)


def local_mean(total: Tensor, count: float, kept: Tensor | None = None) -> Tensor:
    """Sum of this rank's terms over their number, as in `global_mean`; 0 terms give 0."""
    mean = total / max(count, 1)
    if kept is None:
        return mean
    # A GPU divides by a number of the host a last digit otherwise than by one of its own. The factor is exactly 1 where
    # all terms count, so that the mean is then the same, bit for bit, as without `kept`.
    return mean * (torch.full_like(kept, count) / kept.clamp(min=1))
