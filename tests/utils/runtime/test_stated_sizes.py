"""A torch file's description is held against the file before torch reads it."""

from __future__ import annotations

import io
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from utils.runtime.checkpoint import CheckpointError, load
from utils.runtime.inert_pickle import PickleError
from utils.runtime.stated_sizes import MAX_DESCRIPTION, check_stated


@pytest.fixture(autouse=True)
def _no_torch_load(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "sound" not in request.node.name:
        monkeypatch.setattr(torch, "load", None)


def described(path: Path, pickled: bytes) -> Path:
    """Write a torch file with another description."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            target.writestr(info.filename, pickled if info.filename.endswith("data.pkl") else source.read(info))
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_sound_files_are_read(tmp_path: Path, zipped: bool):
    tied = nn.Parameter(torch.ones(3, 4))
    values = {"size": torch.Size((1, 2)), "dtype": torch.float16, "none": None, "many": [1.5, (2, "x")], "bytes": b"a"}
    plain = {**values, "set": {1, 2}, "counter": Counter([3]), "complex": 1j, "device": torch.device("cpu")}
    state = {"model": nn.LSTM(2, 3).state_dict(), "tied": [tied, tied.data.t()], "ordered": OrderedDict(a=1), **plain}
    state["many_types"] = [torch.zeros(2, dtype=kind) for kind in (torch.uint8, torch.bfloat16, torch.int64)]
    torch.save(state, tmp_path / "a.bin", _use_new_zipfile_serialization=zipped)
    read = load(tmp_path / "a.bin")
    assert {name: read[name] for name in plain} == plain and isinstance(read["model"], OrderedDict)
    assert torch.equal(read["tied"][1], tied.data.t())


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"cbuiltins\nbytearray\n\x8a\x06" + struct.pack("<q", 10**12)[:6] + b"\x85R.", "Python objects besides"),
        (b"ctorch\nFloatStorage\n\x8a\x06" + struct.pack("<q", 10**12)[:6] + b"\x85R.", "Python objects besides"),
        (b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R.", "not dense"),
        (b"K\x01q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(40)) + b"}h\x28K\x01s.", "a key"),
        (b"ccollections\nCounter\n]K\x01\x85a\x85R.", "a set of what is neither"),
        (b"ccollections\nOrderedDict\n]](K\x01\x85K\x02ea\x85R.", "a key that is neither"),
        (b"]" * 200 + b"a" * 199 + b".", "101 deep"),
        (b"]" * (MAX_DESCRIPTION + 1), "a description of more than"),
        (b"]r\xff\xff\xff\x7f", "no readable pickle"),
    ],
)
def test_what_asks_for_memory_or_has_no_end_is_refused_before_torch_reads_it(
    tmp_path: Path, pickled: bytes, message: str
):
    with pytest.raises(CheckpointError, match=rf"a\.bin: .*{message}"):
        load(described(tmp_path / "a.bin", pickled))


def legacy(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "old.bin"
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def test_an_old_file_whose_storage_is_larger_than_the_file_is_refused(tmp_path: Path):
    path = legacy(tmp_path, {"a": torch.zeros(1000)})
    check_stated(path)
    path.write_bytes(path.read_bytes().replace(b"M\xe8\x03N", b"\x8a\x06" + struct.pack("<q", 10**12)[:6] + b"N"))
    with pytest.raises(PickleError, match=r"storages of more bytes than the file's"):
        check_stated(path)


@pytest.mark.parametrize(
    "content", [b"X\xff\xff\xff\xffabc.", b"]r\xff\xff\xff\x7f.", b"", b"c" * 100, b"PK\x03\x04" * 9]
)
def test_damaged_old_files_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.bin: no readable torch checkpoint"):
        load(tmp_path / "a.bin")
