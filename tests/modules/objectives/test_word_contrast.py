"""The contrastive form of set matching against its formula as loops, and over two processes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from modules.collectives import rank
from modules.objectives.assignment import Pairs
from modules.objectives.word_contrast import SHARED_WORDS, TEMPERATURE, word_contrast
from tests.processes import run_ranks

# Of four captions: words, the end token last; two name a thing of the same token, one names nothing.
WORDS = [[1, 3, 5], [2, 4], [1, 2, 3, 4], [6]]
IDS = torch.tensor([[9, 7, 1, 7, 1, 8, 0], [9, 1, 5, 1, 8, 0, 0], [9, 7, 4, 5, 8, 0, 0], [9, 1, 1, 1, 1, 1, 8]])
PAIRS = Pairs([0, 0, 0, 1, 1, 1, 2, 2, 3], [0, 1, 2, 0, 1, 2, 0, 1, 0], [3, 5, 1, 4, 2, 4, 3, 1, 6])


def tokens_and_text() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 8, generator=generator), torch.randn(4, 7, 8, generator=generator)


def plain(tokens: Tensor, text: Tensor, idle_says_nothing: bool) -> tuple[Tensor, float]:
    """A loop over rows, and the sum of their weights."""

    def score(token: Tensor, word: Tensor) -> Tensor:
        return F.cosine_similarity(token, word, dim=0) / TEMPERATURE

    ends = [sample for sample, word in zip(PAIRS.sample, PAIRS.word, strict=True) if word == WORDS[sample][-1]]
    total, weights = torch.zeros(()), 0.0
    for sample, row, word in zip(*PAIRS, strict=True):
        token, is_idle = tokens[sample, row], word == WORDS[sample][-1]
        wrong = [(sample, position) for position in WORDS[sample] if IDS[sample, position] != IDS[sample, word]]
        for other in range(4):
            if other != sample and (idle_says_nothing or not is_idle):
                wrong += [(other, p) for p in WORDS[other][:-1] if IDS[other, p] != IDS[sample, word]]
        own = score(token, text[sample, word])
        scores = torch.stack([own, *(score(token, text[s, p]) for s, p in wrong)])
        # Rows without a word weigh no more together than the words of the caption, but for one.
        weight = min(1, max(1, len(WORDS[sample]) - 1) / ends.count(sample)) if is_idle else 1
        total, weights = total + (scores.logsumexp(0) - own) * weight, weights + weight
    return total, weights


@pytest.mark.parametrize("idle_says_nothing", [False, True])
def test_it_is_the_formula(idle_says_nothing: bool):
    tokens, text = tokens_and_text()
    mine, again = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    total, count = word_contrast(mine, text, IDS, WORDS, PAIRS, idle_says_nothing)
    expected, expected_count = plain(again, text, idle_says_nothing)
    assert count == pytest.approx(expected_count)
    torch.testing.assert_close(total, expected)
    total.backward(), expected.backward()
    torch.testing.assert_close(mine.grad, again.grad)


def test_it_is_single_precision_under_autocast():
    tokens, text = tokens_and_text()
    expected = word_contrast(tokens, text, IDS, WORDS, PAIRS, True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(word_contrast(tokens, text, IDS, WORDS, PAIRS, True)[0], expected[0])


def test_without_pairs_it_is_zero_with_a_gradient_path():
    tokens, text = tokens_and_text()
    total, count = word_contrast(tokens.requires_grad_(), text, IDS, WORDS, Pairs([], [], []), True)
    total.backward()
    assert total == 0 and count == 0 and tokens.grad is not None and not tokens.grad.any()


def test_a_right_token_is_cheap_and_one_at_another_word_is_dear():
    _, text = tokens_and_text()
    right, wrong = (text[:1, [word, word, word]] for word in (1, 5))
    ids, words, pairs = IDS[:1], WORDS[:1], Pairs([0], [0], [1])
    assert word_contrast(right, text[:1], ids, words, pairs, True)[0] < math.log(2)
    assert word_contrast(wrong, text[:1], ids, words, pairs, True)[0] > math.log(2)


def test_more_words_than_are_shared_count_within_their_caption():
    text = torch.eye(SHARED_WORDS + 4)[None]
    words, ids = [list(range(SHARED_WORDS + 4))], torch.arange(SHARED_WORDS + 4)[None]
    last = SHARED_WORDS + 2
    near, _ = word_contrast(text[:, [last]], text, ids, words, Pairs([0], [0], [last]), True)
    far, _ = word_contrast(text[:, [last]], text, ids, words, Pairs([0], [0], [0]), True)
    assert near < 0.1 and far > 10


def main(argv: list[str]) -> None:
    """One of two ranks with half of the clips each; writes its total, count and gradient to {rank}.json."""
    dist.init_process_group("gloo")
    own = slice(2 * rank(), 2 * rank() + 2)
    mine = [pair for pair in zip(*PAIRS, strict=True) if own.start <= pair[0] < own.stop]
    pairs = Pairs(*(list(part) for part in zip(*((s - own.start, r, w) for s, r, w in mine), strict=True)))
    tokens, text = (part[own] for part in tokens_and_text())
    total, count = word_contrast(tokens.requires_grad_(), text, IDS[own], WORDS[own], pairs, True)
    total.backward()
    found = [total.item(), count, tokens.grad.tolist()]
    Path(argv[0], f"{rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path):
    run_ranks(main, [str(tmp_path)], tmp_path / "logs", processes=2)
    first, second = (json.loads((tmp_path / f"{number}.json").read_bytes()) for number in range(2))
    tokens, text = tokens_and_text()
    total, count = word_contrast(tokens.requires_grad_(), text, IDS, WORDS, PAIRS, True)
    total.backward()
    assert first[0] + second[0] == pytest.approx(total.item()) and first[1] + second[1] == pytest.approx(count)
    torch.testing.assert_close(torch.tensor(first[2] + second[2]), tokens.grad)
