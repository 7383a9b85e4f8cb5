"""Mutations of what a file says: JSON, JSON lines, csv, lines and pickles, by their parts."""

from __future__ import annotations

import copy
import csv
import io
import json
import pickle
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.campaigns.fuzzing.mutators import LONG
from tests.campaigns.fuzzing.reader import Expected, Mutant, Mutator

NAN, INF = float("nan"), float("inf")
TEXTS: tuple[str, ...] = (
    "",
    " ",
    "None",
    "nan",
    "[..]",
    "..",
    "../up",
    "a/b",
    "\0",
    "\ud800",
    "\x1b[2J",
    "x" * LONG,
    "0",
    "-1",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    5,
    0.5,
    1e308,
    -1e308,
    NAN,
    INF,
    2**31,
    2**32 + 3,
    2**63,
    2**64,
    10**300,
    10**5000,
    [],
    {},
    [[1]],
    [None],
    {"a": []},
    {"": 1},
    *TEXTS,
)


@dataclass(frozen=True)
class Form:
    """How a file is taken apart and put together, and values that are strange in its parts."""

    parse: Callable[[bytes], Any]
    dump: Callable[[Any], bytes]
    values: Sequence[Any]


def _dump_json(value: Any) -> bytes:
    return _json_text(value).encode("utf-8")


def _json_text(value: Any) -> str:
    """JSON; whole numbers of any length, which Python's own text of them is not."""
    try:
        return json.dumps(value)
    except ValueError:
        return json.dumps(_written(value)).replace('"<many digits>"', "9" * 5000)


def _written(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _written(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_written(part) for part in value]
    return "<many digits>" if isinstance(value, int) and abs(value) > 10**4000 else value


def _dump_rows(delimiter: str) -> Callable[[Any], bytes]:
    def dump(rows: Any) -> bytes:
        file = io.StringIO()
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
        return file.getvalue().encode("utf-8", "surrogatepass")

    return dump


def _parse_rows(delimiter: str) -> Callable[[bytes], Any]:
    return lambda content: [row for row in csv.reader(io.StringIO(content.decode()), delimiter=delimiter) if row]


JSON = Form(json.loads, _dump_json, VALUES)
JSON_LINES = Form(
    lambda content: [json.loads(line) for line in content.splitlines()],
    lambda rows: "".join(f"{_json_text(row)}\n" for row in rows).encode(),
    VALUES,
)
CSV = Form(_parse_rows(","), _dump_rows(","), TEXTS)
LINES = Form(
    lambda content: content.decode().splitlines(),
    lambda lines: "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"),
    TEXTS,
)
TABS = Form(
    lambda content: [line.split("\t") for line in content.decode().splitlines()],
    lambda rows: "".join("\t".join(row) + "\n" for row in rows).encode("utf-8", "surrogatepass"),
    TEXTS,
)
PICKLE = Form(pickle.loads, pickle.dumps, [value for value in VALUES if value != "\ud800"])


def known(form: Form, what: str, expected: Expected | None, change: Callable[[Any, Random], Any]) -> Mutator:
    """A change with a known outcome.

    Args:
        form: of the file.
        change: gets the file's value; changes it, or returns another one. ValueError where it does not apply.
    """

    def mutate(content: bytes, draw: Random) -> Mutant:
        value = form.parse(content)
        changed = change(value, draw)
        return Mutant(form.dump(value if changed is None else changed), what, expected)

    return mutate


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container and key at which something stands in nested lists and dictionaries."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def rearranged(form: Form) -> Mutator:
    """One to three parts replaced by strange values, removed, doubled, nested, swapped or put elsewhere."""

    def mutate(content: bytes, draw: Random) -> Mutant:
        value, done = [form.parse(content)], []
        for _ in range(draw.choice((1, 1, 2, 3))):
            found = list(places(value))
            container, key = draw.choice(found or [(value, 0)])
            kind = draw.choice((*("replaced",) * 6, "removed", "doubled", "nested", "swapped"))
            _rearrange(kind, container, key, draw, form, draw.choice(found or [(value, 0)]))
            done.append(kind)
            value = value or [copy.deepcopy(draw.choice(form.values))]
        try:
            return Mutant(form.dump(value[0]), " ".join(done))
        except (TypeError, csv.Error) as error:  # a list where a row of this form has text
            raise ValueError(str(error)) from error

    return mutate


