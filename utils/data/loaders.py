"""Loaders that say so where a worker process stands still, instead of waiting for it for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from dataloaders.transforms import load_resizing

PATIENCE = 1800.0  # seconds for a batch; a slow disk is quicker, a network share that is gone or a stuck decoder is not


class StalledWorker(Exception):
    """No batch has come for a long time; the message says what to do."""


class Loader(DataLoader):
    """A DataLoader for training or evaluation.

    Iterating over it raises StalledWorker where its worker processes give no batch for `PATIENCE` seconds.

    Args:
        dataset, workers: what is read, and by how many processes; 0: by this one.
        choices: further arguments of DataLoader.
    """

    def __init__(self, dataset: Dataset, workers: int, **choices: Any) -> None:
        if workers:
            load_resizing()
        super().__init__(dataset, num_workers=workers, timeout=PATIENCE if workers else 0, **choices)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return _Batches(super().__iter__(), self.num_workers)


class _Batches:
    """The batches of one pass; its first ones are asked for when it is made, not when the first is read."""

    def __init__(self, batches: Iterator[Any], processes: int) -> None:
        self.batches, self._processes = batches, processes

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self.batches)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            raise StalledWorker(
                f"no batch has come from {self._processes} reading processes for {PATIENCE:.0f} s: look whether "
                "videos, object files and caches can still be read. The same command goes on from the last save; with "
                "--num_thread_reader 0 it reads without processes of their own"
            ) from error
