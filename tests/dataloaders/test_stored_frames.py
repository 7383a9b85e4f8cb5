"""The frame rule on the frames that a shard keeps."""

from __future__ import annotations

import numpy as np
import pytest

from dataloaders.frames import candidate_indices
from dataloaders.stored_clips import StoredClip
from dataloaders.stored_frames import stored_candidates


def stored(indices: list[int] | None, fps: float | None, count: int = 0, rate: float | None = None) -> StoredClip:
    frames = None if indices is None else np.array(indices)
    return StoredClip("place", count if indices is None else len(indices), 8, 8, 8, 8, fps, frames, rate, [])


@pytest.mark.parametrize("rate", [2, np.float32(0.3), 12])
def test_of_a_record_that_keeps_frames_by_time_every_so_many_are_taken(rate: float):
    """Whatever their numbers are: the rate of the video may vary."""
    clip = stored([0, 7, 7, 7, 9, 20, 30], fps=4, rate=float(rate))
    assert stored_candidates(clip, float(rate), "v").tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert stored_candidates(clip, float(rate) / 2, "v").tolist() == [0, 2, 4, 6]
    for other in (float(rate) * 2, float(rate) * 2 / 3):
        with pytest.raises(ValueError, match="the shard lacks frames for --feature_framerate"):
            stored_candidates(clip, other, "v")


def test_a_rate_whose_frames_are_among_the_stored_ones_may_be_taken():
    at_two = stored([0, 2, 4, 6, 8, 10], fps=4)
    assert stored_candidates(at_two, 2, "v").tolist() == [0, 1, 2, 3, 4, 5]
    assert stored_candidates(at_two, 1, "v").tolist() == [0, 2, 4]
    assert stored_candidates(at_two, 0.5, "v").tolist() == [0, 4]
    assert stored_candidates(stored(None, None, count=3), 5, "v").tolist() == [0, 1, 2], "released records do not say"


@pytest.mark.parametrize("fps", [7.5, 23.976, 29.97, 59.94])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_part_of_the_stored_rate_gives_the_frames_of_the_whole_video(fps: float, times: int):
    kept = candidate_indices(301, fps, float(times))
    positions = stored_candidates(stored(kept.tolist(), fps), 1, "v")
    assert kept[positions].tolist() == candidate_indices(301, fps, 1).tolist()


def test_a_rate_that_was_not_stored_is_an_error_naming_the_flag():
    for rate in (4, 3, 0.8):
        with pytest.raises(ValueError, match=f"v9: the shard lacks frames for --feature_framerate {rate:g}"):
            stored_candidates(stored([0, 2, 4, 6, 8, 10], fps=4), rate, "v9")


def test_frames_that_cannot_be_among_the_stored_ones_take_no_memory():
    with pytest.raises(ValueError, match="the shard lacks frames"):
        stored_candidates(stored([0, 2**30], fps=0.5), 1000, "v")
    assert stored_candidates(stored([0, 1, 2], fps=1), 2, "v").tolist() == [0, 0, 1, 2, 2, 2], (
        "a rate above the video's"
    )
