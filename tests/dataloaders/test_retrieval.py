"""Clips of a captioned split, to train on and to score; what cannot be read is named, never passed off as a clip."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.decoders import UnreadableVideo
from dataloaders.label_map import load_label_map
from dataloaders.object_records import ObjectSettings
from dataloaders.object_store import ObjectStore, build_object_store
from dataloaders.retrieval import ClipReader, RetrievalTrainDataset, VideoDataset
from dataloaders.samples import SampleSettings, collate
from dataloaders.video_files import VideoFolder
from tests.world import FRAMES, World

SETTINGS = SampleSettings(resolution=32, max_frames=FRAMES, max_words=24, object_count=4)
IDS = [f"video{i}" for i in range(7010, 7014)]
CAPTIONS = {video_id: [f"{video_id} take {n}" for n in range(5)] for video_id in [*IDS, "cut", "gone"]}


@pytest.fixture(scope="module")
def store(world: World) -> ObjectStore:
    objects = world.msrvtt / "objects"
    return ObjectStore(build_object_store(objects, load_label_map(world.label_map), ObjectSettings(4, frames=FRAMES)))


@pytest.fixture
def videos(world: World, tmp_path: Path) -> VideoFolder:
    """Two clips that can be read, one that is cut off, and one without file."""
    for video_id in IDS[:2]:
        (tmp_path / f"{video_id}.mp4").symlink_to(world.msrvtt / f"videos/{video_id}.mp4")
    (tmp_path / "cut.mp4").write_bytes((world.msrvtt / f"videos/{IDS[0]}.mp4").read_bytes()[:900])
    found = VideoFolder(tmp_path, [*IDS[:2], "cut", "gone"])
    assert found.missing == ["gone"]
    return found


def split_of(*video_ids: str, captions: int = 5) -> CaptionSplit:
    pairs = [TextVideoPair(video_id, text) for video_id in video_ids for text in CAPTIONS[video_id][:captions]]
    return CaptionSplit.from_pairs(pairs)


def train_data(world: World, *video_ids: str, expand: bool, captions: int = 5) -> RetrievalTrainDataset:
    reader = ClipReader(VideoFolder(world.msrvtt / "videos", video_ids), SETTINGS)
    return RetrievalTrainDataset(split_of(*video_ids, captions=captions), reader, expand=expand)


def words_of(data: RetrievalTrainDataset, caption: str) -> str:
    """The caption as it comes back from its tokens."""
    return data.tokenizer.decode(data.tokenizer.to_tensor_ids(caption, SETTINGS.max_words)[0].tolist())


def test_clips_come_in_order_with_their_boxes(world: World, store: ObjectStore):
    reader = ClipReader(VideoFolder(world.msrvtt / "videos", IDS), SETTINGS, store)
    data = VideoDataset(IDS, reader)
    assert len(data) == 4
    batch = collate([data[0, index] for index in range(3)])
    assert batch["video_id"] == IDS[:3] and batch["bad_video"] == [""] * 3 and batch["index"] == [0, 1, 2]
    assert batch["boxes"].shape == (3, FRAMES, 4, 4) and batch["video_mask"].all()
    assert bool((batch["boxes"][..., 0] != -1).any())
    assert torch.equal(data[0, 2]["video"], data[0, 2]["video"])


def test_boxes_are_found_under_another_name(world: World, store: ObjectStore):
    videos = VideoFolder(world.msrvtt / "videos", IDS)
    plain = VideoDataset(IDS, ClipReader(videos, SETTINGS, store))
    renamed = VideoDataset(IDS, ClipReader(videos, SETTINGS, store, {IDS[0]: IDS[1]}))
    assert torch.equal(renamed[0, 0]["boxes"], plain[0, 1]["boxes"])
    assert not torch.equal(renamed[0, 0]["boxes"], plain[0, 0]["boxes"])
    assert torch.equal(renamed[0, 1]["boxes"], plain[0, 1]["boxes"])


@pytest.mark.parametrize("object_count", [0, 4])
def test_an_unreadable_clip_is_marked_and_fits_into_a_batch(videos: VideoFolder, store: ObjectStore, object_count: int):
    settings = SampleSettings(resolution=32, max_frames=FRAMES, max_words=24, object_count=object_count)
    data = VideoDataset(["cut", IDS[0], "gone"], ClipReader(videos, settings, store if object_count else None))
    batch = collate([data[0, index] for index in range(3)])
    cut, fine, gone = batch["bad_video"]
    assert "cut.mp4" in cut and fine == "" and "no video file of gone" in gone
    assert batch["video_mask"].any(1).tolist() == [False, True, False]
    assert ("boxes" in batch) == bool(object_count)


def test_one_item_per_caption_when_expanded_and_per_video_otherwise(world: World):
    expanded = train_data(world, *IDS, expand=True)
    assert len(expanded) == 20
    for index in (0, 4, 5, 19):
        sample = expanded[3, index]
        assert sample["video_id"] == IDS[index // 5] and sample["index"] == index and sample["skipped"] == []
        wanted = words_of(expanded, CAPTIONS[IDS[index // 5]][index % 5])
        assert expanded.tokenizer.decode(sample["text_ids"].tolist()) == wanted
    assert len(train_data(world, *IDS, expand=False)) == 4


def test_a_caption_of_the_video_is_drawn_anew_in_each_epoch(world: World):
    data = train_data(world, *IDS, expand=False)
    drawn = []
    for epoch in range(30):
        sample = data[epoch, 2]
        assert sample["video_id"] == IDS[2]
        drawn.append(data.tokenizer.decode(sample["text_ids"].tolist()))
        assert torch.equal(data[epoch, 2]["text_ids"], sample["text_ids"])
    assert set(drawn) == {words_of(data, caption) for caption in CAPTIONS[IDS[2]]}


def test_keys_differ_by_epoch_and_item(world: World):
    data = train_data(world, *IDS[:2], expand=True, captions=2)
    keys = [int(data[epoch, index]["random_keys"]) for epoch in range(2) for index in range(4)]
    assert len(set(keys)) == 8


@pytest.mark.parametrize("expand", [True, False])
def test_an_unreadable_clip_is_replaced_by_the_next_with_a_caption_of_that_one(videos: VideoFolder, expand: bool):
    order = ["cut", "gone", *IDS[:2]]
    data = RetrievalTrainDataset(split_of(*order), ClipReader(videos, SETTINGS), expand=expand)
    own = {words_of(data, caption) for caption in CAPTIONS[IDS[0]]}
    for index in (0, 4) if expand else (0,):
        sample = data[0, index]
        assert sample["video_id"] == IDS[0] and sample["index"] == index
        assert data.tokenizer.decode(sample["text_ids"].tolist()) in own
        first, second = sample["skipped"]
        assert "cut.mp4" in first and "no video file of gone" in second
    last = len(data) - 1
    assert data[0, last]["video_id"] == IDS[1] and data[0, last]["skipped"] == []


def test_no_readable_clip_is_an_error(videos: VideoFolder):
    data = RetrievalTrainDataset(split_of("cut", "gone"), ClipReader(videos, SETTINGS), expand=False)
    with pytest.raises(UnreadableVideo, match="2 clips in a row cannot be used, the last one: .*cut"):
        data[0, 1]
