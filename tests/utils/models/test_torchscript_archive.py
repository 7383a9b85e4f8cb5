"""TorchScript archives as data: the tensors that torch.jit.load gives, no code, and no more memory than the file."""

from __future__ import annotations

import random
import re
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.utils.models.scripted import (
    Inner,
    Outer,
    jit_state,
    rewritten,
    save_script,
    save_trace,
    save_writer,
    with_pickle,
)
from tests.utils.models.small_clip import STATE
from utils.models import torchscript_archive
from utils.models.random_clip import half_weights, save_archive
from utils.models.torchscript_archive import read_torchscript
from utils.runtime.checkpoint import CheckpointError

COUNT = b"K\x02tQ"  # of the storage of `bias`, behind its place
BIAS = b"K\x00(K\x02t(K\x01t"  # offset, size and stride of `bias`


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(
        torch.equal(first[name], second[name])
        and first[name].dtype == second[name].dtype
        and first[name].stride() == second[name].stride()
        for name in first
    )


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """A linear layer of weight (2, 3) and bias (2,)."""
    return save_script(torch.nn.Linear(3, 2), tmp_path / "linear.pt")


def fails(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read_torchscript(path)
    assert str(caught.value).startswith(f"{path}: ") and "its code is never run; fetch the file again" in str(
        caught.value
    )


@pytest.mark.parametrize("kind", ["script", "trace"])
def test_the_tensors_are_those_that_torch_reads(tmp_path: Path, kind: str):
    path = tmp_path / "module.pt"
    if kind == "script":
        save_script(Outer(), path)
    else:
        save_trace(Inner(), torch.zeros(4, 3), path)
    ours = read_torchscript(path)
    assert same(ours, jit_state(path)) and len(ours) > 10
    assert not any(value.requires_grad for value in ours.values())


def test_attributes_without_a_list_in_the_source_all_count(tmp_path: Path):
    path = save_script(Outer(), tmp_path / "whole.pt")
    bare = rewritten(path, lambda name, data: None if "/code/" in name else data, tmp_path / "bare.pt")
    assert set(read_torchscript(bare)) == {*jit_state(path), "plain"}


@pytest.mark.parametrize("half", [False, True])
def test_archives_of_openais_shape_come_back(tmp_path: Path, half: bool):
    state = half_weights(STATE) if half else STATE
    save_archive(state, tmp_path / "clip.pt")
    ours = read_torchscript(tmp_path / "clip.pt")
    assert same(ours, jit_state(tmp_path / "clip.pt")) and set(ours) == set(STATE)
    assert all(torch.equal(ours[name], value) and ours[name].dtype == value.dtype for name, value in state.items())


def test_other_types_of_numbers(tmp_path: Path):
    types = (torch.bfloat16, torch.float64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    module = torch.nn.Module()
    for index, kind in enumerate(types):
        module.register_buffer(f"b{index}", torch.tensor([1, 0, 1]).to(kind))
    path = save_script(module, tmp_path / "types.pt")
    assert same(read_torchscript(path), jit_state(path))


def test_an_archive_that_writes_a_file_does_not(tmp_path: Path):
    victim = tmp_path / "victim.py"
    victim.write_text("unchanged")
    fails(save_writer(tmp_path / "evil.pt", victim), "an object of '__torch__.*Writer' with a __setstate__ of its own")
    assert victim.read_text() == "unchanged"
    jit_state(tmp_path / "evil.pt")
    assert victim.read_text() == "evilanged", "the archive is what it is meant to be"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"ctorch._utils\n_rebuild_tensor_v2\n", b"cos\nsystem\n", r"data\.pkl holds the name 'os\.system'"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nload\n", r"data\.pkl holds the name 'torch\.load'"),
        (b"ctorch\nFloatStorage\n", b"ctorch\nComplexFloatStorage\n", r"the name 'torch\.ComplexFloatStorage'"),
        (BIAS, b"K\x01(K\x02t(K\x01t", "'bias' lies outside its storage"),
        (BIAS, b"K\x00(K\x02t(K\x02t", "'bias' lies outside its storage"),
        (BIAS, b"K\x00(J\xff\xff\xff\x7ft(K\x00t", "'bias' has 2,147,483,647 numbers in a storage of 2"),
        (BIAS, b"K\x00(K\x00t(K\x01t", None),
        (BIAS, b"K\x03(K\x00t(K\x01t", "'bias' lies outside its storage"),
        (BIAS, b"K\x00(K\x02t(J\xff\xff\xff\xfft", "a tensor that is described in an unknown way"),
        (BIAS, b"J\xff\xff\xff\xff(K\x02t(K\x01t", "a tensor that is described in an unknown way"),
        (BIAS, b"K\x00(K\x02K\x01t(K\x01t", "2 dimensions with 1 strides"),
        (BIAS, b"K\x00(" + b"K\x01" * 40 + b"t(" + b"K\x01" * 40 + b"t", "40 dimensions"),
        (BIAS, b"K\x00(G?\xf0\x00\x00\x00\x00\x00\x00t(K\x01t", "a tensor that is described in an unknown way"),
        (COUNT, b"K\x03tQ", "has 8 bytes, its tensors need 12"),
        (COUNT, b"J\xff\xff\xff\x7ftQ", "has 8 bytes, its tensors need 8,589,934,588"),
        (COUNT, b"\x89tQ", "a storage without a count"),
        (b"storage", b"storag_", "a storage that is described in an unknown way"),
        (b"X\x01\x00\x00\x001q", b"X\x01\x00\x00\x000q", "describes the storage '0' otherwise"),
        (b"X\x01\x00\x00\x001q", b"X\x01\x00\x00\x007q", "it has no 'linear/data/7'"),
        (b"X\x01\x00\x00\x001q", b"X\x0b\x00\x00\x00../data.pklq", r"it has no 'linear/data/\.\./data\.pkl'"),
    ],
)
def test_what_a_changed_pickle_asks_for_is_refused(
    linear: Path, tmp_path: Path, old: bytes, new: bytes, message: str | None
):
    def change(content: bytes) -> bytes:
        assert content.count(old) == 1
        return content.replace(old, new)

    path = with_pickle(linear, change, tmp_path / "changed.pt")
    if message is None:
        assert read_torchscript(path)["bias"].shape == (0,)
    else:
        fails(path, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"}.", "a dict in the place of its module"),
        (b"", "no readable pickle"),
        (b"c__torch__.m\nM\n)\x81}X\x01\x00\x00\x00a(" + b"l" * 100, "no readable pickle|the opcode LIST"),
        (b"c__torch__.m\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.", "its modules have no end"),
        (b"K\x01" * 2**20 + b".", "more than the 2,097,152 that it may have"),
    ],
)
def test_other_pickles_are_refused(linear: Path, tmp_path: Path, content: bytes, message: str):
    fails(with_pickle(linear, lambda _: content, tmp_path / "changed.pt"), message)


