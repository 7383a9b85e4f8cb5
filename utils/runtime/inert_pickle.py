"""Pickles read as data: a machine of the few opcodes that torch writes, which imports and calls nothing.

Python's own unpickler looks names up and calls what it finds. Here a name stays a name, and only names that the caller
has given a meaning may be called.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple, Protocol

CLASSES = "__torch__."  # what TorchScript compiled: modules and classes of the archive's own code
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
VALUES = ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINSTRING")
KEYS = (str, int, float, bool)  # a tuple's hash may never come to an end
SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleError(ValueError):
    """A pickle that is damaged, or that holds more than data; the message says what."""


class Name(NamedTuple):
    """A name that a pickle mentions; nothing stands behind it."""

    text: str


class Holder:
    """What an object of a `__torch__` class becomes: the name of its class and its attributes."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.attributes: dict[str, Any] = {}


class Source(Protocol):
    """A place to read bytes from, such as a mapped file; what is stated beyond its end takes no memory."""

    def read(self, n: int = ..., /) -> bytes:
        """At most n bytes."""
        ...

    def readline(self) -> bytes:
        """All up to the end of a line."""
        ...


def read_pickle(
    content: bytes | Source,
    functions: Mapping[str, Callable[..., Any]],
    names: Container[str],
    persistent: Callable[[Any], Any],
) -> Any:
    """The value that a pickle describes: numbers, text, lists, tuples, dicts, `Holder`s and what the caller makes.

    Args:
        functions: the calls that a pickle may ask for, by full name; a `TypeError` of theirs is an error of the pickle.
        names: other names that it may mention.
        persistent: turns a persistent id into a value.

    Raises:
        PickleError: anything else, or a damaged pickle.
    """
    machine = _Machine(functions, names, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(content):  # type: ignore[arg-type]
            machine.step(opcode.name, argument)
        return machine.pop()
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError) as error:  # what damaged bytes lead to
        raise PickleError(f"no readable pickle ({type(error).__name__}: {error})") from error


class _Machine:
    """A stack, marks in it, and a memo; each opcode moves values between them."""

    def __init__(
        self, functions: Mapping[str, Callable[..., Any]], names: Container[str], persistent: Callable[[Any], Any]
    ) -> None:
        self.functions, self.names, self.persistent = functions, names, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.actions: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda _: None,
            "STOP": lambda _: None,
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "TUPLE": lambda _: self.stack.append(tuple(self.pop_to_mark())),
            "BINPUT": self.remember,
            "LONG_BINPUT": self.remember,
            "BINGET": lambda index: self.stack.append(self.memo[index]),
            "LONG_BINGET": lambda index: self.stack.append(self.memo[index]),
            "APPEND": lambda _: self.extend(self.pop(1)),
            "APPENDS": lambda _: self.extend(self.pop_to_mark()),
            "SETITEM": lambda _: self.update(self.pop(2)),
            "SETITEMS": lambda _: self.update(self.pop_to_mark()),
            "GLOBAL": self.mention,
            "BINPERSID": lambda _: self.stack.append(self.persistent(self.pop())),
            "REDUCE": lambda _: self.call(*self.pop(2)),
            "NEWOBJ": lambda _: self.hold(*self.pop(2)),
            "BUILD": lambda _: self.fill(self.pop()),
        }

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in SHORT_TUPLES:
            self.stack.append(tuple(self.pop(SHORT_TUPLES[name])))
        elif name in self.actions:
            self.actions[name](argument)
        else:
            raise PickleError(f"the opcode {name}, which torch does not write")

    def pop(self, count: int | None = None) -> Any:
        """Take the last value from the stack, or a list of the last `count`."""
        if count is None:
            return self.stack.pop()
        if count > len(self.stack):
            raise PickleError("no readable pickle (its stack is empty)")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def pop_to_mark(self) -> list[Any]:
        """Take what came after the last mark."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def remember(self, index: int) -> None:
        """Put the last value into the memo."""
        self.memo[index] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        """Append to the list at the end of the stack."""
        if type(self.stack[-1]) is not list:
            raise PickleError("items for what is not a list")
        self.stack[-1].extend(items)

    def update(self, pairs: list[Any]) -> None:
        """Set entries of the dict at the end of the stack."""
        keys = pairs[::2]
        if type(self.stack[-1]) not in (dict, OrderedDict) or len(pairs) % 2:
            raise PickleError("entries for what is not a dict")
        if not all(type(key) in KEYS for key in keys):
            raise PickleError("a key that is neither text nor a number")
        self.stack[-1].update(zip(keys, pairs[1::2], strict=True))

    def mention(self, argument: str) -> None:
        """Push a name, if it is one of those that may be there."""
        text = argument.replace(" ", ".")
        if not text.startswith(CLASSES) and text not in self.functions and text not in self.names:
            raise PickleError(f"the name {text[:200]!r}, which stands for neither a tensor nor a plain value")
        self.stack.append(Name(text))

    def call(self, function: Any, arguments: Any) -> None:
        """Push what one of the caller's own functions makes of the arguments."""
        if not isinstance(function, Name) or function.text not in self.functions or type(arguments) is not tuple:
            raise PickleError(f"a call of {_shown(function)}, which would run code")
        self.stack.append(self.functions[function.text](*arguments))

    def hold(self, kind: Any, arguments: Any) -> None:
        """Push an empty holder."""
        if not isinstance(kind, Name) or not kind.text.startswith(CLASSES) or arguments != ():
            raise PickleError(f"an object of {_shown(kind)}, which would run code")
        self.stack.append(Holder(kind.text))

    def fill(self, state: Any) -> None:
        """Give the holder at the end of the stack its attributes."""
        holder = self.stack[-1]
        if type(holder) is OrderedDict and type(state) is dict:  # a state dict's `_metadata`
            return
        if not isinstance(holder, Holder):
            raise PickleError("a state for what is not an object of the archive")
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise PickleError(
                f"an object of {_shown(Name(holder.kind))} with a __setstate__ of its own, which would run code"
            )
        holder.attributes.update(state)


def _shown(value: Any) -> str:
    return repr(value.text[:200]) if isinstance(value, Name) else f"a {type(value).__name__}"
