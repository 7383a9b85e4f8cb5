"""WebVid-like pre-training data: captioned clips in TFRecord shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.data import Dataset

from dataloaders.frames import pick_positions
from dataloaders.object_store import ObjectStore
from dataloaders.pretrain_index import PretrainIndex, PretrainItem
from dataloaders.samples import (
    ClipFrames,
    Replacements,
    Sample,
    SampleSettings,
    clip_part,
    tag_part,
    text_part,
    training_targets,
)
from dataloaders.stored_clips import MissingShard, ShardReader, StoredClip
from dataloaders.stored_frames import stored_candidates
from modules.random_streams import sample_key
from modules.tokenizer import ClipTokenizer


class WebVidPretrainDataset(Dataset[Sample]):
    """Samples of a prepared index (dataloaders/pretrain_index.py), addressed by (epoch, index).

    A record that cannot be read is replaced by the next sample of the index, and its id is listed in `skipped`.

    Args:
        index: the prepared samples.
        index_dir: folder of `path.index`.
        settings: how samples are made.
        objects: store of the clips' boxes; required if `settings.object_count` is not 0.
        frame_sizes: video id -> (width, height), for released shards.

    Raises:
        FileNotFoundError: shards are missing, each of which is many samples.
    """

    def __init__(
        self,
        index: PretrainIndex,
        index_dir: str | Path,
        settings: SampleSettings,
        objects: ObjectStore | None = None,
        frame_sizes: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        if settings.object_count and objects is None:
            raise ValueError("a model with objects needs their store")
        self.index, self.settings, self.objects = index, settings, objects
        self.frame_sizes = frame_sizes or {}
        self.shards = ShardReader(index_dir)
        self._check_shards()
        self.tokenizer = ClipTokenizer(settings.vocab_size)
        self.replacements = Replacements()

    def __len__(self) -> int:
        return len(self.index)

    def _check_shards(self) -> None:
        missing = {}
        for shard, samples in self.index.shard_samples().items():
            try:
                self.shards.locate(shard)
            except MissingShard as error:
                missing[str(error)] = samples
        if missing:
            raise FileNotFoundError(
                f"{sum(missing.values())} of {len(self)} samples are in {len(missing)} shards that are not there. Copy "
                f"them, or take their lines out of path.index. The first: {next(iter(missing))}"
            )

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        epoch, index = where
        key = sample_key(self.settings.seed, epoch, index)

        def make(attempt: int) -> Sample:
            item = self.index[(index + attempt) % len(self)]
            return {**self._sample(item, key), "index": index}

        return self.replacements.sample(len(self), make)

    def _sample(self, item: PretrainItem, key: int) -> Sample:
        clip = self.shards.read(item.shard_path, item.offset, item.video_id)
        rule = self.settings.frames
        wanted = stored_candidates(clip, rule.feature_framerate, item.video_id)
        picked = wanted[pick_positions(len(wanted), self.settings.max_frames, rule.slice_framepos)]
        frames = ClipFrames(
            clip.decode(picked),
            self._original_size(clip, item.video_id),
            (clip.stored_width, clip.stored_height),
            None if clip.frame_indices is None else clip.frame_indices[picked].tolist(),
        )
        record = self.objects.get(item.video_id) if self.objects else None
        words = self.settings.max_words
        text = text_part(item.token_ids, self.tokenizer, words)
        return {
            **clip_part(frames, record, self.settings, key, item.video_id),
            **text,
            **training_targets(int(text["text_mask"].sum()), self.settings, key),
            **tag_part(item.token_ids, item.is_noun, item.is_verb, self.tokenizer, words),
            "video_id": item.video_id,
        }

    def _original_size(self, clip: StoredClip, video_id: str) -> tuple[int, int] | None:
        if clip.width is not None and clip.height is not None:
            return clip.width, clip.height
        return self.frame_sizes.get(video_id)
