"""Samples to train captioning on."""

from __future__ import annotations

import torch

from dataloaders.retrieval import RetrievalTrainDataset
from dataloaders.samples import Sample


class CaptionTrainDataset(RetrievalTrainDataset):
    """Text-video pairs as for retrieval, in which every token behind the start token is predicted."""

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        return {**super().__getitem__(where), "plm_start": torch.tensor(1)}
