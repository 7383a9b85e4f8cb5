"""Order of samples: independent of the number of ranks, resumable, complete."""

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from utils.runtime.sampler import EvaluationSampler, GlobalBatchSampler


def global_batches(world_size, batch, **options):
    ranks = [list(GlobalBatchSampler(23, batch, rank, world_size, **options)) for rank in range(world_size)]
    return [sum(parts, []) for parts in zip(*ranks, strict=True)]


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    assert (
        global_batches(1, 8, seed=3, epoch=2)
        == global_batches(2, 4, seed=3, epoch=2)
        == global_batches(4, 2, seed=3, epoch=2)
    )


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [global_batches(1, 4, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    indices = [[i for batch in order for _, i in batch] for order in orders]
    assert indices[0] != indices[1] and indices[0] != indices[2] and indices[1] != indices[2]
    assert {epoch for batch in orders[1] for epoch, _ in batch} == {1}


def test_start_batch_continues_the_epoch():
    whole = list(GlobalBatchSampler(23, 4, seed=1))
    later = GlobalBatchSampler(23, 4, seed=1, start_batch=2)
    assert list(later) == whole[2:] and len(later) == 3
    later.set_position(0)
    assert list(later) == whole


def neighbours(order, size, epoch):
    """Batches of samples that stand beside each other in the data set."""
    return np.sort(order)


def test_batches_can_be_put_together_anew():
    together = {"seed": 3, "arrange": neighbours}
    one = global_batches(1, 4, **together)
    batches = [[index for _, index in batch] for batch in one]
    drawn = {index for batch in global_batches(1, 4, seed=3) for _, index in batch}
    assert sorted(batches) == np.array(sorted(drawn)).reshape(-1, 4).tolist(), "what is dropped is drawn before"
    assert batches != sorted(batches), "the order of batches is random"
    assert one == global_batches(2, 2, **together) and one != global_batches(1, 4, epoch=1, **together)
    assert one[2:] == global_batches(1, 4, start_batch=2, **together)
    rest = global_batches(1, 4, drop_last=False, **together)
    assert rest[:-1] == one and len(rest[-1]) == 3
    assert global_batches(1, 24, **together) == [] and len(global_batches(1, 24, drop_last=False, **together)) == 1


def test_who_puts_batches_together_is_told_their_size_and_epoch():
    told = []
    options = {"epoch": 3, "arrange": lambda order, size, epoch: told.append((len(order), size, epoch)) or order}
    drawn, kept = global_batches(2, 4, epoch=3), global_batches(2, 4, **options)
    assert set(told) == {(16, 8, 3)}
    assert sorted(kept) == sorted(drawn), "the same batches, in another order"


def test_rest_is_dropped_or_split_evenly():
    assert len(global_batches(2, 4, drop_last=True)) == 2
    with_rest = global_batches(2, 4, drop_last=False)
    assert [len(batch) for batch in with_rest] == [8, 8, 7]
    assert sorted(i for batch in with_rest for _, i in batch) == list(range(23))
    assert len(GlobalBatchSampler(9, 4, 0, 2, drop_last=False)) == 1  # one sample cannot feed two ranks


def test_position_beyond_the_epoch_is_an_error():
    with pytest.raises(ValueError, match="an epoch has 5 batches"):
        GlobalBatchSampler(23, 4, start_batch=6)


def test_evaluation_shards_cover_everything_once():
    shards = [list(EvaluationSampler(10, rank, 3)) for rank in range(3)]
    assert sum(shards, []) == [(0, i) for i in range(10)]
    assert sorted(len(shard) for shard in shards) == [3, 3, 4]
    assert list(EvaluationSampler(1, 0, 2)) == [] and list(EvaluationSampler(1, 1, 2)) == [(0, 0)]


class Echo(Dataset):
    def __len__(self):
        return 23

    def __getitem__(self, key):
        return key


def test_one_loader_with_persistent_workers_serves_all_epochs():
    sampler = GlobalBatchSampler(23, 4, seed=5)
    loader = DataLoader(Echo(), batch_sampler=sampler, num_workers=1, persistent_workers=True, collate_fn=list)
    for epoch, start in ((0, 0), (1, 3)):
        sampler.set_position(epoch, start)
        assert list(loader) == list(GlobalBatchSampler(23, 4, seed=5, epoch=epoch, start_batch=start))
