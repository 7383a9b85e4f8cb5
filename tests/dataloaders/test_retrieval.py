"""Test pairs with their clips; what cannot be read is marked, never passed off as a clip."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dataloaders.label_map import load_label_map
from dataloaders.msrvtt import TextVideoPair, read_test_pairs
from dataloaders.object_store import ObjectSettings, ObjectStore, build_object_store
from dataloaders.retrieval import RetrievalTestDataset
from dataloaders.samples import SampleSettings, collate
from dataloaders.video_files import find_videos
from tests.world import FRAMES, World

SETTINGS = SampleSettings(resolution=32, max_frames=FRAMES, max_words=24, object_count=4)


@pytest.fixture(scope="module")
def store(world: World) -> ObjectStore:
    objects = world.msrvtt / "objects"
    return ObjectStore(build_object_store(objects, load_label_map(world.label_map), ObjectSettings(4, frames=FRAMES)))


def test_pairs_with_clips_and_boxes(world: World, store: ObjectStore):
    pairs = read_test_pairs(world.msrvtt / "test.csv")
    videos, missing = find_videos(world.msrvtt / "videos", [pair.video_id for pair in pairs])
    assert not missing
    data = RetrievalTestDataset(pairs, videos, SETTINGS, store)
    assert len(data) == 8
    batch = collate([data[0, index] for index in range(3)])
    assert batch["video_id"] == ["video7010", "video7011", "video7012"] and batch["bad_video"] == [""] * 3
    assert data.tokenizer.decode(batch["text_ids"][1].tolist()) == pairs[1].caption.replace(",", " ,")
    assert batch["boxes"].shape == (3, FRAMES, 4, 4) and batch["video_mask"].all()
    assert torch.equal(data[0, 2]["video"], data[0, 2]["video"])


@pytest.mark.parametrize("object_count", [0, 4])
def test_an_unreadable_clip_is_marked_and_fits_into_a_batch(
    world: World, store: ObjectStore, tmp_path: Path, object_count: int
):
    (tmp_path / "cut.mp4").write_bytes((world.msrvtt / "videos/video7010.mp4").read_bytes()[:900])
    pairs = [TextVideoPair("cut", "a dog"), TextVideoPair("video7010", "a red star"), TextVideoPair("gone", "a cat")]
    videos = {pair.video_id: tmp_path / f"{pair.video_id}.mp4" for pair in pairs}
    videos["video7010"] = world.msrvtt / "videos/video7010.mp4"
    settings = SampleSettings(resolution=32, max_frames=FRAMES, max_words=24, object_count=object_count)
    data = RetrievalTestDataset(pairs, videos, settings, store if object_count else None)
    batch = collate([data[0, index] for index in range(3)])
    cut, fine, gone = batch["bad_video"]
    assert "cut.mp4" in cut and fine == "" and "gone.mp4: there is no such file" in gone
    assert batch["video_mask"].any(1).tolist() == [False, True, False]
    assert ("boxes" in batch) == bool(object_count)
