"""The frame rule on the frames that a shard keeps. Free of PyTorch, because checking shards is."""

from __future__ import annotations

import numpy as np

from dataloaders.frames import candidate_indices
from dataloaders.tfrecord import StoredClip


def stored_candidates(clip: StoredClip, feature_framerate: float, video_id: str) -> np.ndarray:
    """Positions among a record's frames of those that the frame rule asks for: int64 (n,).

    A record keeps the frames of the rate that it was written with. Training may take that rate, or one whose frames are
    among them. Released records do not say; theirs is one frame per second and all are taken.

    Raises:
        ValueError: the record lacks frames of this rate.
    """
    if clip.fps is None or clip.frame_indices is None:
        return np.arange(clip.num_frames)
    wanted = candidate_indices(int(clip.frame_indices[-1]) + 1, clip.fps, feature_framerate)
    positions = np.searchsorted(clip.frame_indices, wanted)
    if not np.array_equal(clip.frame_indices[positions], wanted):
        raise ValueError(
            f"{video_id}: the shard lacks frames for --feature_framerate {feature_framerate:g}; "
            "use the rate that utils/webvid_to_tfrecord.py wrote it with, or write it again"
        )
    return positions
