"""What a torch file states of its content, read as data and held against the file before torch takes memory for it."""

from __future__ import annotations

import mmap
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from modules.plain_pickle import check_values
from utils.runtime.inert_pickle import KEYS, Name, PickleError, Source, read_pickle

MAX_DESCRIPTION = 1 << 24  # bytes that say which tensors there are; those of 10,000 parameters and Adam take 3 MB
HEADINGS = 3  # pickles in front of the content in a file of torch before 1.6
ZIP_START = b"PK\x03\x04"  # by which torch tells the two formats apart
DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, RuntimeError)


def check_stated(path: Path) -> None:
    """Read a torch file's description of its content.

    Raises:
        PickleError: it is damaged, stands for more values than any such file has or for storages larger than the file,
            or asks for a call of anything but what makes dense tensors and plain values.
    """
    stated = _Stated(path.stat().st_size)
    try:
        with _descriptions(path) as sources:
            for source in sources:
                tree = read_pickle(source, FUNCTIONS, _TorchNames(), stated.storage)
                check_values(tree, "its description")
    except PickleError:
        raise
    except ValueError as error:
        raise PickleError(str(error)) from error
    except DAMAGE as error:
        raise PickleError(f"no readable file ({type(error).__name__}: {error})") from error


@contextmanager
def _descriptions(path: Path) -> Iterator[list[bytes | Source]]:
    """The pickles of a file that describe its content, each to be read when the one before has been."""
    with path.open("rb") as file:
        if file.read(len(ZIP_START)) == ZIP_START:
            with zipfile.ZipFile(path) as archive:
                members = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
                if any(info.file_size > MAX_DESCRIPTION for info in members) or not members:
                    raise PickleError(f"a description of more than {MAX_DESCRIPTION:,} bytes, or none")
                yield [archive.read(info) for info in members]
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield [_Bounded(content)] * (HEADINGS + 1)


class _Bounded:
    """A mapped file of which no more is read than a description may have."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content

    def read(self, n: int = 1, /) -> bytes:
        """See `Source`."""
        return self._counted(self.content.read(max(0, min(n, MAX_DESCRIPTION))))

    def readline(self) -> bytes:
        """See `Source`."""
        end = self.content.find(b"\n", self.content.tell(), self.content.tell() + MAX_DESCRIPTION)
        return self._counted(self.content.read(0 if end < 0 else end + 1 - self.content.tell()))

    def _counted(self, data: bytes) -> bytes:
        if self.content.tell() > MAX_DESCRIPTION:
            raise PickleError(f"a description of more than {MAX_DESCRIPTION:,} bytes")
        return data


class _TorchNames:
    """Types and layouts; mentioning one does nothing."""

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and text.startswith("torch.")


class _Stated:
    """Adds up what the storages of a file of `size` bytes are said to hold."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.storages: dict[str, int] = {}
        self.total = 0

    def storage(self, identity: Any) -> tuple[()]:
        """Count a storage by its persistent id: ("storage", type, key, place, numbers, ...)."""
        is_storage = type(identity) is tuple and len(identity) >= 5 and identity[0] == "storage"
        if not is_storage or type(identity[2]) not in KEYS or type(identity[4]) is not int or identity[4] < 0:
            raise PickleError("a storage that is described in an unknown way")
        kind, key, count = identity[1], str(identity[2]), identity[4]
        width = DTYPES.get(kind.text if isinstance(kind, Name) else "", torch.uint8).itemsize
        before = self.storages.get(key, 0)
        self.storages[key] = max(before, count * width)
        self.total += self.storages[key] - before
        if self.total > self.size:
            raise PickleError(f"storages of more bytes than the file's {self.size:,}")
        return ()


def _nothing(*_: Any) -> tuple[()]:
    return ()


def _counted(items: Any = ()) -> tuple[()]:
    """A set or a counter of plain keys."""
    if type(items) not in (list, tuple, dict) or not all(type(item) in KEYS for item in items):
        raise PickleError("a set of what is neither text nor a number")
    return ()


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    if type(pairs) is not list and pairs != ():
        raise PickleError("entries for what is not a dict")
    if not all(type(pair) in (list, tuple) and len(pair) == 2 and type(pair[0]) in KEYS for pair in pairs):
        raise PickleError("a key that is neither text nor a number")
    return OrderedDict(pairs)


# What torch may be asked to call; here it makes nothing, or a container.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _nothing,
    "torch._utils._rebuild_tensor_v2": _nothing,
    "torch._utils._rebuild_tensor_v3": _nothing,
    "torch._utils._rebuild_parameter": _nothing,
    "torch._utils._rebuild_parameter_with_state": _nothing,
    "torch.Size": _nothing,
    "torch.device": _nothing,
    "torch.serialization._get_layout": _nothing,
    "_codecs.encode": _nothing,
    "builtins.complex": _nothing,
    "__builtin__.complex": _nothing,
    "builtins.set": _counted,
    "__builtin__.set": _counted,
    "collections.Counter": _counted,
    "collections.OrderedDict": _ordered,
}
