"""TorchScript archives read as data: the tensors of the modules, while none of the archive's code is compiled or run.

An archive is a zip file. `data.pkl` describes the tree of modules with their attributes, `data/N` holds the storages
of the tensors, and `code/` the source, of which only the lists of parameters and buffers are read, as text.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
from torch import Tensor

from utils.runtime.checkpoint import SHARED, CheckpointError
from utils.runtime.inert_pickle import Holder, Name, PickleError, read_pickle
from utils.runtime.stated_sizes import DTYPES

# Bounds of what is no tensor, far above what the largest CLIP needs.
MAX_PICKLE = 2**21
MAX_CODE = 2**25
MAX_ENTRIES = 50_000
MAX_NAME = 500
MAX_DIMENSIONS = 32
REMEDY = (
    "Only tensors are taken from a TorchScript archive, its code is never run; fetch the file again, or ask its author "
    "for the state dict (torch.save or safetensors)."
)
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
T = TypeVar("T")
CLASS_LINE = re.compile(r"class (\w+)\(Module\):")
LIST_LINE = re.compile(r"  __(?:parameters|buffers)__ = \[(.*)\]")


class Storage(NamedTuple):
    """Numbers in a member of the archive."""

    key: str
    dtype: torch.dtype
    length: int

    @property
    def nbytes(self) -> int:
        """Size of the member."""
        return self.length * self.dtype.itemsize


class Stored(NamedTuple):
    """A tensor as the archive describes it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """Parameters and buffers by name, as `torch.jit.load(path).state_dict()` would give them, on the CPU.

    Raises:
        CheckpointError: damaged, or not made of tensors and plain values alone; the message says what there is.
    """
    return _read(Path(path), lambda archive: archive.state_dict())


def root_class(path: str | Path) -> str:
    """Qualified name of the class of the archive's root module, by which programs that write archives differ.

    Raises:
        CheckpointError: as `read_torchscript`.
    """
    return _read(Path(path), lambda archive: archive.tree().kind)


def _read(path: Path, what: Callable[[_Archive], T]) -> T:
    """Something of an archive, with the errors of reading it."""
    try:
        with zipfile.ZipFile(path) as file:
            return what(_Archive(path, file))
    except PickleError as error:
        raise CheckpointError(f"{path}: its data.pkl holds {error}. {REMEDY}") from error
    except DAMAGE as error:
        raise CheckpointError(
            f"{path}: damaged TorchScript archive ({type(error).__name__}: {error}). {REMEDY}"
        ) from error


