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


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The autocast context of a forward pass."""
    dtype = PRECISIONS[resolve_precision(precision, device)]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
