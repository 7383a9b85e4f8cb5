"""Exported folders are read as the checkpoints that they stand for, and hostile ones are refused in words."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.config import UNSTATED, Behaviour
from modules.tasks.answering import AnswerModel
from tests.utils.checkpoints import save_tiny
from tests.utils.models.exporting import write_run
from utils.models.export import export
from utils.predictor import Predictor
from utils.runtime.checkpoint import CheckpointError, load
from utils.runtime.exported import checkpoint_stamp, exported_folder, read_checkpoint

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a folder may have."""
    folder = tmp_path_factory.mktemp("exported")
    export(write_run(folder / "run", "msrvtt_qa"), folder / "out")
    return folder / "out"


def edit(name: str, change: Callable[[Any], Any]) -> Damage:
    """Change a JSON file of a folder."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_bytes())
        (folder / name).write_text(json.dumps(change(content)))

    return damage


def put(**values: Any) -> Damage:
    """Change entries of config.json."""
    return edit("config.json", lambda content: {**content, **values})


def size(**values: Any) -> Damage:
    """Change sizes of the model in config.json."""
    return edit("config.json", lambda content: {**content, "model": {**content["model"], **values}})


def setting(**values: Any) -> Damage:
    """Change how clips are read by config.json."""
    return edit("config.json", lambda content: {**content, "arguments": {**content["arguments"], **values}})


def without(part: str, name: str) -> Damage:
    """Take one entry of a part of config.json away."""
    return edit("config.json", lambda content: {**content, part: {k: v for k, v in content[part].items() if k != name}})


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Change the parameters of a folder."""

    def damage(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", {"format": "stoa-vlp"})

    return damage


def write(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data)


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


CONFIG, ANSWERS, WEIGHTS = "config.json", "answers.json", "model.safetensors"
NOT_OURS = r"config\.json: not of a model that was exported by this project; export it again"
NO_WEIGHTS = r"model\.safetensors: no readable safetensors file \("
OTHER_POSITIONS = {"fusion.positional_embedding": torch.zeros(3, 64)}
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no parameters": (remove(WEIGHTS), r"model\.safetensors: no safetensors file: there is no such file"),
    "no config": (remove(CONFIG), r"config\.json: missing, and says what .*; export it again"),
    "config is no JSON": (write(CONFIG, b"{"), r"config\.json is not JSON.*; export it again"),
    "config is no text": (write(CONFIG, b"\xff\xfe\xfd"), r"config\.json: not UTF-8; export it again"),
    "config is a list": (write(CONFIG, b"[]"), NOT_OURS),
    "config is another's": (put(format="clip"), NOT_OURS),
    "config is deep": (write(CONFIG, b"[" * 10**5), r"config\.json: lists inside each other"),
    "newer": (put(version=2), r"config\.json: version 2 with frame rule 2; .*update the code"),
    "newer frames": (put(frame_rule=3), r"version 1 with frame rule 3; .*update the code"),
    "version is text": (put(version="1"), r"config\.json: damaged: its version cannot be used"),
    "version is true": (put(version=True), r"config\.json: damaged: its version cannot be used"),
    "no arguments": (put(arguments=None), r"config\.json: damaged: its arguments cannot be used"),
    "sizes are a list": (put(model=[1]), r"config\.json: damaged: its model cannot be used"),
    "step is text": (put(global_step="7"), r"config\.json: damaged: its global_step cannot be used"),
    "task is a path": (put(task="../x"), r"config\.json: damaged: its task or data is no name"),
    "size left out": (
        without("model", "head_width"),
        "config.json: its model does not say head_width; export it again",
    ),
    "behaviour left out": (without("behaviour", "answer_head"), "config.json: its behaviour does not say answer_head"),
    "rate left out": (without("arguments", "feature_framerate"), "its arguments do not say feature_framerate; export"),
    "sizes without end": (size(vision_layers=10**9), "out: vision_layers 1000000000"),
    "other sizes": (size(embed_dim=128), "out does not fit this model"),
    "large sizes": (size(text_width=2**20), "out: a model of its sizes has"),
    "unknown size": (size(depth=1), "out: ModelConfig: unknown fields depth"),
    "unknown behaviour": (
        edit(CONFIG, lambda c: {**c, "behaviour": {**c["behaviour"], "odd": 1}}),
        "out: Behaviour: unknown fields odd",
    ),
    "names weights": (setting(clip_archive="/x"), "no settings of how clips are read: clip_archive"),
    "names a label map": (setting(labelmap_path="/x"), "no settings of how clips are read: labelmap_p"),
    "names the hub": (setting(init_model="hf-hub:a/b"), "no settings of how clips are read: init_model"),
    "no rate": (setting(feature_framerate=0), "out/config.json: --feature_framerate 0: must be above 0"),
    "rate is text": (setting(feature_framerate="x"), "config.json: --feature_framerate 'x': must be"),
    "answers in config": (size(answers=["a"]), r"config\.json: its model has answers, which belong into answers\.json"),
    "no answers": (remove(ANSWERS), r"answers\.json: 0 answers, but the classifier in .* has \[4\]; export it again"),
    "fewer answers": (edit(ANSWERS, lambda a: a[1:]), r"answers\.json: 3 answers, but the classifier .* has \[4\]"),
    "answers are numbers": (edit(ANSWERS, lambda a: [1, 2, 3, 4]), r"answers\.json: not a list of answers; export"),
    "answers are no JSON": (write(ANSWERS, b"dog"), r"answers\.json is not JSON.*; export it again"),
    "cut": (lambda folder: os.truncate(folder / WEIGHTS, 5000), NO_WEIGHTS),
    "header without end": (write(WEIGHTS, b"\xff" * 7 + b"\0" * 9), NO_WEIGHTS + "a header of .*more than"),
    "another's parameters": (write(WEIGHTS, b"PK\3\4" + b"\0" * 90), NO_WEIGHTS),
    "shape": (
        tensors(lambda s: s.update(OTHER_POSITIONS)),
        r"out does not fit this model:\n +fusion\.pos.*\(3, 64\)",
    ),
    "missing": (tensors(lambda s: s.pop("clip.text_projection")), "out: 1 of CLIP's own parameters are missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_folder_that_is_not_what_it_should_be_is_refused_in_words(tmp_path: Path, exported: Path, name: str):
    damage, message = DAMAGES[name]
    shutil.copytree(exported, tmp_path / "out")
    damage(tmp_path / "out")
    with pytest.raises(CheckpointError, match=message):
        Predictor(tmp_path / "out", device="cpu", clip_archive=str(tmp_path / "none")).model(AnswerModel)


def test_a_folder_of_before_has_the_behaviour_that_it_was_trained_with(tmp_path: Path, exported: Path):
    shutil.copytree(exported, tmp_path / "out")
    for name in UNSTATED:
        without("behaviour", name)(tmp_path / "out")
    for folder, expected in ((tmp_path / "out", Behaviour(**UNSTATED)), (exported, Behaviour())):
        model = Predictor(folder, device="cpu", clip_archive=str(tmp_path / "none")).model(AnswerModel)
        assert model.behaviour == expected


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path, exported: Path):
    for name in (WEIGHTS, CONFIG, ANSWERS):
        shutil.copytree(exported, tmp_path / name)
        (tmp_path / name / name).unlink()
        os.mkfifo(tmp_path / name / name)
        with pytest.raises(CheckpointError, match="pipe or a device"):
            read_checkpoint(tmp_path / name)


def test_a_folder_is_meant_by_itself_and_by_its_parameters(tmp_path: Path, exported: Path):
    assert exported_folder(exported) == exported_folder(exported / WEIGHTS) == exported
    checkpoint = save_tiny(tmp_path)
    for other in (checkpoint, tmp_path, exported / CONFIG, tmp_path / "gone", tmp_path / "gone" / WEIGHTS):
        assert exported_folder(other) is None
    save_file({"x": torch.zeros(2)}, tmp_path / WEIGHTS)
    assert exported_folder(tmp_path / WEIGHTS) is None, "another's"
    assert load(checkpoint).keys() == read_checkpoint(checkpoint).keys()
    with pytest.raises(CheckpointError, match="a folder, but not one of utils/export_model.py; name a checkpoint in"):
        read_checkpoint(tmp_path)


def test_the_stamp_of_a_folder_changes_with_each_of_its_files(tmp_path: Path, exported: Path):
    shutil.copytree(exported, tmp_path / "out")
    stamps = {checkpoint_stamp(tmp_path / "out")}
    for number, name in enumerate((WEIGHTS, CONFIG, ANSWERS), 1):
        os.utime(tmp_path / "out" / name, (number, number))
        stamps.add(checkpoint_stamp(tmp_path / "out"))
    assert len(stamps) == 4 and checkpoint_stamp(tmp_path / "out") == checkpoint_stamp(tmp_path / "out" / WEIGHTS)
