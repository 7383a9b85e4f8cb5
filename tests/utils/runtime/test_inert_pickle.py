"""Pickles as data: plain values come through, nothing is looked up or called, and hostile ones end soon."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from utils.runtime.inert_pickle import Holder, PickleError, read_pickle

MODULE = b"c__torch__.a.b\nC\n)\x81"


def read(content: bytes, functions: dict[str, Callable[..., Any]] | None = None, names: tuple[str, ...] = ()) -> Any:
    return read_pickle(content, functions or {}, names, lambda identity: ("stored", identity))


@pytest.mark.parametrize(
    "value",
    [None, True, 3, -5, 300, 70_000, 2**40, 1.5, "text", (), (1,), (1, 2, 3, 4), [1, [2]], {"a": {1: (2, "b")}}],
)
def test_plain_values_come_through(value: Any):
    assert read(pickle.dumps(value, protocol=2)) == value


def test_objects_of_the_archives_classes_become_holders():
    holder = read(b"\x80\x02" + MODULE + b"}(X\x01\x00\x00\x00xK\x07ub.")
    assert isinstance(holder, Holder) and holder.kind == "__torch__.a.b.C" and holder.attributes == {"x": 7}


def test_calls_and_persistent_ids_are_the_callers():
    functions = {"m.add": lambda first, second: first + second}
    assert read(b"cm\nadd\nK\x01K\x02\x86R.", functions) == 3
    assert read(b"K\x05Q.") == ("stored", 5)
    with pytest.raises(PickleError, match="missing 1 required"):
        read(b"cm\nadd\nK\x01\x85R.", functions)


class Command:
    """What a pickle of this class would run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch made_by_a_pickle",)


def test_a_pickle_that_runs_a_command_is_refused_with_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PickleError, match=r"the name 'posix\.system'"):
        read(pickle.dumps({"a": Command()}, protocol=2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cos\nsystem\n.", r"the name 'os\.system', which stands for neither"),
        (b"cm\nsafe\nK\x01\x85R.", r"a call of 'm\.safe'"),
        (b"c__torch__.a\nC\nK\x01\x85R.", r"a call of '__torch__\.a\.C'"),
        (b"K\x01)R.", "a call of a int"),
        (b"cm\nsafe\n)\x81.", r"an object of 'm\.safe'"),
        (b"c__torch__.a\nC\nK\x01\x85\x81.", r"an object of '__torch__\.a\.C'"),
        (MODULE + b"K\x01\x85b.", "an object of '__torch__.a.b.C' with a __setstate__ of its own"),
        (MODULE + b"}(K\x01K\x02ub.", "with a __setstate__ of its own"),
        (b"}}b.", "a state for what is not an object"),
        (b"}(K\x01\x85K\x02u.", "a key that is neither text nor a number"),
        (b"](K\x01K\x02u.", "entries for what is not a dict"),
        (b"}(K\x01u.", "entries for what is not a dict"),
        (b"}(K\x01e.", "items for what is not a list"),
        (pickle.dumps(Command(), protocol=0), "the opcode|the name"),
        (pickle.dumps("text", protocol=4), "the opcode FRAME"),
        (b"\x82\x01.", "the opcode EXT1"),
        (b"(imod\nname\n.", "the opcode INST"),
        (b"h\x07.", "no readable pickle"),
        (b"r\xff\xff\xff\xff.", "no readable pickle"),
        (b"X\xff\xff\xff\x7fabc.", "no readable pickle"),
        (b"\x87.", "no readable pickle"),
        (b"t.", "no readable pickle"),
        (b".", "no readable pickle"),
        (b"", "no readable pickle"),
        (b"]", "no readable pickle"),
        (b"\xff\x00garbage", "no readable pickle"),
    ],
)
def test_whatever_else_there_is_is_refused(content: bytes, message: str):
    with pytest.raises(PickleError, match=message):
        read(content, names=("m.safe",))


@pytest.mark.parametrize("inside", [b"\x85", b"](h\x00e", b""])
def test_deep_nesting_ends(inside: bytes):
    depth = 200_000
    if inside == b"\x85":
        read(b")" + inside * depth + b".")
    elif inside:
        read(b"]q\x00" + inside * depth + b".")
    else:
        nested = read(b"}" + b"X\x01\x00\x00\x00a}" * depth + b"s" * depth + b".")
        assert list(nested) == ["a"]


def test_lists_that_double_themselves_take_no_room():
    content = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(100)) + b"."
    assert len(read(content)) == 2
