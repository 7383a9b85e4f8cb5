"""What each --precision computes in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.runtime.precision import autocast, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_is_bf16_on_cuda_and_fp32_on_the_cpu():
    assert (resolve_precision("auto", CUDA), resolve_precision("auto", CPU)) == ("bf16", "fp32")
    for name in ("fp32", "bf16", "fp16"):
        assert resolve_precision(name, CPU) == resolve_precision(name, CUDA) == name


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_matrix_products_have_the_precision_and_parameters_stay_fp32(precision: str, dtype: torch.dtype):
    layer, x = nn.Linear(4, 4), torch.ones(2, 4)
    with autocast(precision, CPU):
        out = layer(x)
    assert out.dtype == dtype
    out.float().sum().backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32
    assert layer(x).dtype == torch.float32


def test_fp32_holds_within_a_lower_precision():
    with autocast("bf16", CPU), autocast("fp32", CPU):
        assert nn.Linear(4, 4)(torch.ones(2, 4)).dtype == torch.float32
