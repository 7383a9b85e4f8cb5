"""What each --precision computes in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.runtime import precision as precisions
from utils.runtime.precision import autocast, has_bf16_products, resolve_for_use, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_is_bf16_on_cuda_and_fp32_on_the_cpu():
    assert (resolve_precision("auto", CUDA), resolve_precision("auto", CPU)) == ("bf16", "fp32")
    for name in ("fp32", "bf16", "fp16"):
        assert resolve_precision(name, CPU) == resolve_precision(name, CUDA) == name


@pytest.mark.parametrize(("can", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_processor_can_for_use_alone(monkeypatch: pytest.MonkeyPatch, can: bool, expected: str):
    monkeypatch.setattr(precisions, "has_bf16_products", lambda: can)
    assert (resolve_for_use("auto", CPU), resolve_for_use("auto", CUDA)) == (expected, "bf16")
    assert resolve_precision("auto", CPU) == "fp32", "training and evaluation"
    for name in ("fp32", "bf16", "fp16"):
        assert resolve_for_use(name, CPU) == resolve_for_use(name, CUDA) == name


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True, "avx512_bf16": False}, False)],
    ids=str,
)
def test_bf16_products_are_known_by_the_capabilities(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bf16_products() == expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bf16_products()


def test_versions_of_torch_without_capabilities_are_asked_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not has_bf16_products()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert has_bf16_products()


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
