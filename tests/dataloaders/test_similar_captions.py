"""Batches of samples with similar captions: who stands beside whom, who never does, and that nobody is lost."""

from __future__ import annotations

import numpy as np
import pytest

from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.similar_captions import SimilarCaptions

KINDS = ("a red star spins", "two dogs run in the snow", "someone cuts an onion", "the band plays on a stage")


def split_of(*captions: list[str]) -> CaptionSplit:
    pairs = [TextVideoPair(f"clip{number}", text) for number, texts in enumerate(captions) for text in texts]
    return CaptionSplit.from_pairs(pairs)


def kinds(count: int) -> CaptionSplit:
    """Clip i is of kind i mod 4; no two share a caption."""
    return split_of(*([f"{KINDS[i % 4]}, take {i}", f"{i}: {KINDS[i % 4]}"] for i in range(count)))


def arranged(
    split: CaptionSplit, size: int, among: int = 1000, order: np.ndarray | None = None, group: int = 0
) -> list[list[int]]:
    videos = np.arange(len(split.video_ids))
    order = np.random.default_rng(0).permutation(len(videos)) if order is None else order
    batches = SimilarCaptions(split, videos, among, group)(order, size, 0)
    assert sorted(batches) == sorted(order) and batches.dtype == order.dtype, "each sample once"
    return batches.reshape(-1, size).tolist()


def test_clips_of_one_kind_stand_in_one_batch():
    assert all(len({clip % 4 for clip in batch}) == 1 for batch in arranged(kinds(40), 5))


def test_a_batch_begins_with_the_first_clip_that_is_left():
    assert arranged(kinds(12), 2, order=np.array([9, 4, 0, 1, 6, 2])) == [[9, 1], [4, 0], [6, 2]]


def test_a_batch_has_several_groups_of_one_kind():
    batches = arranged(kinds(40), 10, group=5)
    groups = [{clip % 4 for clip in batch[start : start + 5]} for batch in batches for start in (0, 5)]
    assert all(len(group) == 1 for group in groups)
    assert any(first != second for first, second in zip(groups[::2], groups[1::2], strict=True)), "drawn side by side"


def test_the_edge_of_a_batch_cuts_a_group():
    kinds_of = [[clip % 4 for clip in batch] for batch in arranged(kinds(24), 4, order=np.arange(24), group=3)]
    assert kinds_of == [[0, 0, 0, 1], [1, 1, 2, 2], [2, 3, 3, 3]] * 2


def test_the_first_epochs_can_stay_as_they_were_drawn():
    arrange, order = SimilarCaptions(kinds(40), np.arange(40), 1000, after=2), np.arange(40)
    drawn, similar = [[arrange(order, 5, epoch).tolist() for epoch in epochs] for epochs in ((0, 1), (2, 3))]
    assert all(batches == order.tolist() for batches in drawn)
    assert all(batches == sum(arranged(kinds(40), 5, order=order), []) for batches in similar)


def test_clips_that_share_a_caption_are_kept_apart():
    split = split_of(*([f"{KINDS[0]} {i}", "the same text" if i < 4 else f"text {i}"] for i in range(12)))
    assert [min(batch) for batch in arranged(split, 3, order=np.arange(12))] == [0, 1, 2, 3]


def test_where_all_share_a_caption_batches_are_filled_all_the_same():
    assert len(arranged(split_of(*([KINDS[0]] for _ in range(8))), 4)) == 2


def test_captions_of_one_clip_are_kept_apart():
    split = kinds(8)
    batches = SimilarCaptions(split, split.caption_video, 1000)(np.arange(16), 2, 0).reshape(-1, 2)
    clips = split.caption_video[batches]
    assert (clips[:, 0] != clips[:, 1]).all() and (clips[:, 0] % 4 == clips[:, 1] % 4).all()


@pytest.mark.parametrize(("among", "size"), [(8, 4), (11, 4), (1, 4)])
def test_batches_are_put_together_out_of_so_many(among: int, size: int):
    order = np.random.default_rng(1).permutation(24)
    part = max(among // size, 1) * size
    batches = np.concatenate(arranged(kinds(24), size, among, order))
    for start in range(0, 24, part):
        assert set(batches[start : start + part]) == set(order[start : start + part])


def test_captions_without_a_rare_word_are_no_error():
    assert len(arranged(split_of(*(["...", "the"] for _ in range(4))), 2)) == 2
    assert SimilarCaptions(kinds(4), np.arange(4), 8)(np.arange(0), 2, 0).tolist() == []


def test_words_count_by_how_rare_they_are():
    """The first clip shares three frequent words with the second and a rare one with the third."""
    texts = ["it is there zebra", "it is there dog", "zebra again", *(f"it is there {n}" for n in range(9))]
    assert arranged(split_of(*([text] for text in texts)), 2, order=np.array([0, 1, 2, 3]))[0] == [0, 2]
