"""From flags to the data of pre-training: shards, prepared captions and objects, validation clips, losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from dataloaders.object_store import ObjectStore
from modules.config import ModelConfig
from tests import tiny
from tests.world import FRAMES, World
from utils.data.pretraining import (
    PreparedData,
    PretrainArguments,
    find_shards,
    losses_loader,
    prepare_pretraining,
    pretraining_dataset,
    validation_clips,
)
from utils.evaluation.bad_videos import BadVideos
from utils.runtime.distributed import Runtime

CPU = torch.device("cpu")
ONE = Runtime(0, 1, 0, CPU)
SIZES: dict[str, Any] = {"image_resolution": 32, "patch_size": 8, "max_frames": FRAMES, "vocab_size": 2000}


def arguments(folder: Path, **flags: Any) -> PretrainArguments:
    base = {"output_dir": str(folder / "out"), "do_train": True, "num_thread_reader": 0}
    return PretrainArguments(**{**base, **flags})


def of_world(world: World, folder: Path, **flags: Any) -> PretrainArguments:
    """Flags of the small world."""
    paths = {"train_csv": world.shards, "data_path": world.labels, "object_path": world.webvid / "objects"}
    paths |= {"labelmap_path": world.label_map, "val_csv": world.msrvtt / "test.csv"}
    return arguments(folder, **{name: str(path) for name, path in paths.items()}, **flags)


def test_shards_are_looked_for_in_three_places_in_order(tmp_path: Path):
    places = [tmp_path / name for name in ("features", "train", "beside")]
    for place in places:
        place.mkdir()
    (places[2] / "train.csv").touch()

    def found(train: Path) -> Path:
        return find_shards(arguments(tmp_path, features_path=str(places[0]), train_csv=str(train)))

    with pytest.raises(FileNotFoundError) as caught:
        found(places[1])
    text = str(caught.value)
    assert text.index("features/path.index") < text.index("train/path.index") < text.index(f"{tmp_path}/path.index")
    assert "(--features_path, --train_csv, the folder of --train_csv)" in text
    (places[2] / "path.index").touch()
    assert found(places[2] / "train.csv") == places[2]
    (places[1] / "path.index").touch()
    assert found(places[1]) == places[1]
    (places[0] / "path.index").touch()
    assert found(places[1]) == places[0]


def test_captions_alone_are_prepared_for_a_model_without_objects(world: World, tmp_path: Path):
    said: list[str] = []
    args, config = of_world(world, tmp_path), ModelConfig(**SIZES)
    data = prepare_pretraining(args, config, said.append)
    assert data == PreparedData(data.index, world.shards) and said == []
    dataset = pretraining_dataset(args, config, data, said.append)
    assert len(dataset) == 24 and said[0].startswith(f"captions: {data.index}: ") and "tagged by hanta" in said[0]
    assert dataset.settings.is_training and "boxes" not in dataset[0, 0]


def test_objects_of_training_and_of_validation_are_prepared(world: World, tmp_path: Path):
    (tmp_path / "sizes.json").write_text(json.dumps({"1000000": [86, 64]}))
    validation = str(world.msrvtt / "objects")
    args = of_world(world, tmp_path, val_object_path=validation, frame_sizes=str(tmp_path / "sizes.json"))
    config, said = ModelConfig(**SIZES, need_object=True, object_count=4), list[str]()
    data = prepare_pretraining(args, config, said.append)
    assert data.objects is not None and data.val_objects is not None
    assert [line.split(":")[0] for line in said] == ["objects", "objects"] and data.frame_sizes is not None
    assert dict(data.frame_sizes) == {"1000000": (86, 64)}
    assert ObjectStore(data.objects).get("1000000") is not None
    assert ObjectStore(data.val_objects).get("video7010") is not None
    assert pretraining_dataset(args, config, data, said.append)[0, 0]["boxes"].shape == (FRAMES, 4, 4)


def validation(args: PretrainArguments, said: list[str]) -> list[str] | None:
    """Ids of the validation clips."""
    clips = validation_clips(args, ModelConfig(**SIZES), PreparedData(), said.append)
    return None if clips is None else clips.split.video_ids


def test_validation_clips_are_those_of_the_list_that_are_there(world: World, tmp_path: Path):
    said: list[str] = []
    ids = [f"video{7010 + number}" for number in range(8)]
    args = of_world(world, tmp_path, val_features_path=str(world.msrvtt / "videos"))
    assert validation(args, said) == ids and said == []
    for video_id in ids[:3]:
        (tmp_path / f"{video_id}.mp4").symlink_to(world.msrvtt / "videos" / f"{video_id}.mp4")
    some = of_world(world, tmp_path, val_features_path=str(tmp_path), on_bad_video="skip")
    assert validation(some, said) == ids[:3] and said[0].startswith("5 of 8 validation videos are not in ")
    with pytest.raises(BadVideos, match="5 of 8 validation videos"):
        validation(of_world(world, tmp_path, val_features_path=str(tmp_path)), said)


def test_pre_training_goes_on_without_validation_clips_and_says_so(world: World, tmp_path: Path):
    said: list[str] = []
    (tmp_path / "empty").mkdir()
    assert validation(of_world(world, tmp_path), said) is None
    assert said[-1] == "validation is left out: it needs --val_csv and --val_features_path"
    args = arguments(tmp_path, val_csv=str(tmp_path / "none.csv"), val_features_path=str(tmp_path / "empty"))
    assert validation(args, said) is None and said[-1] == said[0]
    empty = of_world(world, tmp_path, val_features_path=str(tmp_path / "empty"))
    assert validation(empty, said) is None
    assert said[-1].startswith("validation is left out: none of the 8 validation videos is in ") and len(said) == 3


class Samples(Dataset):
    """Random samples that say their place."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        return {**tiny.sample(where[1], tiny.config()), "video_id": str(where)}


@pytest.mark.parametrize(
    ("samples", "batch_size", "ranks", "sizes"),
    [(7, 3, 1, [3, 3]), (100, 4, 2, [4]), (3, 8, 1, [3]), (5, 8, 2, [2]), (4, 1, 2, [1, 1])],
)
def test_losses_are_of_the_first_samples_in_order_in_as_many_batches_on_every_rank(
    tmp_path: Path, samples: int, batch_size: int, ranks: int, sizes: list[int]
):
    args = arguments(tmp_path, batch_size=batch_size)
    parts = [list(losses_loader(args, Samples(), samples, Runtime(rank, ranks, rank, CPU))) for rank in range(ranks)]
    assert all([len(batch["video_id"]) for batch in part] == sizes for part in parts)
    read = [name for batch in zip(*parts, strict=True) for part in batch for name in part["video_id"]]
    assert read == [str((0, index)) for index in range(ranks * sum(sizes))]


def test_losses_are_of_whole_captions(tmp_path: Path):
    [batch] = losses_loader(arguments(tmp_path), Samples(), 4, ONE)
    assert len(batch["plm_index"]) == int((batch["text_lengths"] - 1).sum())


def test_too_few_samples_for_the_processes_are_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="1 samples are too few for 2 processes"):
        losses_loader(arguments(tmp_path), Samples(), 1, Runtime(0, 2, 0, CPU))
