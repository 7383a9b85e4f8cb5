"""Samples of captioned videos: text-video pairs to train on, and clips to be encoded once for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from dataloaders.caption_split import CaptionSplit
from dataloaders.decoders import UnusableClip
from dataloaders.object_records import ObjectRecord
from dataloaders.samples import Replacements, Sample, SampleSettings, clip_part, text_part
from dataloaders.similar_captions import SimilarCaptions
from dataloaders.video_files import VideoSource
from modules.random_streams import numpy_generator, sample_key
from modules.tokenizer import ClipTokenizer


class ObjectSource(Protocol):
    """A source of boxes by name: an `ObjectStore`, or `ObjectFiles`."""

    def get(self, video_id: str) -> ObjectRecord | None:
        """The objects of a clip; None when it has none."""


class ClipReader:
    """Frames and boxes of videos by id.

    Args:
        videos: where the videos are.
        settings: how samples are made.
        objects: of the clips' boxes; without it a model with objects sees none.
        object_names: name in the store by video id, where it is not the id.
    """

    def __init__(
        self,
        videos: VideoSource,
        settings: SampleSettings,
        objects: ObjectSource | None = None,
        object_names: Mapping[str, str] | None = None,
    ) -> None:
        self.videos, self.settings, self.objects = videos, settings, objects
        self.object_names = object_names or {}

    def read(self, video_id: str, key: int) -> Sample:
        """`video`, `video_mask` and boxes of a clip.

        Raises:
            UnusableClip: no frame can be had from it, or its boxes are of other frames.
        """
        frames = self.videos.read(video_id, self.settings)
        return clip_part(frames, self.record(video_id), self.settings, key, video_id)

    def record(self, video_id: str) -> ObjectRecord | None:
        """The objects of a clip; None when it has none."""
        return self.objects.get(self.object_names.get(video_id, video_id)) if self.objects else None

    def blank(self) -> Sample:
        """Tensors of the right shapes, without a valid frame, in place of a clip that cannot be read."""
        frames, side, count = self.settings.max_frames, self.settings.resolution, self.settings.object_count
        part: Sample = {
            "video": torch.zeros(frames, 3, side, side, dtype=torch.uint8),
            "video_mask": torch.zeros(frames, dtype=torch.bool),
            "notes": [],
        }
        if count:
            part["boxes"] = torch.full((frames, count, 4), -1.0)
            part["box_trajectory"] = torch.zeros(frames, count, dtype=torch.int64)
            part["trajectory_ids"] = torch.zeros(2 * count, dtype=torch.int64)
        return part


class VideoDataset(Dataset[Sample]):
    """One clip per item, addressed by (0, index) as the samplers do.

    A clip that cannot be read has `bad_video` set to the reason and no valid frame.
    """

    def __init__(self, video_ids: Sequence[str], reader: ClipReader) -> None:
        self.video_ids, self.reader = video_ids, reader

    def __len__(self) -> int:
        return len(self.video_ids)

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        _, index = where
        video_id = self.video_ids[index]
        key = sample_key(self.reader.settings.seed, 0, index)
        try:
            return {**self.reader.read(video_id, key), "bad_video": "", "video_id": video_id, "index": index}
        except UnusableClip as error:
            return {**self.reader.blank(), "bad_video": str(error), "video_id": video_id, "index": index}


class RetrievalTrainDataset(Dataset[Sample]):
    """Text-video pairs, addressed by (epoch, index).

    A clip that cannot be read is replaced by the next one, with a caption drawn at random, and listed in `skipped`.

    Args:
        split: videos with their captions; every video has at least one.
        reader: of the videos.
        expand: one item per caption; else one per video, with a caption drawn anew in each epoch.
        similar_among: samples out of which batches with similar captions are put together; 0: batches are drawn.
        similar_group: samples of a batch that are similar to each other; 0: all.
        similar_after: epochs of drawn batches that come before.

    Attributes:
        arrange: puts batches together, for the sampler; None where they are drawn.
    """

    def __init__(
        self,
        split: CaptionSplit,
        reader: ClipReader,
        *,
        expand: bool,
        similar_among: int = 0,
        similar_group: int = 0,
        similar_after: int = 0,
    ) -> None:
        self.split, self.reader, self.expand = split, reader, expand
        self.first_caption = split.captions_per_video.cumsum() - split.captions_per_video
        self.tokenizer = ClipTokenizer(reader.settings.vocab_size)
        self.replacements = Replacements()
        videos = split.caption_video if expand else np.arange(len(split.video_ids))
        similar = SimilarCaptions(split, videos, similar_among, similar_group, similar_after) if similar_among else None
        self.arrange = similar

    def __len__(self) -> int:
        return len(self.split.captions if self.expand else self.split.video_ids)

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        epoch, index = where
        key = sample_key(self.reader.settings.seed, epoch, index)
        first = int(self.split.caption_video[index]) if self.expand else index
        count = len(self.split.video_ids)

        def make(attempt: int) -> Sample:
            video = (first + attempt) % count
            caption = index if self.expand and not attempt else self._draw_caption(video, key)
            return {**self._sample(video, caption, key), "index": index}

        return self.replacements.sample(count, make)

    def _draw_caption(self, video: int, key: int) -> int:
        draw = numpy_generator(key, "caption").integers(self.split.captions_per_video[video])
        return int(self.first_caption[video] + draw)

    def _sample(self, video: int, caption: int, key: int) -> Sample:
        video_id = self.split.video_ids[video]
        words = self.reader.settings.max_words
        return {
            **self.reader.read(video_id, key),
            **text_part(self.tokenizer.encode(self.split.captions[caption]), self.tokenizer, words),
            "random_keys": torch.tensor(key),
            "video_id": video_id,
        }
