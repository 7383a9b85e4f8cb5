"""A trained model for use: sizes from its checkpoint, what it saw of a clip from its run, and what must be trained."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from modules.config import Behaviour
from modules.tasks.answering import AnswerModel
from modules.tasks.captioning import CaptionModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from tests.utils.checkpoints import SIZES, released_state, save_tiny
from tests.utils.models.scripted import save_writer
from utils.inference.loading import add_released_flags, load_for_inference, use_settings
from utils.models import clip_weights
from utils.models.setup import ModelClass
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.precision import autocast
from utils.settings.fields import flat_values
from utils.settings.groups import UseSettings

CPU = torch.device("cpu")


def write_config(folder: Path, **arguments: Any) -> None:
    """What a run leaves beside its checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"arguments": arguments, "world_size": 1}))


def load_as(model_class: ModelClass, checkpoint: Path, *needs: str, **choices: Any) -> Any:
    return load_for_inference(model_class, use_settings(checkpoint, choices), CPU, lambda line: None, needs)


def test_sizes_are_the_checkpoints(tmp_path: Path):
    flat = flat_values(use_settings(save_tiny(tmp_path, fusion_layers=2, dropout=0.25)))
    assert (flat["max_frames"], flat["max_words"], flat["object_count"]) == (SIZES["max_frames"], 24, 4)
    assert (flat["need_object"], flat["use_action"], flat["fusion_layers"], flat["dropout"]) == (True, True, 2, 0.25)
    assert flat["init_model"] == str(tmp_path / "PretrainModel.bin")
    defaults = flat_values(UseSettings())
    assert {name: flat[name] for name in ("feature_framerate", "batch_size_val", "tagger")} == {
        name: defaults[name] for name in ("feature_framerate", "batch_size_val", "tagger")
    }


@pytest.mark.parametrize("place", [".", "ckpt"])
def test_what_the_model_saw_of_a_clip_is_what_its_run_says_and_nothing_else(tmp_path: Path, place: str):
    (tmp_path / place).mkdir(exist_ok=True)
    checkpoint = save_tiny(tmp_path / place)
    seen = {"feature_framerate": 2.0, "trajectory": "track", "box_coordinates": "crop", "labelmap_path": "map.json"}
    others = {"lr": 1.0, "seed": 7, "batch_size_val": 3, "object_path": "objects", "train_frame_order": 2, "gone": 1}
    write_config(tmp_path, **seen, **others, max_frames=99)
    flat, defaults = flat_values(use_settings(checkpoint)), flat_values(UseSettings())
    assert {name: flat[name] for name in seen} == seen
    kept = set(others) & set(flat)
    assert {name: flat[name] for name in kept} == {name: defaults[name] for name in kept}
    assert flat["max_frames"] == SIZES["max_frames"], "the checkpoint knows its sizes best"


def test_the_nearest_config_counts(tmp_path: Path):
    (tmp_path / "ckpt").mkdir()
    checkpoint = save_tiny(tmp_path / "ckpt")
    write_config(tmp_path, feature_framerate=2.0, slice_framepos=1)
    write_config(tmp_path / "ckpt", feature_framerate=3.0)
    assert use_settings(checkpoint).frames.feature_framerate == 3
    assert use_settings(checkpoint).frames.slice_framepos == UseSettings().frames.slice_framepos


