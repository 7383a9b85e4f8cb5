"""Pickles of plain values: what they stand for comes through, what they only state takes nothing."""

from __future__ import annotations

import pickle
import struct
from typing import Any

import pytest

from modules.plain_pickle import MAX_PICKLE, check_values, load_plain

VALUES = [None, True, 3, -5, 70_000, 2**100, 1.5, "text", "äöü \u4e2d", b"bytes", (), (1, 2, 3, 4), [1, [2, "a", "a"]]]


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("value", [*VALUES, {"a": {1: (2, "b")}, "c": {}}], ids=str)
def test_plain_values_come_through(value: Any, protocol: int):
    if type(value) is bytes and protocol < 3:
        pytest.skip("bytes are a call of _codecs.encode there")
    assert load_plain(pickle.dumps(value, protocol=protocol), "utf-8") == value


def doubled(join: bytes) -> bytes:
    """A value, then forty times something that holds the one before twice."""
    return b"\x80\x04K\x01\x94" + b"".join(join.replace(b"?", bytes([n])) for n in range(40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"]r" + struct.pack("<I", 2**31 - 1) + b"0.", "pop from empty list"),  # 16 GB in the other unpickler
        (b"]p2147483647\n.", "the place 2147483647 of its memo"),
        (doubled(b"h?h?\x86\x94") + b"}h\x28K\x01s.", "a key that is neither text nor a number"),
        (doubled(b"h?h?\x86\x94") + b"}(h\x28K\x01u.", "a key that is neither text nor a number"),
        (doubled(b"h?h?\x86\x94") + b"(h\x28K\x01d.", "a key that is neither text nor a number"),
        (doubled(b"(h?h?\x86\x91\x94") + b".", "more than plain values"),
        (pickle.dumps({(2**61 - 1) * n: 0 for n in range(3, 9)}), "a key that is neither"),  # all of one hash
        (b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b".", "more than plain values"),
        (b"\x96" + struct.pack("<Q", 2**40) + b".", "more than plain values"),
        (b"}(K\x01u.", "entries for what is no dictionary"),
        (b"](K\x01K\x02u.", "entries for what is no dictionary"),
        (pickle.dumps(print), "it names builtins.print, which is not loaded"),
        (b"cos\nsystem\n.", r"it names os.system"),
        (b"]" * (MAX_PICKLE + 1), "bytes, more than"),
    ],
)
def test_what_a_pickle_only_states_takes_nothing(content: bytes, message: str):
    with pytest.raises((pickle.UnpicklingError, IndexError), match=message):
        load_plain(content, "utf-8")


@pytest.mark.parametrize(
    "length", [b"\x8d" + struct.pack("<Q", 2**60), b"X\xff\xff\xff\xff", b"\x95" + b"\0" * 7 + b"\x10"]
)
def test_a_length_beyond_the_end_reads_to_the_end(length: bytes):
    with pytest.raises((EOFError, IndexError)):
        load_plain(length + b"abc", "utf-8")


@pytest.mark.parametrize("join", [b"h?h?\x86\x94", b"]\x94(h?h?e", b"}\x94(K\x01h?K\x02h?u"])
def test_values_that_double_themselves_are_counted_not_walked(join: bytes):
    with pytest.raises(ValueError, match="a.pkl: [0-9]+ values, lists inside each other 2[0-9] deep"):
        check_values(load_plain(doubled(join) + b".", "utf-8"), "a.pkl")
