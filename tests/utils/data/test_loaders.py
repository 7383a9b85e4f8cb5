"""A loader whose worker stands still ends with an error, and one whose worker fails with its own."""

from __future__ import annotations

import threading

import pytest
from torch.utils.data import Dataset

from utils.data import loaders
from utils.data.loaders import Loader, StalledWorker


class Numbers(Dataset):
    """Its item 3 never comes, and its item 5 fails."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        if index == 3:
            threading.Event().wait()
        if index == 5:
            raise RuntimeError("no such number")
        return index


def read(workers: int, order: list[int]) -> list[int]:
    return list(Loader(Numbers(), workers, sampler=order, batch_size=None))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_it_gives_what_the_dataset_has(workers: int):
    assert read(workers, [4, 0, 2]) == [4, 0, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_resizes_frames_is_loaded_before_workers_are_forked(workers: int, monkeypatch: pytest.MonkeyPatch):
    loaded: list[bool] = []
    monkeypatch.setattr(loaders, "load_resizing", lambda: loaded.append(True))
    assert read(workers, [1, 2]) == [1, 2]
    assert bool(loaded) == bool(workers)


def test_a_worker_that_stands_still_is_an_error_that_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loaders, "PATIENCE", 0.5)
    with pytest.raises(StalledWorker, match=r"from 1 reading processes .* goes on from .*--num_thread_reader 0"):
        read(1, [0, 3])


@pytest.mark.parametrize("workers", [0, 1])
def test_another_error_stays_what_it_is(workers: int):
    with pytest.raises(RuntimeError, match="no such number"):
        read(workers, [1, 5])
