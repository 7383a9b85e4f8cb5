"""Arithmetic by --precision: fp32 master weights, with lower precision by autocast."""

from __future__ import annotations

import contextlib

import torch

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision to compute in; `auto` is bf16 on CUDA and fp32 on the CPU."""
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return precision


def resolve_for_use(precision: str, device: torch.device) -> str:
    """As `resolve_precision` for using a trained model: on the CPU too `auto` is bf16, where the processor has it.

    Training and evaluation do not ask for this, so that their results do not depend on the processor.
    """
    if precision == "auto" and device.type == "cpu" and has_bf16_products():
        return "bf16"
    return resolve_precision(precision, device)


def has_bf16_products() -> bool:
    """Whether the processor has instructions for bf16 matrix products (AVX512-BF16 or AMX), and torch uses them."""
    if not torch.backends.mkldnn.is_available():
        return False
    if hasattr(torch.cpu, "get_capabilities"):  # public, but not in every version
        return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The autocast context of a forward pass."""
    dtype = PRECISIONS[resolve_precision(precision, device)]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
