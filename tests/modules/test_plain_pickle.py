"""Pickles as plain values: what they hold, and what they cannot do."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any

import pytest

from modules.plain_pickle import check_size, load_plain

MORE = "it holds more than dictionaries, lists, text and numbers"
PLAIN = {"v1": [["a", "gr\u00fc\u00df"], []], "n": (1, -(2**70), 2.5, None, True), 3: {"x": {}}}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_gives_the_same(protocol: int):
    assert load_plain(pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize(
    ("text", "expected"), [(b"a\xc3\xa9", "a\u00e9"), (b"a\xe9", "a\u00e9")], ids=["utf-8", "latin-1"]
)
def test_text_of_python_2_is_text(text: bytes, expected: str):
    assert load_plain(b"\x80\x02U" + bytes([len(text)]) + text + b".") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "it names os.system, which is not loaded"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "it names os.system"),
        (b"\x80\x02}(K\x01K\x02\x86K\x03u.", "it has a key that is a tuple"),
        (b"\x80\x02})K\x01s.", "it has a key that is a tuple"),
        (b"(NK\x01d.", "it has a key that is a NoneType"),
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", MORE),
        (b"\x80\x02\x8f.", MORE),
        (b"\x80\x02Q.", MORE),
    ],
    ids=["global", "stack global", "tuple keys", "tuple key", "none key", "byte array", "set", "persistent id"],
)
def test_nothing_else_is_made(content: bytes, message: str):
    with pytest.raises(Exception, match=message):
        load_plain(content)


def test_a_place_in_the_memo_takes_no_memory():
    """Python's own unpickler took 4 GB for this pickle of 10 bytes."""
    tracemalloc.start()
    assert load_plain(b"\x80\x02]r" + (2**28).to_bytes(4, "little") + b".") == []
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", [list, tuple, lambda pair: dict(enumerate(pair))], ids=["list", "tuple", "dict"])
def test_values_that_stand_for_more_than_memory_holds_are_refused(kind: Any):
    value: Any = ["a"]
    for _ in range(40):
        value = kind([value, value])
    with pytest.raises(ValueError, match="values, lists inside each other"):
        check_size(load_plain(pickle.dumps(value)))
    check_size(PLAIN)
