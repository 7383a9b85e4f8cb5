"""Samples of multiple choice: a clip and the captions to choose from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from dataloaders.multiple_choice import ChoiceItem
from dataloaders.retrieval import ClipReader, VideoDataset
from dataloaders.samples import Sample, collate
from modules.batch import Batch
from modules.tokenizer import ClipTokenizer


class ChoiceDataset(Dataset[Sample]):
    """One question per item, addressed by (0, index).

    An item is the clip as in `VideoDataset`, its K options as `option_ids` and `option_mask` (K, W), and `answer`.
    """

    def __init__(self, items: Sequence[ChoiceItem], reader: ClipReader) -> None:
        self.items, self.words = items, reader.settings.max_words
        self.clips = VideoDataset([item.video_id for item in items], reader)
        self.tokenizer = ClipTokenizer(reader.settings.vocab_size)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        item = self.items[where[1]]
        encoded = [self.tokenizer.to_tensor_ids(option, self.words) for option in item.options]
        return {
            **self.clips[where],
            "option_ids": torch.from_numpy(np.stack([ids for ids, _ in encoded])),
            "option_mask": torch.from_numpy(np.stack([mask for _, mask in encoded])),
            "answer": item.answer,
        }


def collate_choices(samples: Sequence[Sample]) -> Batch:
    """`collate`, with the options of all clips one after the other as the batch's texts: (B·K, W)."""
    texts = {
        "text_ids": torch.cat([sample["option_ids"] for sample in samples]),
        "text_mask": torch.cat([sample["option_mask"] for sample in samples]),
    }
    without = [{k: v for k, v in sample.items() if k not in ("option_ids", "option_mask")} for sample in samples]
    return collate(without, **texts)
