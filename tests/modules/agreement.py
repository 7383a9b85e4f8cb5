"""Two ways to compute the same: equal values and equal gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def gradients(model: nn.Module, value: Tensor) -> dict[str, Tensor]:
    """Gradients of the sum of squares, of the parameters that have one that is not zero."""
    model.zero_grad()
    value.square().sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def assert_same(fast: Tensor, slow: Tensor, model: nn.Module) -> None:
    """Both are the same function of the model's parameters, up to rounding."""
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    a, b = gradients(model, fast), gradients(model, slow)
    assert a.keys() == b.keys() and a
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4 * float(b[name].abs().max() + 1e-6), msg=name)