def test_choices_win_over_run_and_checkpoint(tmp_path: Path):
    checkpoint = save_tiny(tmp_path)
    write_config(tmp_path, feature_framerate=2.0)
    choices = {"feature_framerate": 0.5, "use_action": False, "max_frames": 3, "on_bad_video": "skip"}
    settings = use_settings(checkpoint, choices)
    flat = flat_values(settings)
    assert {name: flat[name] for name in choices} == choices and settings.model.need_object


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"frames": 3}, "unknown settings: frames"),
        ({"lr": 1e-4}, "unknown settings: lr"),
        ({"max_frames": 0}, "--max_frames 0: must be at least 1"),
        ({"feature_framerate": 0.0}, "--feature_framerate 0.0: must be above 0"),
    ],
)
def test_choices_that_there_are_not_are_errors(tmp_path: Path, choices: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        use_settings(save_tiny(tmp_path), choices)


def test_of_a_file_that_is_no_own_checkpoint_nothing_is_known(tmp_path: Path):
    torch.save({"model_state_dict": released_state()}, tmp_path / "stoa.bin")
    (tmp_path / "clip.safetensors").write_bytes(b"whatever")
    for name in ("stoa.bin", "clip.safetensors"):
        settings = use_settings(tmp_path / name)
        assert settings == UseSettings(init_model=str(tmp_path / name))


def test_a_checkpoint_that_is_not_there_and_a_config_that_is_none_are_errors(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"none\.bin: no such checkpoint"):
        use_settings(tmp_path / "none.bin")
    checkpoint = save_tiny(tmp_path)
    for content in ("no json", "[]", "{}", '{"arguments": 3}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"config\.json: not a run's config\.json"):
            use_settings(checkpoint)


def test_a_model_for_use_is_evaluated_and_does_not_learn(tmp_path: Path):
    model = load_as(PretrainModel, save_tiny(tmp_path), "vocabulary", "matching")
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert model.is_trained("matching") and not model.is_trained("answer")


def test_weights_of_a_lower_precision_are_converted_once_and_not_at_every_use(tmp_path: Path):
    model = load_as(PretrainModel, save_tiny(tmp_path), precision="bf16")
    layer, rows = model.fusion.blocks[0].attn.out_proj, torch.zeros(1, model.config.embed_dim).bfloat16()
    watched = profile(activities=[ProfilerActivity.CPU])
    with torch.no_grad(), autocast("bf16", CPU), watched:
        for _ in range(3):
            layer(rows)
    [conversions] = [event.count for event in watched.key_averages() if event.key == "aten::_to_copy"]
    assert conversions == 2, "weight and bias"


def test_a_part_that_must_have_been_trained_is_missed(tmp_path: Path):
    checkpoint = save_tiny(tmp_path, RetrievalModel)
    with pytest.raises(CheckpointError, match=r"RetrievalModel\.bin: its vocabulary head has not been trained; name a"):
        load_as(CaptionModel, checkpoint, "vocabulary")
    assert not load_as(CaptionModel, checkpoint).is_trained("vocabulary")
    assert not hasattr(load_as(RetrievalModel, checkpoint, "vocabulary"), "vocabulary_head"), "it has none"


def test_a_checkpoint_that_does_not_fit_the_task_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"CaptionModel\.bin: .*; name a checkpoint of this task"):
        load_as(AnswerModel, save_tiny(tmp_path, CaptionModel), "answer")


def test_flags_that_a_released_checkpoint_needs_are_left_out_unless_given(tmp_path: Path):
    parser = argparse.ArgumentParser()
    add_released_flags(parser)
    assert vars(parser.parse_args([])) == {"need_object": None, "use_action": None}
    given = vars(parser.parse_args(["--need_object", "--use_action"]))
    torch.save({"model_state_dict": released_state()}, tmp_path / "stoa.bin")
    model = load_as(RetrievalModel, tmp_path / "stoa.bin", **given)
    assert model.config.need_object and model.config.has_actions
    assert model.behaviour == Behaviour.preset("released")


@pytest.mark.parametrize("kind", ["script", "pickle", "absent"])
def test_a_config_beside_a_checkpoint_names_no_weights_that_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr(clip_weights, "REPOSITORY", tmp_path / "repository")
    monkeypatch.chdir(tmp_path)
    planted, victim = tmp_path / "planted.pt", tmp_path / "victim.py"
    victim.write_text("unchanged")
    if kind == "script":
        save_writer(planted, victim)
    elif kind == "pickle":
        planted.write_bytes(b"cos\nsystem\n.")
    checkpoint = save_tiny(tmp_path)
    state = torch.load(checkpoint)
    state["model"] = {name: value for name, value in state["model"].items() if not name.endswith("text_projection")}
    torch.save(state, checkpoint)
    write_config(tmp_path, clip_archive=str(planted))
    assert use_settings(checkpoint).clip_archive == UseSettings().clip_archive
    with pytest.raises(CheckpointError) as caught:
        load_as(PretrainModel, checkpoint)
    text = str(caught.value)
    assert text.startswith(f"{checkpoint}: 1 of CLIP's own parameters are missing; name the CLIP weights")
    assert "--clip_archive" in text and "planted" not in text and victim.read_text() == "unchanged"


def test_the_label_map_is_the_copy_beside_the_checkpoint_else_what_the_run_names(tmp_path: Path):
    (tmp_path / "ckpt").mkdir()
    checkpoint, old, lines = save_tiny(tmp_path / "ckpt"), tmp_path / "old.json", []
    write_config(tmp_path, labelmap_path=str(old))
    assert use_settings(checkpoint).labelmap_path == str(old)
    (tmp_path / "label_map.json").write_text('{"label_to_idx": {"dog": 1}}')
    settings = use_settings(checkpoint)
    assert settings.labelmap_path == str(tmp_path / "label_map.json")
    load_for_inference(PretrainModel, settings, CPU, lines.append, ())
    assert f"{tmp_path / 'label_map.json'}: the label map, for object files" in lines
    assert use_settings(checkpoint, {"labelmap_path": str(old)}).labelmap_path == str(old)


def test_a_label_map_or_config_without_end_is_refused(tmp_path: Path):
    checkpoint, huge = save_tiny(tmp_path), tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(2**26 + 1)
    write_config(tmp_path, labelmap_path=str(huge))
    with pytest.raises(CheckpointError, match=r"huge\.json: too large for a label map; name another with --labelmap"):
        use_settings(checkpoint)
    assert use_settings(checkpoint, {"labelmap_path": "other.json"}).labelmap_path == "other.json"
    write_config(tmp_path, labelmap_path=3)
    with pytest.raises(CheckpointError, match="labelmap_path is 3, not a path"):
        use_settings(checkpoint)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"config\.json: not a run's config\.json \(RecursionError"):
        use_settings(checkpoint)
    huge.rename(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"not a run's config\.json \(ValueError: .*more than the 67108864"):
        use_settings(checkpoint)
