"""Runs of pre-training in this process: kinds of model, bad input, and errors that say what to do."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from modules.config import Behaviour, ModelConfig
from modules.tasks.pretrain import PretrainModel
from tasks.pre_training import main
from tests.dataloaders.datasets.test_webvid import damage
from tests.world import World
from utils import score_alignment
from utils.models.clip_weights import CLIP_URL
from utils.runtime.checkpoint import load, model_content, save_atomically
from utils.runtime.run_log import read_metrics

SHORT = ("--max_steps", "2", "--batch_size", "4")


def train(world: World, folder: Path, *flags: str, shards: Path | None = None) -> list[dict[str, Any]]:
    """Run to a good end and return the lines of metrics.jsonl."""
    assert main(world.flags(folder, *flags, shards=shards)) == 0, (folder / "log.txt").read_text()
    return read_metrics(folder / "metrics.jsonl")


def losses(line: dict[str, Any]) -> set[str]:
    return {"vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive"} & set(line)


# -- kinds of runs


@pytest.mark.parametrize(
    ("flags", "absent"),
    [
        ("--object_fuse attention --object_layer -3", {"object_noun", "action_verb"}),
        ("--sim_header seqTransf --cross_num_hidden_layers 1", set()),
        ("--sim_header seqLSTM --linear_patch 3d", set()),
        ("--sim_header tightTransf --cross_num_hidden_layers 1", set()),
        ("--action_only --freeze_layer_num 12", {"object_noun"}),
        ("--behaviour released --gradient_accumulation_steps 2", {"contrastive"}),
        ("--contrastive_epochs 0 --loss_weights vtm=0,mlm=2", {"contrastive", "vtm"}),
    ],
)
def test_kinds_of_models_and_losses(world: World, tmp_path: Path, flags: str, absent: set[str]):
    lines = train(world, tmp_path, *SHORT, *flags.split())
    for line in lines:
        assert losses(line) == {"vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive"} - absent
        assert line["loss"] is not None and line["grad_norm"] > 0


def test_trajectories_may_be_tracked(world: World, tmp_path: Path):
    by_class = train(world, tmp_path / "class", *SHORT)
    tracked = train(world, tmp_path / "track", *SHORT, "--trajectory", "track")
    settings = [json.loads((tmp_path / rule / "config.json").read_bytes()) for rule in ("class", "track")]
    assert [content["arguments"]["trajectory"] for content in settings] == ["class", "track"]
    assert losses(tracked[0]) == losses(by_class[0])
    assert tracked[0]["loss"] != by_class[0]["loss"], "other boxes are joined: a wrong class is a thing of its own"


def test_without_objects_no_object_file_is_needed(world: World, tmp_path: Path):
    flags = [flag for flag in world.flags(tmp_path, *SHORT) if flag not in ("--need_object", "--use_action")]
    assert main([*flags, "--object_path", str(tmp_path / "absent"), "--labelmap_path", str(tmp_path / "absent")]) == 0
    assert losses(read_metrics(tmp_path / "metrics.jsonl")[0]) == {"vtm", "mlm", "plm", "contrastive"}
    names = load(tmp_path / "restore.bin")["model"]
    assert not [name for name in names if name.startswith(("object_encoder", "trajectory_encoder", "action_encoder"))]


def test_grad_checkpoint_computes_the_same(world: World, tmp_path: Path):
    plain = train(world, tmp_path / "plain", *SHORT)
    saving = train(world, tmp_path / "saving", *SHORT, "--grad_checkpoint", "--tensorboard")
    for first, second in zip(plain, saving, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-6)
        assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-4)
    assert list((tmp_path / "saving" / "tensorboard").glob("events.out.tfevents.*"))


def test_bf16_keeps_full_precision_weights(world: World, tmp_path: Path):
    train(world, tmp_path, *SHORT, "--precision", "bf16", "--grad_checkpoint")
    state = load(tmp_path / "restore.bin")
    assert {value.dtype for value in state["model"].values()} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_training_evaluation_and_a_later_evaluation_agree(world: World, tmp_path: Path):
    validation = ["--val_csv", str(world.msrvtt / "test.csv"), "--val_features_path", str(world.msrvtt / "videos")]
    validation += ["--val_object_path", str(world.msrvtt / "objects"), "--batch_size_val", "3"]
    lines = train(world, tmp_path / "run", *SHORT, *validation, "--eval_every", "1")
    found = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in found] == [1, 2] and found[0]["videos"] == 8
    names = ("nouns", "nouns_1", "nouns_chance", "end", "end_chance", "in_caption", "named", "in_caption_end")
    assert all(0 <= line[f"alignment_{name}"] <= 100 for line in found for name in names)
    assert 0 < found[0]["alignment_things"] == found[1]["alignment_things"]
    flags = [flag for flag in world.flags(tmp_path / "eval", *validation) if flag != "--do_train"]
    assert main([*flags, "--do_eval", "--init_model", str(tmp_path / "run/ckpt/pytorch_model.bin.2")]) == 0
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["zero_shot"] == {name: found[1][name] for name in metrics["zero_shot"]}
    assert metrics["losses"]["clips"] == 24
    command = [str(tmp_path / "run/ckpt/pytorch_model.bin.2"), "--data", str(world.msrvtt), "--device", "cpu"]
    assert score_alignment.main([*command, "--output", str(tmp_path / "alignment.json")]) == 0
    for name, figure in json.loads((tmp_path / "alignment.json").read_text())["figures"].items():
        if f"alignment_{name}" in found[1]:
            assert found[1][f"alignment_{name}"] == pytest.approx(figure["percent"])
            assert found[1].get(f"alignment_{name}_chance") == pytest.approx(figure["chance"])


@pytest.mark.parametrize("more", [["--val_object_path", ""], []])
def test_without_objects_of_the_validation_clips_retrieval_alone_is_measured(
    world: World, tmp_path: Path, more: list[str]
):
    validation = ["--val_csv", str(world.msrvtt / "test.csv"), "--val_features_path", str(world.msrvtt / "videos")]
    flags = [flag for flag in world.flags(tmp_path, *validation, *more) if flag not in ("--do_train",)]
    if not more:  # a model without objects
        flags = [flag for flag in flags if flag not in ("--need_object", "--use_action")]
        flags += ["--val_object_path", str(world.msrvtt / "objects")]
    assert main([*flags, "--do_eval", "--eval_samples", "4"]) == 0
    zero_shot = json.loads((tmp_path / "metrics.json").read_text())["zero_shot"]
    assert zero_shot["videos"] == 8 and not [name for name in zero_shot if name.startswith("alignment")]


# -- bad input that is counted or replaced


def test_damaged_clips_and_odd_captions_are_counted_and_one_clip_per_batch_trains(world: World, tmp_path: Path):
    shards = world.copy_shards(tmp_path / "shards")
    damage(shards, "1000009")
    last = shards / "path-00002.tfrecord"
    last.write_bytes(last.read_bytes()[:-100])  # the record of 1000023 is cut short
    rows = json.loads((shards / "frozen_train_labels.json").read_bytes())
    captions = {row["video_id"]: row["caption"] for row in rows}
    captions |= {"1000000": "", "1000001": "  ", "1000002": "of the", "7777777": "a clip that was not downloaded"}
    text = json.dumps([{"video_id": key, "caption": caption} for key, caption in captions.items()])
    (shards / "frozen_train_labels.json").write_text(text)
    lines = train(world, tmp_path / "out", "--epochs", "1", "--batch_size", "1", shards=shards)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert len(lines) == 22 and lines[-1]["skipped"] == 2
    assert "empty_captions 2" in log and "captions_without_clip 1" in log
    assert "clips_without_objects 2" in log
    assert "one clip in the global batch: video-text matching has no negatives and is left out" in log
    for video_id in ("1000009", "1000023"):
        assert len([line for line in log.splitlines() if "skipped" in line and f"video {video_id}" in line]) == 1
    assert all(line["loss"] is not None and line["vtm"] == 0 for line in lines)


def test_missing_and_unreadable_validation_clips(world: World, tmp_path: Path):
    videos = tmp_path / "videos"
    shutil.copytree(world.msrvtt / "videos", videos)
    (videos / "video7011.mp4").unlink()
    (videos / "video7012.mp4").write_bytes(b"not a video")
    flags = ["--val_csv", str(world.msrvtt / "test.csv"), "--val_features_path", str(videos), "--max_steps", "1"]
    assert main(world.flags(tmp_path / "strict", *flags)) == 1
    log = (tmp_path / "strict" / "log.txt").read_text()
    assert "1 of 8 validation videos are not in" in log and "video7011" in log and "--on_bad_video skip" in log
    lines = train(world, tmp_path / "lenient", *flags, "--on_bad_video", "skip")
    assert lines[-1]["videos"] == 6 and lines[-1]["skipped"] == 2
    assert "video7011" in (tmp_path / "lenient" / "log.txt").read_text()
    shutil.copy(world.msrvtt / "videos/video7011.mp4", videos)
    assert main(world.flags(tmp_path / "unreadable", *flags)) == 1
    log = (tmp_path / "unreadable" / "log.txt").read_text()
    assert "1 clips cannot be read" in log and "video7012.mp4" in log


# -- errors


def other_sizes(path: Path) -> None:
    """Write an own checkpoint of a model that the world's flags do not fit."""
    config = ModelConfig(
        image_resolution=32, patch_size=8, vision_width=64, vision_layers=2, embed_dim=64, text_width=64, text_layers=2,
        vocab_size=100, fusion_layers=2, need_object=True, use_action=True, object_count=6,
    )  # fmt: skip
    save_atomically(model_content(PretrainModel(config, Behaviour()), 1, 0), path)


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("clip_archive", "absent", ["no CLIP weights at", "absent/ViT-B-16.pt", "modules/clip", CLIP_URL]),
        ("clip_archive", "page.html", ["page.html: no readable torch checkpoint"]),
        ("init_model", "page.html", ["page.html: no readable torch checkpoint"]),
        ("init_model", "other.bin", ["other.bin does not fit", "(12, 6, 64) in the file, (12, 4, 64) in the model"]),
        ("init_model", "absent.bin", ["absent.bin: no such checkpoint file"]),
        ("train_csv", "absent/labels.json", ["no shards: looked for", "labels.json/path.index", "absent/path.index"]),
        ("data_path", "absent.json", ["no captions (--data_path) at", "absent.json"]),
        ("labelmap_path", "absent.json", ["no label map at", "utils/build_label_map.py"]),
        ("object_path", "absent", ["no object files", "--object_path"]),
        ("loss_weights", "vtn=1", ["--loss_weights: no loss vtn"]),
        ("batch_size", "25", ["do not fill one update", "--batch_size"]),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong_and_end_with_status_1(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str], flag: str, value: str, said: list[str]
):
    (tmp_path / "page.html").write_text("<html>404 Not Found</html>")
    if value == "other.bin":
        other_sizes(tmp_path / value)
    is_path = flag not in ("loss_weights", "batch_size")
    assert main(world.flags(tmp_path / "out", f"--{flag}", str(tmp_path / value) if is_path else value)) == 1
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "ERROR" in log and all(text in log for text in said), log
    captured = capfd.readouterr()
    assert "Traceback" not in captured.out + captured.err


@contextmanager
def full_disk(file_size: int) -> Iterator[None]:
    """Writing beyond `file_size` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_while_saving_leaves_the_checkpoint_before(world: World, tmp_path: Path):
    train(world, tmp_path, *SHORT)
    before = (tmp_path / "restore.bin").read_bytes()
    with full_disk(2**20):
        assert main(world.flags(tmp_path, "--max_steps", "4", "--batch_size", "4")) == 1
    log = (tmp_path / "log.txt").read_text()
    assert "pytorch_model.bin.4: checkpoint not saved (File too large)" in log and "Free space" in log
    assert (tmp_path / "restore.bin").read_bytes() == before
    assert [path.name for path in tmp_path.rglob("*") if path.suffix == ".tmp"] == []
    assert [path.name for path in (tmp_path / "ckpt").iterdir()] == ["pytorch_model.bin.2"]
    lines = train(world, tmp_path, "--max_steps", "4", "--batch_size", "4")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
