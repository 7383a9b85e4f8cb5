"""Reports of a training step that do not wait for the device: sums for the log, flags that all ranks agree on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from utils.runtime.distributed import Runtime


class Meter:
    """Means of named scalars since the last reading, kept on the device.

    Values that are not finite (an accuracy without any case) are left out of their mean.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.sums: dict[str, Tensor] = {}  # name -> (2,): sum and number of values

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one scalar for each name; nothing is read from the device."""
        for name, value in values.items():
            value = value.detach().float()
            pair = torch.stack([value.nan_to_num(0.0, 0.0, 0.0), value.isfinite().float()])
            self.sums[name] = self.sums[name] + pair if name in self.sums else pair

    def merge(self) -> dict[str, list[float]]:
        """Spread the mean over ranks of every sum to all ranks, and return the sums as plain values.

        Adding to merged sums and merging again gives the same means, so a checkpoint can hold them.
        """
        if not self.sums:
            return {}
        names = sorted(self.sums)
        everywhere = self.runtime.sum(torch.stack([self.sums[name] for name in names]).cpu()) / self.runtime.world_size
        self.sums = dict(zip(names, everywhere.to(self.runtime.device), strict=True))
        return {name: pair.tolist() for name, pair in zip(names, everywhere, strict=True)}

    def restore(self, sums: Mapping[str, Iterable[float]]) -> None:
        """Take up what `merge` returned."""
        self.sums = {name: torch.tensor(list(pair), device=self.runtime.device) for name, pair in sums.items()}

    def read(self) -> dict[str, float]:
        """Means over steps and ranks by name, and start anew; all ranks call it together."""
        sums = self.merge()
        self.sums = {}
        return {name: total / count if count else math.nan for name, (total, count) in sums.items()}


class StepFlags:
    """ "A loss is not finite" and "a signal asks to stop", agreed between ranks once per step.

    `post` takes the maximum of two numbers over ranks; that costs one tiny all-reduce, after a backward pass that
    has just all-reduced every gradient. On CUDA the result travels to pinned memory behind the step's own work and
    `read` looks at the post before the last, so the host never waits for the step it has just queued; every rank
    looks at the same post, so all act at the same step. On the CPU there is nothing to hide and the last post is read.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._posts: list[tuple[Tensor, torch.cuda.Event | None, Any]] = []
        self.stop = False

    def post(self, bad: Tensor, stop: bool, context: Any) -> None:
        """Hand in this rank's flags for a step.

        Args:
            bad: scalar, above 0 when a loss of this rank is not finite.
            stop: a signal has asked this rank to stop.
            context: what `read` returns if the step was bad on any rank.
        """
        flags = torch.stack([bad.float(), torch.full_like(bad, float(stop), dtype=torch.float32)])
        if self.runtime.world_size > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        event = None
        if flags.is_cuda:
            host = torch.empty(2, pin_memory=True)
            host.copy_(flags, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            flags = host
        self._posts.append((flags, event, context))

    def read(self, all_posts: bool = False) -> Any | None:
        """The context of the first bad step among the posts that are due, else None; sets `stop`.

        Args:
            all_posts: look at the last post too, which waits for the device (before saving, displaying, evaluating).
        """
        lag = 1 if self.runtime.device.type == "cuda" and not all_posts else 0
        while len(self._posts) > lag:
            flags, event, context = self._posts.pop(0)
            if event is not None:
                event.synchronize()
            bad, stop = flags.tolist()
            self.stop = self.stop or stop > 0
            if bad > 0:
                return context
        return None


class SkippedFiles:
    """Files that a loader could not read: each is named once, occurrences are counted over ranks."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.total = 0
        self.named: set[str] = set()
        self._new: list[str] = []

    def add(self, skipped: Iterable[Iterable[str]]) -> None:
        """Names of the samples left out in a batch, one list per sample."""
        self._new += [name for names in skipped for name in names]

    def exchange(self) -> list[str]:
        """Count what is new on all ranks (all call it together) and return the names not returned before."""
        everywhere = self.runtime.sum(torch.tensor([len(self._new)])).item()
        if not everywhere:
            return []
        self.total += int(everywhere)
        found = {name for names in self.runtime.gather_json(sorted(set(self._new))) for name in names}
        self._new = []
        fresh = sorted(found - self.named)
        self.named |= found
        return fresh

    def restore(self, total: int, names: Iterable[str]) -> None:
        """Take up a saved count."""
        self.total, self.named = total, set(names)
