"""The frame rule on the frames that a shard keeps. Free of PyTorch, because checking shards is."""

from __future__ import annotations

import numpy as np

from dataloaders.decoders import Misfit
from dataloaders.frames import candidate_indices
from dataloaders.stored_clips import StoredClip

RATE_ROUNDING = 1e-6  # of a rate that is stored in single precision


class LacksFrames(Misfit):
    """A sound record without the frames that the frame rule asks for."""


def stored_candidates(clip: StoredClip, feature_framerate: float, video_id: str) -> np.ndarray:
    """Positions among a record's frames of those that the frame rule asks for: int64 (n,).

    A record keeps the frames of the rate that it was written with. Training may take that rate, or one whose frames are
    among them. Of a record of an earlier version, which kept frames by number, they are found by number. Released
    records do not say; theirs is one frame per second and all are taken.

    Raises:
        LacksFrames: the record lacks frames of this rate.
    """
    if clip.feature_framerate is not None:
        step = clip.feature_framerate / feature_framerate
        if round(step) < 1 or abs(step - round(step)) > RATE_ROUNDING * step:
            raise _lacks(video_id, feature_framerate)
        return np.arange(0, clip.num_frames, round(step))
    if clip.fps is None or clip.frame_indices is None:
        return np.arange(clip.num_frames)
    num_frames = int(clip.frame_indices[-1]) + 1
    # Before memory is taken: more distinct frames than there are.
    if min(num_frames, num_frames / clip.fps * feature_framerate) > clip.num_frames + 1:
        raise _lacks(video_id, feature_framerate)
    wanted = candidate_indices(num_frames, clip.fps, feature_framerate)
    positions = np.searchsorted(clip.frame_indices, wanted)
    if not np.array_equal(clip.frame_indices[positions], wanted):
        raise _lacks(video_id, feature_framerate)
    return positions


def _lacks(video_id: str, feature_framerate: float) -> LacksFrames:
    return LacksFrames(
        f"{video_id}: the shard lacks frames for --feature_framerate {feature_framerate:g}; "
        "use the rate that utils/webvid_to_tfrecord.py wrote it with, or write it again"
    )
