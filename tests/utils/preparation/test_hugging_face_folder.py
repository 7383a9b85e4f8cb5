"""Detection models of transformers are loaded from their folder only, as data, and whole."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from tests.utils.preparation import tiny_detectors as tiny
from utils.preparation import hugging_face_folder
from utils.preparation.hugging_face_folder import ModelFolder
from utils.runtime.checkpoint import CheckpointError

transformers = pytest.importorskip("transformers", reason="detectors of transformers: requirements-optional.txt")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_detr(tmp_path_factory.mktemp("detector") / "detr")


@pytest.fixture
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to change; whoever asks for the network fails."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("something asks for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return shutil.copytree(saved, tmp_path / "detr")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return ModelFolder(folder).load(CPU)[0].state_dict()


def test_weights_are_read_from_either_form(saved: Path, folder: Path):
    wanted = weights(saved)
    (folder / "model.safetensors").unlink()
    torch.save(wanted, folder / "pytorch_model.bin")
    found = weights(folder)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert ModelFolder(folder).stamp.keys() == {"config.json", "preprocessor_config.json", "pytorch_model.bin"}


def test_pickles_that_would_run_code_are_refused(folder: Path):
    (folder / "model.safetensors").unlink()
    torch.save({"a": Path("x")}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: holds Python objects"):
        weights(folder)


def test_code_beside_a_model_is_not_run(folder: Path):
    (folder / "own.py").write_text("raise SystemExit('run')")
    tiny.edit_config(folder, auto_map={"AutoConfig": "own.Config", "AutoModelForObjectDetection": "own.Model"})
    for file in ("preprocessor_config.json",):
        values = json.loads((folder / file).read_bytes())
        (folder / file).write_text(json.dumps({**values, "auto_map": {"AutoImageProcessor": "own.Processor"}}))
    assert type(ModelFolder(folder).load(CPU)[0]).__name__ == "DetrForObjectDetection"


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "microsoft/resnet-50", "backbone_config": None, "use_timm_backbone": False},
        {"backbone": "hf-hub:timm/resnet18", "backbone_config": None, "use_timm_backbone": True},
        {"backbone_config": {"model_type": "timm_backbone", "backbone": "hf-hub:timm/resnet18"}},
        {"backbone_config": {"model_type": "timm_backbone", "backbone": "local-dir:/tmp"}},
    ],
)
def test_a_part_that_lies_elsewhere_is_refused(folder: Path, changes: dict[str, Any]):
    tiny.edit_config(folder, **changes)
    with pytest.raises(ValueError, match="A folder is loaded from itself only"):
        ModelFolder(folder)


@pytest.mark.parametrize("more", [{}, {"backbone_kwargs": {"out_indices": [4]}}], ids=["plain", "with settings"])
def test_a_backbone_of_timm_is_built_without_asking_the_hub_for_it(folder: Path, more: dict[str, Any]):
    """As in the configurations of released models: the backbone's weights are among the model's."""
    tiny.edit_config(folder, backbone="resnet18", backbone_config=None, use_timm_backbone=True, **more)
    (folder / "model.safetensors").unlink()
    model = transformers.DetrForObjectDetection(ModelFolder(folder).config)
    model.save_pretrained(folder)
    tiny.edit_config(
        folder, backbone="resnet18", backbone_config=None, use_timm_backbone=True, use_pretrained_backbone=True, **more
    )
    found = weights(folder)
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "no such folder. --detector hf --weights takes a folder"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "its model_type is None"),
        (
            lambda f: tiny.edit_config(f, model_type="bert"),
            "type 'bert' is no detector: transformers has .*detr.*owlv2",
        ),
        (lambda f: tiny.edit_config(f, d_model="wide"), "transformers cannot load it as detr"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "an adapter of another model"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights in it: model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "states a model of .* beside it have 100 bytes"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 2**22), "transformers cannot load it as detr"),
        (lambda f: tiny.edit_config(f, d_model=1 << 20), "states a model of .* numbers"),
        (lambda f: tiny.edit_config(f, encoder_layers=3), r"parameters of detr have no weights, as model\.encoder"),
        (lambda f: tiny.edit_config(f, id2label={"0": "a"}), "transformers cannot load it as detr"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "transformers cannot load it as a processor"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(folder: Path, spoil: Any, message: str):
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        ModelFolder(folder).load(CPU)


def test_models_of_the_hub_are_fetched_where_a_user_names_them(folder: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    place = folder.rename(folder.with_name("0123abc"))
    monkeypatch.setattr(hugging_face_folder, "fetch", lambda text: asked.append(text) or place)
    found = ModelFolder("hf-hub:owner/detr@main")
    assert asked == ["hf-hub:owner/detr@main"] and found.name == "owner/detr" and found.stamp == "0123abc"


def test_a_missing_package_is_named_with_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"needs the package transformers: pip install 'transformers>=5,<6'"):
        ModelFolder(folder)
