"""Samplers: which samples a rank reads, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

Index = tuple[int, int]  # (epoch, sample index): a dataset item's randomness depends on both
# (samples, size of a global batch, epoch): the same samples, put together to batches of that size anew
Arrange = Callable[[np.ndarray, int, int], np.ndarray]


class GlobalBatchSampler(Sampler[list[Index]]):
    """Batches of (epoch, index) for one rank; global batch i is the same however many ranks share it.

    A permutation of the data set, a function of (seed, epoch) alone, is cut into global batches of
    `batch_size_per_rank * world_size`; rank r takes the r-th contiguous part of each. Give it to a DataLoader as
    `batch_sampler`; `set_position` moves it, so that one loader with persistent workers serves all epochs.

    Args:
        length: samples in the data set.
        batch_size_per_rank: samples of one rank in one batch.
        rank, world_size: this process among all.
        seed, epoch: what the permutation depends on.
        start_batch: batches of the epoch that are left out because they are done (exact resume).
        shuffle: False reads in order.
        drop_last: False adds the rest, split as evenly as it goes, if every rank gets at least one sample of it.
        arrange: which samples of the permutation stand in one batch; the order of batches stays random. What does not
            fill a batch is drawn before.

    Raises:
        ValueError: sizes out of range.
    """

    def __init__(
        self,
        length: int,
        batch_size_per_rank: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        epoch: int = 0,
        start_batch: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        arrange: Arrange | None = None,
    ) -> None:
        if length < 0 or batch_size_per_rank < 1 or not 0 <= rank < world_size:
            raise ValueError(f"sampler: out of range among {length=} {batch_size_per_rank=} {rank=} {world_size=}")
        self.length = length
        self.batch_size = batch_size_per_rank
        self.rank, self.world_size = rank, world_size
        self.seed, self.shuffle, self.drop_last, self.arrange = seed, shuffle, drop_last, arrange
        self.set_position(epoch, start_batch)

    def set_position(self, epoch: int, start_batch: int = 0) -> None:
        """Go to batch `start_batch` of `epoch`; takes effect with the next iteration.

        Raises:
            ValueError: the epoch has no such batch.
        """
        if not 0 <= start_batch <= self.batches_per_epoch:
            raise ValueError(f"batch {start_batch} of epoch {epoch}: an epoch has {self.batches_per_epoch} batches")
        self.epoch, self.start_batch = epoch, start_batch

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch, equal on all ranks."""
        whole, rest = divmod(self.length, self.batch_size * self.world_size)
        return whole + (not self.drop_last and rest >= self.world_size)

    def __len__(self) -> int:
        return self.batches_per_epoch - self.start_batch

    def __iter__(self) -> Iterator[list[Index]]:
        epoch, batch, order = self.epoch, self.batch_size, self._order()
        whole = self.length // (batch * self.world_size)
        for step in range(self.start_batch, self.batches_per_epoch):
            first = step * batch * self.world_size
            if step < whole:
                mine = order[first + self.rank * batch :][:batch]
            else:
                mine = np.array_split(order[first:], self.world_size)[self.rank]
            yield [(epoch, int(index)) for index in mine]

    def _order(self) -> np.ndarray:
        """The samples of the epoch: global batch after global batch, then the rest."""
        order = np.arange(self.length, dtype=np.int32 if self.length < 2**31 else np.int64)
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.shuffle:
            generator.shuffle(order)
        size = self.batch_size * self.world_size
        if self.arrange and len(order) >= size:
            whole = order[: len(order) // size * size]
            batches = self.arrange(whole, size, self.epoch).reshape(-1, size)
            if self.shuffle:
                generator.shuffle(batches)
            whole[:] = batches.ravel()
        return order


class EvaluationSampler(Sampler[Index]):
    """(0, index) for one rank's contiguous part of the data, in order: no sample twice, parts differ by one at most."""

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        if length < 0 or not 0 <= rank < world_size:
            raise ValueError(f"sampler: out of range among {length=} {rank=} {world_size=}")
        self.indices = range(length * rank // world_size, length * (rank + 1) // world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Index]:
        return ((0, index) for index in self.indices)
