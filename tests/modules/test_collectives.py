"""Collectives of two processes, and of one, where they do nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from modules.collectives import gather, gather_constant, global_mean, local_mean, rank, world_size
from tests.processes import run_ranks


def weights(rank: int) -> torch.Tensor:
    """What a rank's loss multiplies the gathered rows (4, 2) by."""
    return torch.arange(8.0).view(4, 2) ** (rank + 1)


def main(argv: list[str]) -> None:
    """One of two ranks; writes what it finds to {rank}.json in the folder that argv names."""
    dist.init_process_group("gloo")
    own = rank()
    rows = (torch.tensor([[1.0, 2.0], [3.0, 4.0]]) + 10 * own).requires_grad_()
    gathered = gather(rows)
    (gathered * weights(own)).sum().backward()
    assert rows.grad is not None
    constant = gather_constant(rows)
    total = torch.tensor([6.0, 10.0][own], requires_grad=True)
    mean = global_mean(total, [3, 1][own])
    mean.backward()
    assert total.grad is not None
    found = {
        "place": [own, world_size()],
        "rows": gathered.tolist(),
        "gradient": rows.grad.tolist(),
        "constant": [constant.tolist(), constant.requires_grad],
        "booleans": gather_constant(torch.tensor([own == 1, False])).tolist(),
        "mean": [mean.item(), total.grad.item()],
        "one sided": global_mean(torch.tensor(4.0 * own), 2 * own).item(),
        "no terms": global_mean(torch.tensor(0.0), 0).item(),
        "kept": global_mean(torch.tensor([6.0, 10.0][own]), 4, torch.tensor([3, 1][own])).item(),
        "none kept": global_mean(torch.tensor(0.0), 4, torch.tensor(0)).item(),
    }
    Path(argv[0], f"{own}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(main, [str(folder)], folder / "logs", processes=2)
    return [json.loads((folder / f"{number}.json").read_bytes()) for number in range(2)]


def test_ranks_know_their_place(ranks: list[dict[str, Any]]):
    assert [found["place"] for found in ranks] == [[0, 2], [1, 2]]


def test_every_rank_gets_the_rows_of_all_in_the_order_of_ranks(ranks: list[dict[str, Any]]):
    for found in ranks:
        assert found["rows"] == [[1, 2], [3, 4], [11, 12], [13, 14]]
        assert found["constant"] == [found["rows"], False]
        assert found["booleans"] == [False, False, True, False]


def test_the_owner_of_rows_gets_the_gradients_of_all_ranks(ranks: list[dict[str, Any]]):
    both = weights(0) + weights(1)
    assert [found["gradient"] for found in ranks] == [both[:2].tolist(), both[2:].tolist()]


def test_the_mean_over_ranks_of_losses_and_gradients_is_that_over_all_terms(ranks: list[dict[str, Any]]):
    """Three terms that sum to 6 on one rank and one of 10 on the other."""
    assert sum(found["mean"][0] for found in ranks) / 2 == (6 + 10) / 4
    assert [found["mean"][1] / 2 for found in ranks] == [1 / 4, 1 / 4]
    assert sum(found["one sided"] for found in ranks) / 2 == 4 / 2
    assert [found["no terms"] for found in ranks] == [found["none kept"] for found in ranks] == [0, 0]
    assert [found["kept"] for found in ranks] == [found["mean"][0] for found in ranks]


def test_a_single_process_is_all_there_is():
    assert (rank(), world_size()) == (0, 1)
    rows = torch.ones(3, 2, requires_grad=True)
    assert gather(rows) is rows
    constant = gather_constant(rows)
    assert torch.equal(constant, rows) and not constant.requires_grad
    assert gather_constant(torch.tensor([True, False])).tolist() == [True, False]
    assert [global_mean(torch.tensor(6.0), count).item() for count in (1, 3)] == [6, 2]
    assert global_mean(torch.tensor(0.0), 0) == 0
    assert global_mean(torch.tensor(6.0), 4, torch.tensor(3)) == 2 and local_mean(torch.tensor(6.0), 3) == 2
    assert global_mean(torch.tensor(0.0), 4, torch.tensor(0)) == 0
    for count in range(1, 99):
        assert local_mean(torch.tensor(0.1), count, torch.tensor(count)) == local_mean(torch.tensor(0.1), count)