def _rearrange(kind: str, container: Any, key: Any, draw: Random, form: Form, other: tuple[Any, Any]) -> None:
    strange = copy.deepcopy(draw.choice(form.values))
    if kind == "removed":
        del container[key]
    elif kind == "doubled" and isinstance(container, list):
        container[key:key] = [copy.deepcopy(container[key])] * draw.choice((1, 2, 100))
    elif kind == "doubled":
        container[draw.choice(("copy", "", "../x"))] = copy.deepcopy(container[key])
    elif kind == "nested":
        for _ in range(draw.choice((1, 2, 150))):
            container[key] = [container[key]]
    elif kind == "swapped":
        container[key] = copy.deepcopy(other[0][other[1]])
    else:
        container[key] = strange


def drop(place: Callable[[Any], Any] = lambda value: value, first: int = 0) -> Callable[[Any, Random], None]:
    """A change that leaves an entry out of the list at `place`, from number `first` on."""

    def change(value: Any, draw: Random) -> None:
        entries = place(value)
        if len(entries) < first + 2:
            raise ValueError("too few entries")
        del entries[draw.randrange(first, len(entries))]

    return change


def put(
    name: Any, values: Sequence[Any], place: Callable[[Any], Any] = lambda value: value, first: int = 0
) -> Callable[[Any, Random], None]:
    """A change that puts one of the values under `name` into an entry of the list at `place`."""

    def change(value: Any, draw: Random) -> None:
        entries = place(value)
        entries[draw.randrange(first, len(entries))][name] = draw.choice(values)

    return change


def shorten(place: Callable[[Any], Any] = lambda entry: entry) -> Callable[[Any, Random], None]:
    """A change that takes the last part of the list at `place` in an entry of a list away."""

    def change(value: Any, draw: Random) -> None:
        place(draw.choice(value)).pop()

    return change


def replace(name: Any, values: Sequence[Any], place: Callable[[Any], Any] = lambda value: value) -> Any:
    """A change that puts one of the values under `name` into the dictionary at `place`."""
    return lambda value, draw: place(value).__setitem__(name, draw.choice(values))


def replace_any(values: Sequence[Any]) -> Callable[[Any, Random], None]:
    """A change that puts one of the values anywhere into a dictionary."""
    return lambda value, draw: value.__setitem__(draw.choice(sorted(value)), draw.choice(values))


def drop_any(value: Any, draw: Random) -> None:
    """A change that leaves an entry of a dictionary out."""
    del value[draw.choice(sorted(value))]


BAD_IDS = ("", " ", "..", "../up", "a/b")
NO_TEXT = (None, 5, 1.5, True, ["a"], {"a": "b"})


def csv_mutators(text: str, video: str, checked: Collection[str] = ("id", "text")) -> tuple[Mutator, ...]:
    """Mutations of a csv with a header and without quotes, whose columns `text` and `video` may be `checked`."""

    def column(name: str, values: Sequence[str]) -> Callable[[Any, Random], None]:
        return lambda rows, draw: rows[draw.randrange(1, len(rows))].__setitem__(
            rows[0].index(name), draw.choice(values)
        )

    def raw(change: Callable[[list[bytes], int], bytes], what: str) -> Mutator:
        def mutate(content: bytes, draw: Random) -> Mutant:
            lines = content.splitlines()
            number = draw.randrange(1, len(lines))
            lines[number] = change(lines, number)
            return Mutant(b"\n".join(lines) + b"\n", what, Expected.REFUSED)

        return mutate

    return (
        rearranged(CSV),
        known(CSV, "a row dropped", Expected.FEWER, drop(first=1)),
        *([known(CSV, "a bad id", Expected.COUNTED, column(video, BAD_IDS))] if "id" in checked else []),
        *([known(CSV, "an empty text", Expected.COUNTED, column(text, ("", " ")))] if "text" in checked else []),
        known(CSV, "a long field", Expected.REFUSED, column(text, ("x" * LONG,))),
        known(
            CSV, "a column renamed", Expected.REFUSED, lambda rows, draw: rows[0].__setitem__(rows[0].index(video), "x")
        ),
        raw(lambda lines, number: lines[number] + b",more", "a field added"),
        raw(lambda lines, number: lines[number].rpartition(b",")[0], "a field removed"),
        raw(lambda lines, number: b'"' + lines[number], "a quote that is not closed"),
        raw(lambda lines, number: lines[number].replace(b",", b',"', 1), "a quote that is not closed"),
    )
