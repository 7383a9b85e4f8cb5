"""Search over token sequences, with a toy language model whose best sequences can be listed."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from modules.beam_search import SearchSettings, search

VOCABULARY, START, END = 4, 2, 3
CPU = torch.device("cpu")


class Toy:
    """Random log-probabilities of the next token given clip and all tokens before; keeps what each beam has seen."""

    def __init__(self, clips: list[int], beams: int, *, sharp: float = 2.0, late: float = 0.0) -> None:
        self.clips, self.sharp, self.late, self.steps = clips, sharp, late, 0
        self.seen = torch.empty(len(clips), beams, 0, dtype=torch.int64)

    def following(self, clip: int, tokens: tuple[int, ...]) -> Tensor:
        draw = torch.Generator().manual_seed(hash((clip, tokens)) % 2**31)
        logits = self.sharp * torch.randn(VOCABULARY, generator=draw)
        logits[END] -= self.late
        return logits.log_softmax(-1)

    def advance(self, tokens: Tensor) -> Tensor:
        self.steps += 1
        self.seen = torch.cat([self.seen, tokens[..., None]], dim=-1)
        return torch.stack(
            [
                torch.stack([self.following(clip, tuple(row)) for row in rows.tolist()])
                for clip, rows in zip(self.clips, self.seen, strict=True)
            ]
        )

    def reorder(self, source: Tensor) -> None:
        self.seen = self.seen.gather(1, source[..., None].expand_as(self.seen))


def run(clips: list[int], settings: SearchSettings, **choices: float) -> tuple[list[tuple[int, ...]], list[float]]:
    """Sequences up to and including the end token, and scores."""
    found = search(Toy(clips, settings.beam_size, **choices), len(clips), START, END, settings, CPU)
    rows = []
    for tokens in found.tokens.tolist():
        rows.append(tuple(tokens[: tokens.index(END) + 1] if END in tokens else tokens))
        assert set(tokens[len(rows[-1]) :]) <= {END}
    return rows, found.score.tolist()


def log_probability(toy: Toy, clip: int, tokens: tuple[int, ...]) -> float:
    context = (START, *tokens)
    return sum(float(toy.following(clip, context[: i + 1])[token]) for i, token in enumerate(tokens))


def all_sequences(length: int) -> list[tuple[int, ...]]:
    """Every sequence that ends with END, and every one of full length without."""
    inner = [token for token in range(VOCABULARY) if token != END]
    ended = [(*words, END) for n in range(length) for words in itertools.product(inner, repeat=n)]
    return ended + list(itertools.product(inner, repeat=length))


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.5])
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all_sequences(penalty: float):
    length, clips = 4, [0, 1, 2, 3, 4]
    everything = all_sequences(length)
    settings = SearchSettings(beam_size=len(everything), max_tokens=length, length_penalty=penalty)
    rows, scores = run(clips, settings)
    toy = Toy(clips, 1)
    for clip, row, score in zip(clips, rows, scores, strict=True):
        expected = {words: log_probability(toy, clip, words) / len(words) ** penalty for words in everything}
        assert row == max(expected, key=expected.__getitem__)
        assert score == pytest.approx(expected[row], rel=1e-4)
    assert len(set(map(len, rows))) > 1


@pytest.mark.parametrize("sharp", [0.5, 2.0])
def test_one_beam_takes_the_most_likely_token_in_every_step(sharp: float):
    clips, toy = list(range(8)), Toy([0], 1, sharp=sharp)
    rows, scores = run(clips, SearchSettings(max_tokens=6), sharp=sharp)
    for clip, row, score in zip(clips, rows, scores, strict=True):
        greedy: tuple[int, ...] = ()
        while len(greedy) < 6 and END not in greedy:
            greedy += (int(toy.following(clip, (START, *greedy)).argmax()),)
        assert row == greedy
        assert score == pytest.approx(log_probability(toy, clip, greedy), rel=1e-4)


@pytest.mark.parametrize("settings", [SearchSettings(1), SearchSettings(3), SearchSettings(5, 9, 1.0, 2)], ids=str)
def test_a_clip_has_the_same_result_in_any_batch(settings: SearchSettings):
    clips = list(range(12))
    together = run(clips, settings)
    alone = [run([clip], settings) for clip in clips]
    assert together[0] == [rows[0] for rows, _ in alone]
    assert together[1] == pytest.approx([scores[0] for _, scores in alone])


def test_a_wider_beam_never_scores_lower_here():
    scores = [sum(run(list(range(20)), SearchSettings(beams, 6))[1]) for beams in (1, 2, 4, 100)]
    assert scores == sorted(scores) and scores[0] < scores[-1]


def test_the_search_stops_when_every_clip_has_its_hypotheses():
    toy = Toy([0, 1], 1)
    toy.following = lambda clip, tokens: torch.tensor([0.1, 0.0, 0.0, 9.0 if len(tokens) > clip + 2 else -9.0])
    search(toy, 2, START, END, SearchSettings(max_tokens=30), CPU)
    assert toy.steps == 4


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("beams", [1, 3])
def test_no_sequence_of_the_given_size_comes_twice(size: int, beams: int):
    def repeats(rule: int) -> int:
        rows, _ = run(list(range(10)), SearchSettings(beams, 12, no_repeat_ngram=rule), late=8.0)
        words = [row[:-1] if row[-1] == END else row for row in rows]
        grams = [[row[i : i + size] for i in range(len(row) - size + 1)] for row in words]
        return sum(len(found) - len(set(found)) for found in grams)

    assert repeats(size) == 0 < repeats(0)


def test_a_sequence_that_may_not_go_on_ends_the_hypothesis():
    """With every word used up only the end token is left."""
    rows, scores = run([0, 1, 2], SearchSettings(1, 10, no_repeat_ngram=1))
    assert all(len(row) <= VOCABULARY and row[-1] == END for row in rows) and all(
        score > float("-inf") for score in scores
    )
