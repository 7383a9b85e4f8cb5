"""Samples to train captioning on: those of retrieval, with every token predicted."""

from __future__ import annotations

import numpy as np
import torch

from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.captions import CaptionTrainDataset
from dataloaders.retrieval import ClipReader, RetrievalTrainDataset
from dataloaders.samples import ClipFrames, SampleSettings, collate

SPLIT = CaptionSplit.from_pairs([TextVideoPair("v1", "a dog"), TextVideoPair("v2", "two dogs are running")])


class GreyVideos:
    """A source of two grey frames, whatever the id is."""

    def read(self, video_id: str, settings: SampleSettings) -> ClipFrames:
        return ClipFrames([np.full((32, 32, 3), 90, dtype=np.uint8)] * 2, (32, 32), (32, 32))


def reader() -> ClipReader:
    return ClipReader(GreyVideos(), SampleSettings(resolution=32, max_frames=2, max_words=12))


def test_every_token_behind_the_start_token_is_a_target():
    data = CaptionTrainDataset(SPLIT, reader(), expand=True)
    batch = collate([data[0, index] for index in range(len(data))])
    assert batch["text_lengths"].tolist() == [4, 6]
    assert batch["plm_index"].tolist() == [0, 1, 2, 5, 6, 7, 8, 9]


def test_everything_else_is_as_for_retrieval():
    data, plain = (cls(SPLIT, reader(), expand=False) for cls in (CaptionTrainDataset, RetrievalTrainDataset))
    assert len(data) == len(plain) == 2
    for where in ((0, 0), (3, 1)):
        sample, expected = data[where], plain[where]
        assert sample.pop("plm_start") == 1 and sample.keys() == expected.keys()
        assert all(
            torch.equal(value, expected[name]) if torch.is_tensor(value) else value == expected[name]
            for name, value in sample.items()
        )
