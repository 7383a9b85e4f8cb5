"""One split of a captioned video data set, as the readers of annotation files return it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np


class TextVideoPair(NamedTuple):
    """A caption and the id of the video that it describes."""

    video_id: str
    caption: str


@dataclass(frozen=True)
class CaptionSplit:
    """V distinct videos and M captions.

    Attributes:
        video_ids: V ids, in the order of the split's list.
        captions: M captions; those of one video stand together, videos in the order of `video_ids`.
        caption_video: int64 (M,), index into `video_ids` of each caption's video.
        object_names: stem of the object file by video id, where it is not the id itself.
        files: path of the video below its folder, with or without extension, by video id, where ids are such paths
            without extension; else videos are found by their ids anywhere below the folder.
    """

    video_ids: list[str]
    captions: list[str]
    caption_video: np.ndarray
    object_names: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[TextVideoPair],
        video_ids: Iterable[str] = (),
        object_names: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> CaptionSplit:
        """Group pairs by video; videos in the order of `video_ids`, then of their first caption."""
        groups: dict[str, list[str]] = {video_id: [] for video_id in video_ids}
        for pair in pairs:
            groups.setdefault(pair.video_id, []).append(pair.caption)
        counts = [len(captions) for captions in groups.values()]
        return cls(
            list(groups),
            [caption for captions in groups.values() for caption in captions],
            np.repeat(np.arange(len(groups)), counts),
            object_names or {},
            files or {},
        )

    def only(self, kept: Iterable[str]) -> CaptionSplit:
        """The videos of the split that are in `kept`, with their captions."""
        wanted = set(kept)
        pairs = (pair for pair in self.pairs() if pair.video_id in wanted)
        return self._with(pairs, wanted)

    def without_empty_captions(self) -> CaptionSplit:
        """The split without captions that hold no word, and without videos that have no other."""
        pairs = [pair for pair in self.pairs() if pair.caption.strip()]
        captioned = {pair.video_id for pair in pairs}
        return self._with(pairs, captioned)

    def _with(self, pairs: Iterable[TextVideoPair], kept: Container[str]) -> CaptionSplit:
        video_ids = [video_id for video_id in self.video_ids if video_id in kept]
        return CaptionSplit.from_pairs(pairs, video_ids, self.object_names, self.files)

    def pairs(self) -> Iterator[TextVideoPair]:
        """Every caption with the id of its video."""
        for video, caption in zip(self.caption_video.tolist(), self.captions, strict=True):
            yield TextVideoPair(self.video_ids[video], caption)

    def by_video(self) -> dict[str, list[str]]:
        """Captions of every video."""
        captions: dict[str, list[str]] = {video_id: [] for video_id in self.video_ids}
        for pair in self.pairs():
            captions[pair.video_id].append(pair.caption)
        return captions

    @cached_property
    def captions_per_video(self) -> np.ndarray:
        """Number of captions of each video, int64 (V,)."""
        return np.bincount(self.caption_video, minlength=len(self.video_ids))