class _Archive:
    """An open archive; what it asks for is checked against the file's size before memory is taken."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self.file = path, file
        self.names = frozenset(file.namelist())
        roots = [name.removesuffix("/data.pkl") for name in self.names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            self.refuse(f"{len(roots)} members data.pkl instead of one")
        self.root = roots[0]
        self.code_left = MAX_CODE

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for a file that is not as an archive has to be."""
        raise CheckpointError(f"{self.path}: damaged TorchScript archive ({what}). {REMEDY}")

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by name."""
        order = f"{self.root}/byteorder"
        if order in self.names and self.read(order, 16) != b"little":
            self.refuse("its numbers are not little-endian")
        stored = dict(self.walk(self.tree()))
        storages = self.check(stored)
        data = {key: _numbers(self.read(self.member(key), one.nbytes), one) for key, one in storages.items()}
        return {
            name: data[one.storage.key].as_strided(one.size, one.stride, one.offset) for name, one in stored.items()
        }

    def tree(self) -> Holder:
        """The root module, with those inside it."""
        tree = read_pickle(self.read(f"{self.root}/data.pkl", MAX_PICKLE), FUNCTIONS, DTYPES, _storage)
        if not isinstance(tree, Holder):
            self.refuse(f"a {type(tree).__name__} in the place of its module")
        return tree

    def read(self, name: str, limit: int) -> bytes:
        """A whole member of at most `limit` bytes."""
        info = self.info(name)
        if info.file_size > limit:
            self.refuse(f"{name!r} has {info.file_size:,} bytes, more than the {limit:,} that it may have")
        with self.file.open(info) as member:
            content = member.read(info.file_size)  # with a number: else zlib unpacks all that there is before it stops
            if len(content) != info.file_size or member.read(1):
                self.refuse(f"{name!r} has another length than it says")
        return content

    def info(self, name: str) -> zipfile.ZipInfo:
        """The entry of a member in the table of contents."""
        if name not in self.names:
            self.refuse(f"it has no {name!r}")
        info = self.file.getinfo(name)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            self.refuse(f"{name!r} is compressed in a way that torch does not use")
        return info

    def member(self, key: str) -> str:
        """Name of the member with a storage."""
        return f"{self.root}/data/{key}"

    def walk(self, tree: Holder) -> Iterator[tuple[str, Stored]]:
        """Parameters and buffers of a module and of those inside it, by name."""
        left = [("", tree)]
        listed: dict[str, frozenset[str] | None] = {}
        count = 0
        while left:
            prefix, holder = left.pop()
            if holder.kind not in listed:
                listed[holder.kind] = self.listed(holder.kind)
            names = listed[holder.kind]
            inner = []
            for name, value in holder.attributes.items():
                count += 1
                if count > MAX_ENTRIES or len(prefix) + len(name) > MAX_NAME:
                    self.refuse("its modules have no end: too many, or too deep")
                if isinstance(value, Holder):
                    inner.append((f"{prefix}{name}.", value))
                elif isinstance(value, Stored) and (names is None or name in names):
                    yield prefix + name, value
            left += reversed(inner)

    def listed(self, kind: str) -> frozenset[str] | None:
        """Names of the parameters and buffers of a class by its source; None where the source does not list any."""
        module, _, name = kind.rpartition(".")
        member = f"{self.root}/code/{module.replace('.', '/')}.py"
        if member not in self.names:
            return None
        source = self.read(member, self.code_left)
        self.code_left -= len(source)
        found: set[str] | None = None
        for line in source.decode().splitlines():
            if header := CLASS_LINE.match(line):
                if found is not None:
                    break
                found = set() if header[1] == name else None
            elif found is not None and (names := LIST_LINE.match(line)):
                found.update(re.findall(r'"([^"]*)"', names[1]))
        return None if found is None else frozenset(found)

    def check(self, stored: dict[str, Stored]) -> dict[str, Storage]:
        """The storages by key, once every tensor lies inside its own, and all of them inside the file."""
        storages: dict[str, Storage] = {}
        for name, one in stored.items():
            if problem := _problem(one):
                self.refuse(f"{name!r} {problem}")
            if storages.setdefault(one.storage.key, one.storage) != one.storage:
                self.refuse(f"{name!r} describes the storage {one.storage.key!r} otherwise than another tensor")
        for key, storage in storages.items():
            info = self.info(self.member(key))
            if info.compress_type != zipfile.ZIP_STORED:
                self.refuse(f"{info.filename!r} is compressed, which torch does not do")
            if info.file_size != storage.nbytes:
                self.refuse(f"{info.filename!r} has {info.file_size:,} bytes, its tensors need {storage.nbytes:,}")
        there = sum(storage.nbytes for storage in storages.values())
        if there > self.path.stat().st_size:
            self.refuse("its storages are larger than the file")
        wanted = sum(math.prod(one.size) * one.storage.dtype.itemsize for one in stored.values())
        if wanted > SHARED * there:
            self.refuse(f"its tensors ask for {wanted:,} bytes of {there:,}")
        return storages


def _storage(identity: Any) -> Storage:
    """A storage by its persistent id."""
    if type(identity) is not tuple or len(identity) != 5:
        raise PickleError("a storage that is described in an unknown way")
    tag, kind, key, _, count = identity
    if tag != "storage" or not isinstance(kind, Name) or kind.text not in DTYPES or type(key) is not str:
        raise PickleError("a storage that is described in an unknown way")
    if type(count) is not int or count < 0:
        raise PickleError("a storage without a count of its numbers")
    return Storage(key, DTYPES[kind.text], count)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Stored:
    """What `torch._utils._rebuild_tensor_v2` is asked for."""
    numbers = (offset, *size, *stride) if type(size) is type(stride) is tuple else (None,)
    if not isinstance(storage, Storage) or not all(type(number) is int and number >= 0 for number in numbers):
        raise PickleError("a tensor that is described in an unknown way")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise PickleError(f"a tensor of {len(size)} dimensions with {len(stride)} strides")
    return Stored(storage, offset, size, stride)


def _first(value: Any, *_: Any) -> Any:
    return value


def _ordered_dict() -> dict[Any, Any]:
    return {}


def _nothing(*_: Any) -> None:
    return None


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "collections.OrderedDict": _ordered_dict,
    "torch.device": _nothing,
    # lists of one type, and a container with the name of its type: the container itself
    **{f"torch.jit._pickle.build_{kind}list": _first for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": _first,
}


def _problem(one: Stored) -> str:
    """What is wrong with where a tensor lies in its storage; "" if nothing is."""
    count = math.prod(one.size)
    if count > one.storage.length:
        return f"has {count:,} numbers in a storage of {one.storage.length:,}"
    last = sum((length - 1) * step for length, step in zip(one.size, one.stride, strict=True)) if count else -1
    if one.offset + last >= one.storage.length and (count or one.offset > one.storage.length):
        return "lies outside its storage"
    return ""


def _numbers(content: bytes, storage: Storage) -> Tensor:
    if not content:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(bytearray(content), dtype=storage.dtype)
