import torch

from modules.random_streams import keep_mask, numpy_generator, sample_key, splitmix64, uniform

KEYS = torch.tensor([sample_key(0, 0, i) for i in range(2000)])


def test_a_sample_draws_the_same_wherever_it_stands():
    alone = uniform(KEYS[7:8], "mlm", 50)
    assert torch.equal(uniform(KEYS, "mlm", 50)[7], alone[0])
    assert torch.equal(uniform(KEYS[:9].flip(0), "mlm", 50)[1], alone[0])


def test_streams_epochs_and_samples_differ():
    assert not torch.equal(uniform(KEYS[:3], "a", 9), uniform(KEYS[:3], "b", 9))
    assert len({sample_key(s, e, i) for s in range(5) for e in range(5) for i in range(40)}) == 1000
    assert numpy_generator(5, "a").random() != numpy_generator(5, "b").random()
    assert numpy_generator(5, "a").random() == numpy_generator(5, "a").random()


def test_draws_are_uniform_and_uncorrelated():
    x = uniform(KEYS, "test", 500)
    assert x.min() >= 0 and x.max() < 1
    assert abs(x.mean() - 0.5) < 2e-3 and abs(x.var() - 1 / 12) < 1e-3
    centred = x - 0.5
    assert (centred[:, 1:] * centred[:, :-1]).mean().abs() < 1e-3  # between neighbouring numbers of a sample
    assert (centred[1:] * centred[:-1]).mean().abs() < 1e-3  # between neighbouring samples
    assert x.histc(64, 0, 1).std() / (x.numel() / 64) < 0.02


def test_keep_mask_scales_what_it_keeps():
    mask = keep_mask(KEYS, "drop", (3, 50), 0.25)
    assert mask.shape == (2000, 3, 50)
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(mask.mean() - 1) < 0.01


def test_splitmix64_gives_its_published_numbers_and_those_of_keys():
    """The first outputs of the reference code with seed 0; its states are multiples of one number."""
    states = torch.arange(3) * (0x9E3779B97F4A7C15 - 2**64)
    assert [value % 2**64 for value in splitmix64(states).tolist()] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    key = 0
    for part in (42, 3, -7):
        key = int(splitmix64(torch.tensor(key ^ part)))
    assert (key % 2**64) >> 1 == sample_key(42, 3, -7)
