"""Pre-training samples from shards, against the very same clips as video files and against what was drawn."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloaders.datasets.webvid import WebVidPretrainDataset
from dataloaders.decoders import Misfit
from dataloaders.frames import read_clip
from dataloaders.label_map import load_label_map
from dataloaders.object_records import ObjectRecord, ObjectSettings
from dataloaders.object_store import ObjectStore, build_object_store
from dataloaders.pretrain_index import PretrainIndex, prepare_pretrain_index
from dataloaders.samples import SampleSettings, clip_part
from dataloaders.stored_clips import ShardReader, StoredClip
from dataloaders.tfrecord import DamagedRecord
from dataloaders.video_files import read_frames
from modules.boxes import map_boxes_to_crop
from tests.world import FRAMES, WITHOUT_OBJECT_FILE, WITHOUT_OBJECTS, World
from utils.demo.world import COLORS

SETTINGS = SampleSettings(resolution=32, max_frames=FRAMES, max_words=24, object_count=4)


@pytest.fixture(scope="module")
def store(world: World) -> ObjectStore:
    objects = world.webvid / "objects"
    return ObjectStore(build_object_store(objects, load_label_map(world.label_map), ObjectSettings(4, frames=FRAMES)))


def dataset(shards: Path, store: ObjectStore | None = None, **changes) -> WebVidPretrainDataset:
    settings = dataclasses.replace(SETTINGS, object_count=4 if store else 0, **changes)
    index = PretrainIndex(prepare_pretrain_index(shards / "frozen_train_labels.json", shards))
    return WebVidPretrainDataset(index, shards, settings, store)


def test_samples_are_whole_and_depend_on_epoch_and_index_only(world: World, store: ObjectStore):
    data = dataset(world.shards, store)
    captions = {row["video_id"]: row["caption"] for row in json.loads(world.labels.read_bytes())}
    assert len(data) == len(captions) == 24
    sample = data[0, 5]
    assert sample["index"] == 5 and sample["skipped"] == []
    words = data.tokenizer.decode(sample["text_ids"].tolist())
    assert words == captions[sample["video_id"]].replace(",", " ,")
    assert (
        sample["noun_mask"].any()
        and sample["verb_mask"].any()
        and not (sample["verb_mask"] & ~sample["text_mask"]).any()
    )
    again, later = dataset(world.shards, store)[0, 5], data[1, 5]
    assert all(torch.equal(value, again[name]) for name, value in sample.items() if torch.is_tensor(value))
    assert sample["random_keys"] != later["random_keys"] and torch.equal(sample["video"], later["video"])


def test_clips_without_objects_have_none(world: World, store: ObjectStore):
    data = dataset(world.shards, store)
    for index in range(len(data)):
        sample = data[0, index]
        is_without = sample["video_id"] in (*WITHOUT_OBJECTS, *WITHOUT_OBJECT_FILE)
        assert bool((sample["boxes"] != -1).any()) != is_without
        assert bool(sample["trajectory_ids"].any()) != is_without


def test_a_model_with_objects_needs_their_store(world: World):
    with pytest.raises(ValueError, match="needs their store"):
        WebVidPretrainDataset(dataset(world.shards).index, world.shards, SETTINGS, None)


def test_shards_and_video_files_give_the_same_clip(world: World, store: ObjectStore):
    data = dataset(world.shards, store)
    for index in range(0, len(data), 5):
        item = data.index[index]
        direct = read_clip(world.video(item.video_id), FRAMES)
        record = data.shards.read(item.shard_path, item.offset, item.video_id)
        assert record.frame_indices is not None
        assert set(direct.frame_indices) <= set(record.frame_indices.tolist())
        assert direct.frame_indices.tolist() == world.truth()[item.video_id]["frame_indices"]
        clip = read_frames(world.video(item.video_id), data.settings)
        expected = clip_part(clip, store.get(item.video_id), data.settings, 0, item.video_id)
        sample = data[0, index]
        difference = (sample["video"].float() - expected["video"].float()).abs()
        assert difference.mean() < 3, "only JPEG's loss"
        assert torch.equal(sample["boxes"], expected["boxes"])
        assert torch.equal(sample["trajectory_ids"], expected["trajectory_ids"])


def test_boxes_of_other_frames_than_the_shard_keeps_are_refused(world: World, store: ObjectStore):
    data = dataset(world.shards, store)
    clip = data[0, 5]["video_id"]
    record = store.get(clip)
    kept = np.array(world.truth()[clip]["frame_indices"])

    class Detected:
        def __init__(self, indices: np.ndarray) -> None:
            self.indices = indices

        def get(self, video_id: str) -> ObjectRecord | None:
            return record and record._replace(frame_indices=self.indices)

    data.objects = Detected(kept)
    assert data[0, 5]["video_id"] == clip
    data.objects = Detected(kept + 1)
    message = r"24 clips in a row cannot be used, the last one: \d+: its object file is of the frames .*extract_objects"
    with pytest.raises(Misfit, match=message):
        data[0, 5]


@pytest.mark.parametrize("source", ["files", "shards"])
def test_mapped_boxes_lie_on_the_things_they_are_of(world: World, source: str):
    """The true boxes, mapped as the loaders map them, hold the thing's colour, and a shifted box much less of it."""
    data = dataset(world.shards, resolution=64)
    right, shifted = [], []
    for index in range(len(data)):
        item = data.index[index]
        truth = world.truth()[item.video_id]
        video = data[0, index]["video"]
        if source == "files":
            clip = read_frames(world.video(item.video_id), data.settings)
            video = clip_part(clip, None, data.settings, 0, item.video_id)["video"]
        for number, thing in enumerate(truth["objects"]):
            if thing["motion"] == "blinking":  # has its colour half of the time
                continue
            boxes = np.array([frame[number] or [-1] * 4 for frame in truth["boxes"]], dtype=np.float32)
            mapped = map_boxes_to_crop(boxes, tuple(truth["size"]), tuple(truth["size"]), 64)
            for frame, box in zip(video, mapped, strict=True):
                if box[0] != -1 and min(box[2] - box[0], box[3] - box[1]) >= 8:
                    right.append(_colour_share(frame, box, COLORS[thing["color"]]))
                    shifted.append(_colour_share(frame, (box + 32) % 48, COLORS[thing["color"]]))
    assert len(right) > 200
    assert np.mean(right) > 0.3 and np.mean(shifted) < 0.02 * np.mean(right)
    assert np.mean(np.array(right) > 0.03) > 0.97  # faces leave some things little of their colour


