"""Entries of weight files of every format, without their wrappers and prefixes, and the configurations beside them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import tiny
from tests.utils.models.small_clip import SIZES, equal
from utils.models import weight_files
from utils.models.random_clip import OPENAI_INTEGERS, random_state_dict, save_archive
from utils.models.weight_files import read_configuration, read_safetensors, read_weight_file
from utils.runtime.checkpoint import CheckpointError, model_content, save_atomically

STATE = {"visual.a": torch.arange(6.0).view(2, 3), "b.weight": torch.ones(2).half(), "count": torch.tensor(3)}


def write(path: Path, content: Any) -> Path:
    """A file in the format of its ending."""
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def write_index(folder: Path, places: Mapping[str, str], suffix: str = ".safetensors") -> Path:
    return write(folder / f"model{suffix}.index.json", {"metadata": {"total_size": 1}, "weight_map": dict(places)})


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_are_those_without_a_launcher_s_prefix(tmp_path: Path, suffix: str, prefix: str):
    file = read_weight_file(write(tmp_path / f"clip{suffix}", prefixed(STATE, prefix)))
    assert equal(dict(sorted(file.entries.items())), STATE) and not file.is_random


def test_a_prefix_of_some_names_alone_stays():
    mixed = {**prefixed(STATE, "module."), "b": torch.ones(1)}
    assert weight_files._unwrapped(mixed, Path("clip.pt")).keys() == mixed.keys()


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_a_wrapper_is_taken_off_with_what_stands_beside_it(tmp_path: Path, wrapper: str):
    content = {"epoch": 3, wrapper: prefixed(STATE, "module."), "optimizer": {"lr": [0.1]}}
    assert equal(read_weight_file(write(tmp_path / "clip.pt", content)).entries, STATE)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({**STATE, "epoch": 3}, "epoch"),
        ({"state_dict": {**STATE, "config": {"a": 1}}}, "config"),
        ({"state_dict": [1, 2]}, "state_dict"),
        ({"model": {"inner": STATE}}, "inner"),
        ({1: torch.zeros(1)}, "1"),
        ({"module.1": 2}, "1"),
    ],
    ids=str,
)
def test_what_is_no_tensor_is_an_error_that_names_it(tmp_path: Path, content: dict[Any, Any], named: str):
    with pytest.raises(CheckpointError, match=rf"clip\.pt: holds what is no tensor beside its weights: {named}$"):
        read_weight_file(write(tmp_path / "clip.pt", content))


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}], ids=str)
def test_a_file_of_nothing_has_no_entries(tmp_path: Path, content: dict[str, Any]):
    assert read_weight_file(write(tmp_path / "clip.pt", content)).entries == {}


def test_an_own_checkpoint_is_sent_to_init_model(tmp_path: Path):
    save_atomically(model_content(tiny.model(), 1, 0), tmp_path / "own.bin")
    with pytest.raises(CheckpointError, match=r"own\.bin: a checkpoint of this project .* give it to --init_model"):
        read_weight_file(tmp_path / "own.bin")


def test_an_archive_of_random_weights_is_known_though_it_states_nothing(tmp_path: Path):
    state = random_state_dict(SIZES)
    trained = {**state, "ln_final.weight": state["ln_final.weight"] * 1.01}
    for name, content, is_random in (("random.pt", state, True), ("trained.pt", trained, False)):
        save_archive({key: value for key, value in content.items() if key != "quick_gelu"}, tmp_path / name)
        file = read_weight_file(tmp_path / name)
        assert file.is_random == is_random and set(OPENAI_INTEGERS) < set(file.entries)
    torch.save(state, tmp_path / "plain.pt")
    assert not read_weight_file(tmp_path / "plain.pt").is_random, "a plain state dict may be of anybody"


# -- safetensors


def test_safetensors_that_are_damaged_or_missing_are_an_error(tmp_path: Path):
    whole = write(tmp_path / "whole.safetensors", STATE).read_bytes()
    assert equal(dict(sorted(read_safetensors(tmp_path / "whole.safetensors").items())), dict(sorted(STATE.items())))
    for name, content in {
        "short": whole[:-4],
        "empty": b"",
        "long": struct.pack("<Q", 1 << 40) + whole[8:],
        "page": b"<html>404 Not Found</html>",
    }.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}\.safetensors: no readable safetensors file .*fetch it"):
            read_safetensors(tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"absent\.safetensors: no safetensors file: there is no such file"):
        read_safetensors(tmp_path / "absent.safetensors")


# -- an index of parts


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_parts_come_together(tmp_path: Path, suffix: str):
    names = sorted(STATE)
    write(tmp_path / f"one{suffix}", {name: STATE[name] for name in names[:1]})
    write(tmp_path / f"two{suffix}", {name: STATE[name] for name in names[1:]})
    places = {name: f"{'one' if name == names[0] else 'two'}{suffix}" for name in names}
    entries = read_weight_file(write_index(tmp_path, places, suffix)).entries
    assert equal(dict(sorted(entries.items())), dict(sorted(STATE.items())))


@pytest.mark.parametrize(
    "part", ["../one.safetensors", "/etc/one.safetensors", "sub/one.safetensors", "..", ".", "", "one.py", "one"]
)
def test_a_part_outside_the_folder_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        write(place / "one.safetensors", STATE)
    index = write_index(folder, dict.fromkeys(STATE, part))
    monkeypatch.setattr(weight_files, "read_safetensors", None)
    with pytest.raises(CheckpointError, match=r"index\.json: names the part .* which is no weight file beside it"):
        read_weight_file(index)


def test_a_part_that_is_missing_or_holds_something_else_is_an_error(tmp_path: Path):
    index = write_index(tmp_path, dict.fromkeys(STATE, "one.safetensors"))
    with pytest.raises(
        CheckpointError, match=r"its part one\.safetensors is not beside it \(there is no such file\); fetch all"
    ):
        read_weight_file(index)
    for there in ({**STATE, "more": torch.ones(1)}, {"visual.a": STATE["visual.a"]}):
        write(tmp_path / "one.safetensors", there)
        with pytest.raises(CheckpointError, match=r"one\.safetensors: does not hold what .*index\.json says \("):
            read_weight_file(index)


@pytest.mark.parametrize("places", [None, [], "one.safetensors", {"a": 1}, {"a": None}, {"a": ["one"]}], ids=str)
def test_an_index_without_places_is_an_error(tmp_path: Path, places: Any):
    index = write(tmp_path / "model.safetensors.index.json", {"weight_map": places})
    with pytest.raises(CheckpointError, match=r"no index of weights: it has no table weight_map of file names"):
        read_weight_file(index)


# -- configurations


def test_a_configuration_is_an_object_of_json(tmp_path: Path):
    assert read_configuration(write(tmp_path / "config.json", {"a": [1, None]})) == {"a": [1, None]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "a list and no object with settings"),
        ("7", "a int and no object with settings"),
        ('{"a": NaN}', r"config\.json"),
        ('{"a": 1e999}', r"config\.json"),
        ('{"a": 1, "a": 2}', r"config\.json"),
        ('{"a": 1', r"config\.json"),
        ("", r"config\.json"),
        ("[" * 100_000, r"config\.json"),
    ],
    ids=lambda text: text[:20],
)
def test_another_text_is_an_error_that_names_the_file(tmp_path: Path, text: str, message: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_configuration(tmp_path / "config.json")
    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_configuration_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weight_files, "MAX_CONFIGURATION", 20)
    (tmp_path / "config.json").write_text('{"a": 1}' + " " * 20)
    with pytest.raises(CheckpointError, match="28 bytes, more than the 20 of any configuration"):
        read_configuration(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"absent\.json"):
        read_configuration(tmp_path / "absent.json")