def test_modules_that_double_themselves_end(linear: Path, tmp_path: Path):
    """Sixty modules, each there twice in the next one: 2^60 names."""
    module, pair = b"c__torch__.m\nM\n)\x81", b"}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cub"
    content = module + b"q\x00" + b"".join(module + pair % (n, n) + b"q%c" % (n + 1) for n in range(60)) + b"."
    fails(with_pickle(linear, lambda _: content, tmp_path / "double.pt"), "its modules have no end")


def test_a_deep_tree_of_modules_ends(linear: Path, tmp_path: Path):
    depth = 50_000
    content = b"c__torch__.m\nM\n)\x81}X\x00\x00\x00\x00" * depth + b"N" + b"sb" * depth + b"."
    fails(with_pickle(linear, lambda _: content, tmp_path / "deep.pt"), "its modules have no end")


def test_one_storage_under_many_names_is_refused(linear: Path, tmp_path: Path):
    """The tensors lie in the file; as many copies of them as there are names would not."""

    def change(content: bytes) -> bytes:
        bias = content.index(b"X\x04\x00\x00\x00bias")
        value = re.search(rb"Rq(.)", content[bias:], re.DOTALL)[1]
        more = b"".join(b"X\x03\x00\x00\x00%03dh%c" % (n, value[0]) for n in range(200))
        return content[:-4] + more + content[-4:] if content[-4:-2] == b"ub" else content.replace(b"ub", more + b"ub")

    bare = rewritten(linear, lambda name, data: None if "/code/" in name else data, tmp_path / "bare.pt")
    fails(with_pickle(bare, change, tmp_path / "many.pt"), r"its tensors ask for [\d,]+ bytes of 32")


