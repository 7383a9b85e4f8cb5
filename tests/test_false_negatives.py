"""Negatives of demo clips with 20 captions each: some false in released behaviour, none in intended."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.false_negatives import count_epoch, write_captions
from tests.world import Downstream


def test_over_an_epoch_no_drawn_negative_is_false(downstream: Downstream, tmp_path: Path):
    folder = tmp_path / "msrvtt"
    shutil.copytree(downstream.folder / "msrvtt", folder)
    write_captions(folder, 20)
    counts = count_epoch(folder, 16)
    for count in counts.values():
        assert (count.batches, count.missing) == (12 * 20 // 16, 0) and count.drawn == 2 * 16 * count.batches
        assert count.samples > 100, "of 240 that have another sample of their clip or their text in the batch"
    assert counts["released"].same_clip > 0 and counts["released"].same_text > 0
    assert counts["intended"].false == 0
