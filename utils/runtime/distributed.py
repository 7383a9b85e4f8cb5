"""The rank of this process, known from the launcher at once, and the process group, joined only when asked.

`python -m torch.distributed.launch` (with or without `--local-rank`), `torchrun` and plain `python` all work. Nothing
joins a group at import or construction: slow preparation (object store, tags) comes first, and no rank times out.
"""

from __future__ import annotations

import datetime
import gc
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from utils.runtime.memory import keep_freed_memory

CONNECT_TIMEOUT = datetime.timedelta(seconds=20)
TIMEOUT = datetime.timedelta(hours=3)  # rank 0 may write checkpoints or score a whole test set while the others wait


@dataclass(frozen=True)
class Runtime:
    """This process among `world_size`, and its device."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def start(self) -> None:
        """Join the process group (nccl on CUDA, gloo on CPU); a single process needs none."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        else:
            keep_freed_memory()
        if self.world_size == 1 or dist.is_initialized():
            return
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise RuntimeError(
                f"{' and '.join(missing)} not set for {self.world_size} processes: start with torchrun or "
                "python -m torch.distributed.launch"
            )
        address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
        try:
            dist.init_process_group(
                "nccl" if self.device.type == "cuda" else "gloo",
                store=self._store(),
                rank=self.rank,
                world_size=self.world_size,
                timeout=TIMEOUT,
            )
        except (dist.DistNetworkError, dist.DistStoreError, OSError) as error:
            raise ConnectionError(
                f"rank {self.rank} does not reach the launcher at {address}:{port}: it has ended, or the address is "
                "not its own. Start again"
            ) from error

    def _store(self) -> dist.Store:
        """Where ranks find each other. A launcher that serves it is there before they are, or has been killed.

        Without that, an orphan that was still starting would try for the hours of TIMEOUT, and keep its output folder
        from the next run.
        """
        is_served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        patience = CONNECT_TIMEOUT if is_served else TIMEOUT  # else rank 0 serves it, when it has prepared its data
        if is_served:  # torch would try for a multiple of its timeout
            _knock(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        store, _, _ = next(dist.rendezvous("env://", self.rank, self.world_size, timeout=patience))
        store.set_timeout(TIMEOUT)
        return store

    def stop(self) -> None:
        """Leave the process group, if one was joined.

        A wrapped model that still waits for garbage collection would keep the group's threads alive until the
        interpreter ends, and a thread that then asks for Python's lock aborts the process.
        """
        if dist.is_initialized():
            gc.collect()
            dist.destroy_process_group()
            gc.collect()

    @contextmanager
    def process_group(self) -> Iterator[Runtime]:
        """`start` on entry, `stop` on exit."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def barrier(self) -> None:
        """Wait for all ranks; nothing in a single process."""
        if dist.is_initialized():
            self.sum(torch.zeros(1))

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks of a small CPU tensor, equal on all ranks."""
        if not dist.is_initialized():
            return values
        summed = values.to(self.device, copy=True)
        dist.all_reduce(summed)
        return summed.cpu()

    def gather_tensors(self, values: Tensor) -> list[Tensor]:
        """The CPU tensors of all ranks in rank order; shapes must agree."""
        if not dist.is_initialized():
            return [values]
        mine = values.to(self.device)
        parts = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(parts, mine)
        return [part.cpu() for part in parts]

    def gather_json(self, value: Any) -> list[Any]:
        """Plain values (what JSON can hold) of all ranks in rank order, on every rank."""
        if not dist.is_initialized():
            return [value]
        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [int(size) for size in self.gather_tensors(torch.tensor([len(mine)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(mine)] = mine
        parts = self.gather_tensors(padded)
        return [json.loads(part[:size].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]


def _knock(address: str, port: int) -> None:
    """Connect and let go; OSError when nobody has answered for CONNECT_TIMEOUT."""
    deadline = time.monotonic() + CONNECT_TIMEOUT.total_seconds()
    while True:
        try:
            socket.create_connection((address, port), timeout=CONNECT_TIMEOUT.total_seconds()).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def find_runtime(local_rank: int | None = None, device: str = "auto") -> Runtime:
    """Read this process's place from the launcher's environment; no process group is joined.

    Args:
        local_rank: value of `--local-rank`/`--local_rank`; the environment's LOCAL_RANK wins where it is set.
        device: `auto` (CUDA where there is one), `cpu` or `cuda`.

    Raises:
        RuntimeError: CUDA asked for but absent, or fewer GPUs than processes on this machine.
        ValueError: an environment variable that is no sensible number, or an unknown device.
    """
    world_size = _from_environment("WORLD_SIZE", 1)
    local = _from_environment("LOCAL_RANK", local_rank or 0)
    rank = _from_environment("RANK", local if world_size > 1 else 0)
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK={rank} with WORLD_SIZE={world_size}: rank must lie in 0..{world_size - 1}")
    return Runtime(rank, world_size, local, _find_device(device, local))


def _find_device(device: str, local_rank: int) -> torch.device:
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {device!r}: choose auto, cpu or cuda")
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError("--device cuda: torch finds no CUDA device here; use --device cpu or auto")
    if local_rank >= torch.cuda.device_count():
        raise RuntimeError(
            f"local rank {local_rank} has no GPU: {torch.cuda.device_count()} here; start at most that many processes"
        )
    return torch.device("cuda", local_rank)


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ValueError(f"environment variable {name}={text!r} is no whole number")
    return int(text)
