"""Mutations of archives: members of zip files, PyTorch's files, npz and safetensors."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import torch

from tests.campaigns.fuzzing.forms import INF, NAN, VALUES
from tests.campaigns.fuzzing.mutators import damaged
from tests.campaigns.fuzzing.reader import Expected, Mutant, Mutator

BOMB = bytes(1 << 28)  # bytes that pack to a thousandth
CODE = (
    b"cos\nsystem\nX\x04\x00\x00\x00echo\x85R.",
    b"cbuiltins\nexec\nX\x04\x00\x00\x00pass\x85R.",
    b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
    b"c__builtin__\ngetattr\nX\x01\x00\x00\x00aX\x01\x00\x00\x00b\x86R.",
)


def _members(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def members_changed(content: bytes, draw: Random) -> Mutant:
    """Members damaged, left out, renamed, exchanged or added; their checksums are right."""
    members = _members(content)
    for _ in range(draw.choice((1, 1, 2))):
        name, kind = draw.choice(sorted(members)), draw.randrange(5)
        if kind == 0:
            members[name] = damaged(members[name], draw).content
        elif kind == 1:
            del members[name]
        elif kind == 2:
            members[draw.choice(("x", f"../{name}", f"{name}.txt", "a/data.pkl", name.upper()))] = members.pop(name)
        elif kind == 3:
            members[name] = members[draw.choice(sorted(members))]
        else:
            members[draw.choice(("x", "archive/constants.pkl", "../x", "archive/code/x.py"))] = draw.randbytes(20)
        members = members or {"x": b""}
    return Mutant(zipped(members), "members changed")


def packed(expected: Expected | None) -> Mutator:
    """The same members, compressed."""
    return lambda content, draw: Mutant(zipped(_members(content), zipfile.ZIP_DEFLATED), "compressed", expected)


def bomb(content: bytes, draw: Random) -> Mutant:
    """A member of 256 MB of zeros, packed."""
    members = _members(content)
    name = draw.choice(sorted(members))
    return Mutant(zipped({**members, name: BOMB}, zipfile.ZIP_DEFLATED), "a bomb", Expected.REFUSED)


def code(content: bytes, draw: Random) -> Mutant:
    """A pickle that calls something."""
    members = _members(content)
    names = [name for name in members if name.endswith("data.pkl")]
    if not names:
        raise ValueError("no pickle in it")
    return Mutant(
        zipped({**members, names[0]: b"\x80\x02" + draw.choice(CODE)}), "a pickle that calls", Expected.REFUSED
    )


State = dict[str, Any]
Change = Callable[[State, Random], Any]


def torch_file(state: Any) -> bytes:
    """What `torch.save` writes."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def of_state(what: str, expected: Expected | None, change: Change) -> Mutator:
    """A change of what a file of `torch.save` holds; ValueError where it does not apply."""

    def mutate(content: bytes, draw: Random) -> Mutant:
        state = torch.load(io.BytesIO(content), weights_only=True)
        changed = change(state, draw)
        return Mutant(torch_file(state if changed is None else changed), what, expected)

    return mutate


def state_mutators(needed: Callable[[State], tuple[State, Sequence[str]]]) -> tuple[Mutator, ...]:
    """Mutations of PyTorch's files with tensors.

    Args:
        needed: gives the dictionary of tensors in what the file holds, and names in it that a model cannot lack.
    """

    def entry(values: Callable[[torch.Tensor, Random], Any]) -> Change:
        def change(state: State, draw: Random) -> None:
            tensors, names = needed(state)
            name = draw.choice(names)
            tensors[name] = values(tensors[name], draw)

        return change

    def drop(state: State, draw: Random) -> None:
        tensors, names = needed(state)
        del tensors[draw.choice(names)]

    return (
        members_changed,
        members_changed,
        packed(Expected.REFUSED),
        bomb,
        code,
        of_state("a tensor dropped", Expected.REFUSED, drop),
        of_state("a tensor of another shape", Expected.REFUSED, entry(_other_shape)),
        of_state("a tensor of one number", Expected.REFUSED, entry(_expanded)),
        of_state("no tensor", Expected.REFUSED, entry(lambda tensor, draw: draw.choice(VALUES[:20]))),
        of_state("a tensor of another kind", None, entry(_other_kind)),
        of_state(
            "something else",
            Expected.REFUSED,
            lambda state, draw: draw.choice(([], {}, 5, [state], torch.zeros(2))),
        ),
    )


def _other_shape(tensor: torch.Tensor, draw: Random) -> torch.Tensor:
    return draw.choice(
        (torch.zeros(0), torch.zeros(3, 3, 3, 3, 3), torch.cat([tensor.reshape(-1)] * 2), tensor[None, None])
    )


def _expanded(tensor: torch.Tensor, draw: Random) -> torch.Tensor:
    """A tensor with strides of 0, of any size."""
    return torch.zeros(1).expand(draw.choice(((10**10,), (10**6, 10**5), (2**62,), (10**5, 10**5, 3))))


def _other_kind(tensor: torch.Tensor, draw: Random) -> torch.Tensor:
    kinds: Sequence[Callable[[torch.Tensor], torch.Tensor]] = (
        lambda one: one.double(),
        lambda one: one.half(),
        lambda one: one.to(torch.int8),
        lambda one: one > 0,
        lambda one: one.to(torch.complex64),
        lambda one: one * NAN,
        lambda one: one * INF,
        lambda one: one.to_sparse(),
        lambda one: one.to("meta"),
        lambda one: torch.nn.Parameter(one.float()),
    )
    return draw.choice(kinds)(tensor)


def tensors_of_safetensors(content: bytes, draw: Random) -> Mutant:
    """The head of a safetensors file with another offset, shape or type."""
    size = struct.unpack_from("<Q", content)[0]
    head = json.loads(content[8 : 8 + size])
    entry = head[draw.choice([name for name in head if name != "__metadata__"])]
    kind = draw.choice(("data_offsets", "shape", "dtype"))
    if kind == "dtype":
        entry[kind] = draw.choice(("F64", "I64", "U8", "X", "", None))
    else:
        entry[kind][draw.randrange(len(entry[kind]))] = draw.choice((-1, 10**12, 2**63, 2**64, None, "1", 1.5))
    text = json.dumps(head).encode()
    return Mutant(struct.pack("<Q", len(text)) + text + content[8 + size :], f"another {kind}", Expected.REFUSED)


def array_of_npz(content: bytes, draw: Random) -> Mutant:
    """An array of an npz file with another shape, type or content."""
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file}
    name = draw.choice(sorted(arrays))
    array = arrays[name]
    changes: Sequence[Callable[[], np.ndarray]] = (
        lambda: array.reshape(-1),
        lambda: array[None],
        lambda: array[:0] if array.ndim else array,
        lambda: np.zeros(0),
        lambda: np.concatenate([array, array]),
        lambda: array.astype("U8"),
        lambda: array.astype(np.complex64),
        lambda: array.astype(np.int8),
        lambda: np.full(array.shape, NAN),
        lambda: array.astype(np.float64),
        lambda: array[..., :1],
        lambda: np.zeros((1 << 26,), np.uint8),
    )
    arrays[name] = draw.choice(changes)()
    file_out = io.BytesIO()
    (np.savez if draw.random() < 0.5 else np.savez_compressed)(file_out, **arrays)
    return Mutant(file_out.getvalue(), "another array", None)