def _colour_share(frame: torch.Tensor, box: np.ndarray, colour: tuple[int, int, int]) -> float:
    x1, y1, x2, y2 = np.rint(box).astype(int)
    inside = frame[:, y1:y2, x1:x2].numpy().astype(int)
    if not inside.size:
        return 0.0
    return float((np.abs(inside - np.array(colour)[:, None, None]).max(0) < 70).mean())


def damage(shards: Path, video_id: str) -> None:
    """Flip bytes in the middle of a clip's record."""
    rows = [line.split("\t") for line in (shards / "path.index").read_text().splitlines()]
    _, shard, offset = next(row for row in rows if row[0] == video_id)
    content = bytearray((shards / shard).read_bytes())
    content[int(offset) + 500 : int(offset) + 520] = bytes(20)
    (shards / shard).write_bytes(content)


def test_a_damaged_record_is_replaced_by_the_next_sample_and_named(world: World, tmp_path: Path):
    shards = world.copy_shards(tmp_path / "shards")
    whole = dataset(world.shards)
    damage(shards, whole.index.video_id(6))
    data = dataset(shards)
    sample, expected = data[2, 6], whole[2, 7]
    assert sample["video_id"] == expected["video_id"] and sample["index"] == 6
    assert torch.equal(sample["video"], expected["video"])
    (skipped,) = sample["skipped"]
    assert whole.index.video_id(6) in skipped and "path-0000" in skipped
    again = dataset(shards)[2, 6]
    assert all(torch.equal(value, again[name]) for name, value in sample.items() if torch.is_tensor(value))
    assert data[2, 7]["skipped"] == []


def test_the_last_sample_is_replaced_by_the_first(world: World, tmp_path: Path):
    shards = world.copy_shards(tmp_path / "shards")
    data = dataset(shards)
    damage(shards, data.index.video_id(len(data) - 1))
    assert data[0, len(data) - 1]["video_id"] == data.index.video_id(0)


def test_nothing_but_damage_is_an_error(world: World, tmp_path: Path):
    shards = world.copy_shards(tmp_path / "shards")
    data = dataset(shards)
    for shard in shards.glob("*.tfrecord"):
        shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(DamagedRecord, match="24 clips in a row cannot be used"):
        _ = data[0, 3]


def test_a_missing_shard_is_an_error_before_training(world: World, tmp_path: Path):
    shards = world.copy_shards(tmp_path / "shards")
    (shards / "path-00001.tfrecord").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"10 of 24 samples are in 1 shards .*path-00001.tfrecord .*no such file"
    ):
        dataset(shards)
    (shards / "path-00001.tfrecord").mkdir()
    with pytest.raises(FileNotFoundError, match=r"path-00001.tfrecord .*a folder"):
        dataset(shards)


@pytest.mark.parametrize("fault", ["gone", "cut", "a folder", "a pipe"])
def test_a_shard_that_is_lost_in_training_is_skipped_and_named(world: World, tmp_path: Path, fault: str):
    shards = world.copy_shards(tmp_path / "shards")
    data = dataset(shards)
    shard = shards / "path-00001.tfrecord"
    shard.unlink()
    {"gone": lambda: None, "cut": shard.touch, "a folder": shard.mkdir, "a pipe": lambda: os.mkfifo(shard)}[fault]()
    places = [data.index[index].shard_path.endswith(shard.name) for index in range(len(data))]
    samples = [data[0, index] for index in range(len(data))]
    assert [bool(sample["skipped"]) for sample in samples] == places
    assert all(shard.name in reason for sample in samples for reason in sample["skipped"])


def test_released_records_take_their_sizes_from_the_user(world: World, store: ObjectStore, monkeypatch):
    """Released shards say nothing about the original video."""
    read = ShardReader.read

    def without_sizes(self, *args) -> StoredClip:
        return dataclasses.replace(read(self, *args), width=None, height=None, fps=None, frame_indices=None)

    monkeypatch.setattr(ShardReader, "read", without_sizes)
    data = dataset(world.shards, store)
    sample, video_id = data[0, 0], data.index.video_id(0)
    assert sample["video_id"] != video_id and f"{video_id}: the shard does not say" in sample["skipped"][0]
    assert "--frame_sizes" in sample["skipped"][0] and not bool((sample["boxes"] != -1).any())
    monkeypatch.undo()
    expected = data[0, 0]["boxes"]
    monkeypatch.setattr(ShardReader, "read", without_sizes)
    sizes = {name: (truth["size"][0], truth["size"][1]) for name, truth in world.truth().items()}
    sized = WebVidPretrainDataset(data.index, world.shards, data.settings, store, sizes)
    assert torch.equal(sized[0, 0]["boxes"], expected)
