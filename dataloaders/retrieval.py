"""Text-video pairs for retrieval evaluation, from video files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset

from dataloaders.frames import UnreadableVideo
from dataloaders.msrvtt import TextVideoPair
from dataloaders.object_store import ObjectStore
from dataloaders.samples import Sample, SampleSettings, clip_part, text_part
from dataloaders.video_files import read_frames
from modules.random_streams import sample_key
from modules.tokenizer import ClipTokenizer


class RetrievalTestDataset(Dataset[Sample]):
    """One caption and its clip per item, addressed by (0, index) as the samplers do.

    A clip that cannot be read has `bad_video` set to the reason and no valid frame.

    Args:
        pairs: the test list.
        videos: file of each video id.
        settings: how samples are made.
        objects: store of the clips' boxes; without it a model with objects sees none.
    """

    def __init__(
        self,
        pairs: Sequence[TextVideoPair],
        videos: Mapping[str, Path],
        settings: SampleSettings,
        objects: ObjectStore | None = None,
    ) -> None:
        self.pairs, self.videos, self.settings, self.objects = pairs, videos, settings, objects
        self.tokenizer = ClipTokenizer()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        _, index = where
        pair = self.pairs[index]
        return {
            **self._clip(pair.video_id, index),
            **text_part(self.tokenizer.encode(pair.caption), self.tokenizer, self.settings.max_words),
            "video_id": pair.video_id,
            "index": index,
        }

    def _clip(self, video_id: str, index: int) -> Sample:
        key = sample_key(self.settings.seed, 0, index)
        try:
            frames = read_frames(self.videos[video_id], self.settings)
        except UnreadableVideo as error:
            return {**self._no_clip(), "bad_video": str(error)}
        record = self.objects.get(video_id) if self.objects else None
        return {**clip_part(frames, record, self.settings, key, video_id), "bad_video": ""}

    def _no_clip(self) -> Sample:
        """Tensors of the right shapes in the place of a clip that is left out of the results."""
        frames, side, count = self.settings.max_frames, self.settings.resolution, self.settings.object_count
        part: Sample = {
            "video": torch.zeros(frames, 3, side, side, dtype=torch.uint8),
            "video_mask": torch.zeros(frames, dtype=torch.bool),
        }
        if count:
            part["boxes"] = torch.full((frames, count, 4), -1.0)
            part["box_trajectory"] = torch.zeros(frames, count, dtype=torch.int64)
            part["trajectory_ids"] = torch.zeros(2 * count, dtype=torch.int64)
        return part
