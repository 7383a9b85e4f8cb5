"""Checkpoints: readable without unpickling, atomic, with errors that say what to do."""

import errno
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from utils.runtime.checkpoint import (
    CheckpointError,
    CheckpointFolder,
    check_own,
    is_own,
    is_torchscript,
    load,
    load_parameters,
    model_content,
    save_atomically,
)

ROOT = Path(__file__).parents[3]


@dataclass
class Sizes:
    width: int = 3
    name: str = "toy"


class Toy(nn.Linear):
    def __init__(self, width: int = 3) -> None:
        super().__init__(width, 2)
        self.config, self.behaviour = Sizes(width), Sizes()


def test_own_checkpoint_round_trip_with_weights_only(tmp_path):
    model = Toy()
    save_atomically(model_content(model, 7, 1), tmp_path / "a.bin")
    state = torch.load(tmp_path / "a.bin", weights_only=True)
    check_own(state, "a.bin")
    assert is_own(state) and state["config"] == {"width": 3, "name": "toy"} and state["global_step"] == 7
    other = Toy()
    load_parameters(other, state["model"], "a.bin")
    assert torch.equal(other.weight, model.weight)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("value", [np.float32(1), {1.5: 2}, [Sizes()], Path("x"), torch.float32])
def test_other_objects_are_refused_before_anything_is_written(tmp_path, value):
    with pytest.raises(CheckpointError, match="checkpoint"):
        save_atomically({"a": value}, tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_previous_file_and_names_the_remedy(tmp_path, monkeypatch, call):
    path = tmp_path / "restore.bin"
    save_atomically({"step": 1}, path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match=r"restore\.bin: checkpoint not saved \(No space left.*Free space"):
        save_atomically({"step": 2}, path)
    assert load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["restore.bin"]


@pytest.mark.slow
def test_disk_that_fills_while_tensors_are_written(tmp_path):
    """A file-size limit makes write(2) itself fail half-way, as a full disk does."""
    code = f"""
import resource, sys, torch
sys.path.insert(0, {str(ROOT)!r})
from utils.runtime.checkpoint import CheckpointError, load, save_atomically
save_atomically({{"step": 1}}, "restore.bin")
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    save_atomically({{"step": 2, "big": torch.zeros(1_000_000)}}, "restore.bin")
except CheckpointError as error:
    assert "restore.bin: checkpoint not saved (File too large)" in str(error), error
    assert load("restore.bin") == {{"step": 1}}
    sys.exit(42)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 42, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["restore.bin"]


class Foreign:
    pass


def test_unusable_files_are_named(tmp_path):
    good = tmp_path / "good.bin"
    save_atomically({"a": torch.ones(1000)}, good)
    (tmp_path / "cut.bin").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "text.bin").write_bytes(b"hello world" * 100)
    torch.save({"a": Foreign()}, tmp_path / "foreign.bin")
    torch.save(torch.ones(2), tmp_path / "tensor.bin")
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "script.bin")
    expected = {
        "absent": "no such checkpoint",
        "cut": "damaged, cut short",
        "empty": "damaged, cut short",
        "text": "damaged, cut short",
        "foreign": "Python objects besides tensors",
        "tensor": "holds a Tensor",
        "script": "--clip_archive",
    }
    for name, message in expected.items():
        with pytest.raises(CheckpointError, match=rf"{name}\.bin.*{message}"):
            load(tmp_path / f"{name}.bin")


def test_other_sizes_name_keys_and_both_shapes():
    parameters = Toy(4).state_dict()
    del parameters["bias"]
    parameters["lost"] = torch.ones(1)
    with pytest.raises(CheckpointError) as caught:
        load_parameters(Toy(3), parameters, "x.bin")
    message = str(caught.value)
    assert "weight: [2, 4] in the file, [2, 3] in the model" in message
    assert "bias: missing in the file" in message and "lost: unknown to the model" in message


def test_foreign_and_newer_checkpoints_are_told_apart():
    with pytest.raises(CheckpointError, match="not a checkpoint of this project"):
        check_own({"model_state_dict": {}}, "x.bin")
    with pytest.raises(CheckpointError, match="update the code"):
        check_own({**model_content(Toy(), 0, 0), "version": 99}, "x.bin")


@dataclass
class Kept:
    keep: int | None
    steps: list[int] = field(default_factory=list)


@pytest.mark.parametrize("case", [Kept(None, [1, 2, 3]), Kept(2, [2, 3]), Kept(1, [3])])
def test_retention(tmp_path, case):
    folder = CheckpointFolder(tmp_path, keep=case.keep)
    for step in (1, 2, 3):
        path = folder.save(model_content(Toy(), step, 0), {"optimizer": {}})
        assert path.exists()
    assert folder.saved_steps() == case.steps
    restored = load(folder.restore_path)
    assert restored["global_step"] == 3 and "optimizer" in restored and "optimizer" not in load(path)


def test_ordered_dicts_are_plain(tmp_path):
    save_atomically({"a": OrderedDict(x=torch.ones(1))}, tmp_path / "a.bin")
    assert torch.equal(load(tmp_path / "a.bin")["a"]["x"], torch.ones(1))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            torch.zeros(1).as_strided((120_000, 1_000_000), (0, 0)),
            r"\[120000, 1000000\] asks for 480,000,000,000 bytes",
        ),
        (torch.zeros(8).as_strided((3, 8), (0, 1)), r"asks for 96 bytes and has 32 in the file.*whole tensors"),
        (torch.empty(10**9, device="meta"), "not dense"),
    ],
)
def test_tensors_larger_than_the_file_are_refused_at_once(tmp_path, tensor, message):
    path = tmp_path / "bomb.bin"
    torch.save({"model": {"deep": [tensor]}}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=rf"bomb\.bin: .*{message}"):
        load(path)


def test_tied_weights_are_read_and_one_tensor_under_many_names_is_not(tmp_path):
    tied, path = torch.ones(1000), tmp_path / "tied.bin"
    save_atomically({"a": tied, "b": tied, "c": tied.view(10, 100), "part": tied[:10], "none": torch.zeros(0)}, path)
    assert torch.equal(load(path)["c"], torch.ones(10, 100))
    save_atomically({f"a{n}": tied for n in range(100)}, path)
    with pytest.raises(
        CheckpointError, match=r"tied\.bin: its tensors ask for 400,000 bytes and have 4,000 in the file"
    ):
        load(path)


def test_lists_that_double_themselves_are_refused(tmp_path):
    inner: list = [torch.ones(1)]
    for _ in range(60):
        inner = [inner, inner]
    inner[0].append(inner)
    torch.save({"a": inner}, tmp_path / "round.bin")
    with pytest.raises(CheckpointError, match=r"round\.bin: .* values, lists inside each other"):
        load(tmp_path / "round.bin")


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "whole.bin")
    small = zipfile.ZipFile(tmp_path / "small.bin", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "whole.bin") as whole, small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(CheckpointError, match=r"small\.bin: compressed, which torch\.save does not do"):
        load(tmp_path / "small.bin")


def test_a_damaged_table_of_contents_is_a_clear_error(tmp_path):
    path = tmp_path / "a.bin"
    save_atomically({"a": torch.ones(3)}, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PK\x01\x02", b"PK\x07\x07"))
    assert not is_torchscript(path) and not is_torchscript(tmp_path / "absent.bin")
    with pytest.raises(CheckpointError, match=r"a\.bin: no readable torch checkpoint"):
        load(path)


def test_an_older_torch_does_not_read_weights(tmp_path, monkeypatch):
    save_atomically({"a": 1}, tmp_path / "a.bin")
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1+cpu"))
    with pytest.raises(CheckpointError, match=r"a\.bin: torch 2\.9\.1\+cpu could run code.*install 2\.10"):
        load(tmp_path / "a.bin")
