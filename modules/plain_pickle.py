"""Pickles of plain values, read without importing, calling or hashing anything that a stranger chose.

Python's own unpickler in C takes memory for what a pickle states (a place in its memo, a length) before it looks
whether that is there, and hashes tuples, which may hold one another for ever. This is the standard library's other one,
with the opcodes of plain values alone. Free of PyTorch.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

MAX_PICKLE = 1 << 25  # bytes; MSVD's captions take a sixth
MAX_DEPTH = 100  # lists and dictionaries inside each other
MAX_VALUES = 20_000_000  # in a file, which may name the same list again and again
MAX_INTEGER = 1 << 62  # a key; larger ones may all have one hash
KEYS = (str, int, bytes, type(None))
# fmt: off
OPCODES = (  # the last three to say what is named
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT",
    "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "EMPTY_TUPLE",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT",
    "SETITEM", "SETITEMS", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET", "GLOBAL",
    "STACK_GLOBAL", "INST",
)
# fmt: on


class PlainUnpickler(pickle._Unpickler):
    """Builds dictionaries, lists, tuples, text and numbers; without classes and functions a pickle can call nothing."""

    stack: list[Any]
    memo: dict[int, Any]
    append: Callable[[Any], None]
    readline: Callable[[], bytes]
    pop_mark: Callable[[], list[Any]]

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        opcode: pickle._Unpickler.dispatch[opcode] for opcode in (getattr(pickle, name)[0] for name in OPCODES)
    }

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse every class and function that a pickle names."""
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not loaded")

    def load_entry(self) -> None:
        """Set an entry of a dictionary."""
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def load_entries(self) -> None:
        """Set entries of a dictionary."""
        self._update(self.pop_mark())

    def load_dictionary(self) -> None:
        """Make a dictionary of what is on the stack."""
        items = self.pop_mark()
        self.append({})
        self._update(items)

    def load_place(self) -> None:
        """Put the last value into the memo, at a place that a memo of the size of the file has."""
        place = int(self.readline()[:-1])
        if not 0 <= place <= MAX_PICKLE:
            raise pickle.UnpicklingError(f"the place {place} of its memo")
        self.memo[place] = self.stack[-1]

    def _update(self, items: list[Any]) -> None:
        keys = items[::2]
        if type(self.stack[-1]) is not dict or len(items) % 2:
            raise pickle.UnpicklingError("entries for what is no dictionary")
        if not all(type(key) in KEYS and not (type(key) is int and abs(key) > MAX_INTEGER) for key in keys):
            raise pickle.UnpicklingError("a key that is neither text nor a number")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    dispatch[pickle.SETITEM[0]] = load_entry
    dispatch[pickle.SETITEMS[0]] = load_entries
    dispatch[pickle.DICT[0]] = load_dictionary
    dispatch[pickle.PUT[0]] = load_place


def load_plain(data: bytes, encoding: str) -> Any:
    """The value of a pickle; `encoding` is that of the byte strings that Python 2 wrote for text.

    Raises:
        pickle.UnpicklingError: it is too large, or holds anything but plain values.
        Exception: it is damaged; of whatever type the damage leads to.
    """
    if len(data) > MAX_PICKLE:
        raise pickle.UnpicklingError(f"{len(data):,} bytes, more than the {MAX_PICKLE:,} that are read of a pickle")
    try:
        return PlainUnpickler(io.BytesIO(data), encoding=encoding).load()
    except KeyError as error:
        raise pickle.UnpicklingError(f"it is damaged, or holds more than plain values ({error})") from error


def check_values(value: Any, name: str) -> None:
    """Refuse what a few hundred bytes may say: a list that holds itself twice, thirty times over.

    Raises:
        ValueError: whoever walked through `value` would meet too many values, or lists too deep; starts with `name`.
    """
    level, depth, total = [(value, 1)], 0, 0
    while level:
        counts: dict[int, tuple[Any, int]] = {}
        for part, times in level:
            inner = _inside(part)
            total += times * len(inner)
            for one in inner:
                if isinstance(one, list | tuple | dict):
                    counts[id(one)] = (one, counts.get(id(one), (one, 0))[1] + times)
        depth += 1
        if depth > MAX_DEPTH or total > MAX_VALUES:
            raise ValueError(
                f"{name}: {total} values, lists inside each other {depth} deep, more than any such file has"
            )
        level = list(counts.values())


def _inside(part: Any) -> Sequence[Any]:
    if isinstance(part, dict):
        return [*part, *part.values()]
    return part if isinstance(part, list | tuple) else ()
