"""TorchScript archives for tests: modules with every kind of attribute, one that runs code, and archives rewritten."""

from __future__ import annotations

import importlib.util
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


class Inner(nn.Module):
    """Parameters of two types, one of them not contiguous, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.small = nn.Parameter(torch.arange(6).half().view(2, 3).t())
        self.register_buffer("steps", torch.arange(10)[1:][::2])
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.register_buffer("absent", None)
        self.register_buffer("flag", torch.tensor(True))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x)) + self.passing + self.steps.sum()


class Outer(nn.Module):
    """Plain attributes of every kind, a tensor that is no buffer, a tied weight and a module that is there twice."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(Inner(), nn.Linear(2, 2))
        self.twice = self.parts[1]
        self.tied = self.parts[1].weight
        self.plain = torch.zeros(3)
        self.tensors = [torch.ones(2)]
        self.numbers = [1, -2]
        self.fractions = [0.5]
        self.flags = [True, False]
        self.words = {"a": 1}
        self.pair = (2**40, "text")
        self.place = torch.device("cpu")
        self.empty = nn.Parameter(torch.zeros(0, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.twice(self.parts(x)) + self.plain.sum() + self.tensors[0] + self.numbers[0] + self.fractions[0]
        return y + self.words["a"] + self.pair[0] + int(self.flags[0]) + len(str(self.place)) + self.tied.sum()


WRITES = """
import torch

class Writer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2))

    @torch.jit.export
    def __getstate__(self):
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.training = state[1]
        file = torch.from_file({victim!r}, True, 4, dtype=torch.uint8)
        file.copy_(torch.tensor([101, 118, 105, 108], dtype=torch.uint8))
        self.w = state[0] + file.to(torch.float32).sum() * 0  # else TorchScript leaves the copy out

    def forward(self, x):
        return x + self.w
"""


def save_script(module: nn.Module, path: Path) -> Path:
    """Write a module as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return path


def save_trace(module: nn.Module, example: Tensor, path: Path) -> Path:
    """Write what a module does with an example as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module.eval(), example).save(str(path))
    return path


def jit_state(path: Path) -> dict[str, Tensor]:
    """What torch itself reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path)).state_dict()


def save_writer(path: Path, victim: Path) -> Path:
    """An archive that overwrites `victim` when torch.jit.load reads it."""
    source = path.with_name("writer_module.py")
    source.write_text(WRITES.format(victim=str(victim)))
    spec = importlib.util.spec_from_file_location("writer_module", source)
    module = importlib.util.module_from_spec(spec)
    sys.modules["writer_module"] = module  # where TorchScript looks the source up
    try:
        spec.loader.exec_module(module)
        return save_script(module.Writer(), path)
    finally:
        del sys.modules["writer_module"]


def rewritten(
    path: Path, change: Callable[[str, bytes], bytes | None], target: Path, compression: int = zipfile.ZIP_STORED
) -> Path:
    """A copy of an archive in which a member's content is what `change(name, content)` says; None leaves it out."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", compression) as copy:
        for info in source.infolist():
            content = change(info.filename, source.read(info))
            if content is not None:
                copy.writestr(info.filename, content)
    return target


def with_pickle(path: Path, change: Callable[[bytes], bytes], target: Path) -> Path:
    """A copy of an archive with another data.pkl."""
    return rewritten(path, lambda name, data: change(data) if name.endswith("/data.pkl") else data, target)
