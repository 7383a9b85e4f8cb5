"""Files of tensors: whole ones are read, others are errors before memory is taken for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from utils.runtime.checkpoint import CheckpointError
from utils.runtime.safetensors_files import read_metadata, read_safetensors

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.tensor(3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with what it says of itself."""
    save_file(TENSORS, tmp_path / "a.safetensors", {"format": "mine"})
    return tmp_path / "a.safetensors"


def test_tensors_come_back_as_they_are(path: Path):
    found = read_safetensors(path)
    assert found.keys() == TENSORS.keys() and read_metadata(path) == {"format": "mine"}
    for name, value in TENSORS.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)
    save_file(TENSORS, path)
    assert read_metadata(path) == {}


@pytest.mark.parametrize("size", [0, 4, 8, 60, 200])
def test_a_file_that_is_cut_short_is_an_error(path: Path, size: int):
    os.truncate(path, size)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: no readable safetensors file \(.*fetch it again"):
        read_safetensors(path)
    assert size > 150 or read_metadata(path) == {}


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"format":3},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"[]",
        b"[" * 100_000,
    ],
)
def test_a_table_of_contents_that_does_not_fit_is_an_error(path: Path, header: bytes):
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: no readable safetensors file"):
        read_safetensors(path)
    assert read_metadata(path) == {}


def test_what_is_no_file_and_a_table_without_end_are_errors(path: Path):
    os.mkfifo(path.parent / "pipe")
    for name, message in ((".", "a folder, not"), ("gone", "there is no such file"), ("pipe", "a pipe or a device")):
        place = path.parent / name
        with pytest.raises(CheckpointError, match=f"no safetensors file: {message}"):
            read_safetensors(place)
        assert read_metadata(place) == {}
    path.write_bytes((2**40).to_bytes(8, "little"))
    with pytest.raises(CheckpointError, match="a header of 1,099,511,627,776 bytes, more than 16,777,216"):
        read_safetensors(path)
    assert read_metadata(path) == {}
