"""Pickles of dictionaries, lists, text and numbers: nothing else is made, nothing is called, memory is bounded."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

MAX_DEPTH = 100  # lists and dictionaries inside each other
MAX_VALUES = 200_000_000  # a pickle may name the same list again and again
OPCODES = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.DUP, pickle.NONE,
    pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG,
    pickle.LONG1, pickle.LONG4, pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING,
    pickle.SHORT_BINSTRING, pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8,
    pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8, pickle.TUPLE, pickle.EMPTY_TUPLE, pickle.TUPLE1,
    pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT,
    pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE,
    pickle.GLOBAL, pickle.STACK_GLOBAL,
)  # fmt: skip


def load_plain(data: bytes) -> Any:
    """The value of a pickle; byte strings that Python 2 wrote for text become text.

    Raises:
        Exception: whatever its damage leads to, or it holds anything else.
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="utf-8").load()
    except UnicodeDecodeError:
        return _Unpickler(io.BytesIO(data), encoding="latin-1").load()


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler in Python, with fewer opcodes.

    The one in C takes memory for a place in its memo that the pickle states, up to 34 GB for 14 bytes.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse every class and function that a pickle names."""
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not loaded")

    def load_entry(self) -> None:
        """SETITEM."""
        self._enter([self.stack.pop(-2), self.stack.pop()])

    def load_entries(self) -> None:
        """SETITEMS."""
        self._enter(self.pop_mark())

    def load_dictionary(self) -> None:
        """DICT, of protocol 0."""
        items = self.pop_mark()
        self.stack.append({})
        self._enter(items)

    def _enter(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | bytes):  # the hash of a tuple may never come to an end
                raise pickle.UnpicklingError(f"it has a key that is a {type(key).__name__}")
            target[key] = value

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **{opcode[0]: pickle._Unpickler.dispatch[opcode[0]] for opcode in OPCODES},
        pickle.SETITEM[0]: load_entry,
        pickle.SETITEMS[0]: load_entries,
        pickle.DICT[0]: load_dictionary,
    }


def check_size(value: Any) -> None:
    """Raise ValueError for more than MAX_VALUES values or MAX_DEPTH lists inside each other.

    A few hundred bytes may name a list that holds itself twice, thirty times over: what would be walked is counted.
    """
    level, depth, total = [(value, 1)], 0, 0
    while level:
        counts: dict[int, tuple[Any, int]] = {}
        for part, times in level:
            inner = (
                [*part, *part.values()] if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
            )
            total += times * len(inner)
            for one in inner:
                if isinstance(one, list | tuple | dict):
                    counts[id(one)] = (one, counts.get(id(one), (one, 0))[1] + times)
        depth += 1
        if depth > MAX_DEPTH or total > MAX_VALUES:
            raise ValueError(f"{total} values, lists inside each other {depth} deep, more than any such file has")
        level = list(counts.values())
