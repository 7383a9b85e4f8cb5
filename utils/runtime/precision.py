"""Arithmetic by --precision: fp32 master weights, with lower precision by autocast."""

from __future__ import annotations

import contextlib

import torch

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` is bf16 on CUDA and fp32 on the CPU."""
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return precision


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The context in which a forward pass computes."""
    dtype = PRECISIONS[resolve_precision(precision, device)]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