@pytest.mark.parametrize("member", ["data.pkl", "data/0", "data/1"])
def test_a_missing_member_is_named(linear: Path, tmp_path: Path, member: str):
    path = rewritten(linear, lambda name, data: None if name == f"linear/{member}" else data, tmp_path / "changed.pt")
    fails(path, "0 members data.pkl" if member == "data.pkl" else f"it has no 'linear/{member}'")


def test_a_storage_of_another_size_and_other_byte_order_are_refused(linear: Path, tmp_path: Path):
    path = rewritten(linear, lambda name, data: data[:-1] if name.endswith("/data/1") else data, tmp_path / "short.pt")
    fails(path, r"'linear/data/1' has 7 bytes, its tensors need 8")
    path = rewritten(linear, lambda name, data: b"big" if name.endswith("/byteorder") else data, tmp_path / "big.pt")
    fails(path, "not little-endian")


def test_truncated_and_scribbled_archives_are_refused(linear: Path, tmp_path: Path):
    content, path = linear.read_bytes(), tmp_path / "damaged.pt"
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        fails(path, "damaged TorchScript archive")
    numbers = random.Random(0)
    expected, refused = jit_state(linear), 0
    for _ in range(300):
        place = numbers.randrange(len(content))
        path.write_bytes(content[:place] + bytes([numbers.randrange(256)]) + content[place + 1 :])
        try:
            assert set(read_torchscript(path)) <= {*expected, "plain"}
        except CheckpointError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("lie", [False, True])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(linear: Path, tmp_path: Path, monkeypatch, lie: bool):
    size = 50_000_000

    def change(name: str, data: bytes) -> bytes:
        return bytes(size) if name.endswith("/data/1") else data

    path = rewritten(linear, change, tmp_path / "bomb.pt", zipfile.ZIP_DEFLATED)
    if lie:  # the table of contents says 8 bytes, as the tensor needs
        path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 8)))
    monkeypatch.setattr(torchscript_archive, "_numbers", None)
    fails(path, "'linear/data/1' is compressed|'linear/data/0' is compressed")
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("ending", ["data.pkl", ".py"])
def test_other_members_are_bounded(linear: Path, tmp_path: Path, ending: str):
    with zipfile.ZipFile(linear) as archive:  # the name of its code depends on what was scripted before
        member = next(name for name in archive.namelist() if name.endswith(ending))

    def change(name: str, data: bytes) -> bytes:
        return bytes(2**26) if name == member else data

    path = rewritten(linear, change, tmp_path / "bomb.pt", zipfile.ZIP_DEFLATED)
    fails(path, f"'{member}' has 67,108,864 bytes, more than")


def test_storages_that_overlap_in_the_file_are_refused(tmp_path: Path):
    """A table of contents that names the same bytes a hundred times."""
    module = torch.nn.Module()
    for index in range(100):
        module.register_buffer(f"b{index}", torch.zeros(10_000))
    path = save_script(module, tmp_path / "many.pt")
    kept = rewritten(path, lambda name, data: None if re.search(r"/data/[1-9]", name) else data, tmp_path / "one.pt")
    with zipfile.ZipFile(kept, "a") as archive:
        first = archive.getinfo("many/data/0")
        for index in range(1, 100):
            info = zipfile.ZipInfo(f"many/data/{index}")
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.file_size = info.compress_size = first.file_size
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
        archive._didModify = True
    assert kept.stat().st_size < 100_000
    fails(kept, "its storages are larger than the file")
