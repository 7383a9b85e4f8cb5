"""Clips with the captions to choose from, and their batch."""

from __future__ import annotations

from pathlib import Path

import torch

from dataloaders.choices import ChoiceDataset, collate_choices
from dataloaders.multiple_choice import ChoiceItem
from dataloaders.retrieval import ClipReader
from dataloaders.samples import SampleSettings
from dataloaders.video_files import VideoFolder
from tests.world import FRAMES, World

ITEMS = [
    ChoiceItem("video7011", ["a dog", "a cat on a red mat", "two stars"], 2, "q1"),
    ChoiceItem("gone", ["x", "y", "z"], 0, "q2"),
    ChoiceItem("video7011", ["a b c d e f g h i j k l m n", "", "q"], 1, "q3"),
]


def test_options_of_all_clips_are_the_texts_of_the_batch(world: World, tmp_path: Path):
    videos = VideoFolder(world.msrvtt / "videos", ["video7011", "gone"])
    data = ChoiceDataset(ITEMS, ClipReader(videos, SampleSettings(32, FRAMES, max_words=10)))
    assert len(data) == 3
    batch = collate_choices([data[0, index] for index in range(3)])
    assert batch["video"].shape == (3, FRAMES, 3, 32, 32) and batch["answer"] == [2, 0, 1]
    assert batch["text_ids"].shape == (9, 10) and batch["text_lengths"].tolist() == [4, 8, 4, 3, 3, 3, 10, 2, 3]
    decoded = [data.tokenizer.decode(row.tolist()) for row in batch["text_ids"]]
    assert decoded[:3] == ITEMS[0].options and decoded[6] == "a b c d e f g h"
    assert batch["video_id"] == ["video7011", "gone", "video7011"]
    assert [bool(reason) for reason in batch["bad_video"]] == [False, True, False]
    assert torch.equal(batch["video"][0], batch["video"][2]) and not batch["video_mask"][1].any()
