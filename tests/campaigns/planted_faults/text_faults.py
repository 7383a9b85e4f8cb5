"""Faults of lists, captions and tables."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from tests.campaigns.planted_faults.faults import HARMLESS, Fault, stops
from tests.campaigns.planted_faults.worlds import DataSet

Plant = Callable[[DataSet], object]
Lines = Callable[[list[str]], list[str]]
RETRIEVAL, TABLE, CAPTIONS = "msrvtt_retrieval", "test.csv", "MSRVTT_data.json"
BOM, PICKLE = "\ufeff", "raw-captions.pkl"


def _line(number: int, change: Callable[[str], str]) -> Lines:
    """The line `number`, from 1, changed."""
    return lambda lines: [*lines[: number - 1], change(lines[number - 1]), *lines[number:]]


def _lines(name: str, change: Lines) -> Plant:
    return lambda data: data.edit_lines(name, change)


def _text(name: str, change: Callable[[str], str], encoding: str = "utf-8") -> Plant:
    return lambda data: data.edit(name, change, encoding)


def _json(name: str, change: Callable[[Any], Any]) -> Plant:
    return lambda data: data.edit_json(data.root / name, change)


def _entry(number: int, name: str, **fields: Any) -> Callable[[Any], Any]:
    """One entry of a list under `name` ("" for the list itself) with other fields; a field of ... is left out."""

    def changed(content: Any) -> Any:
        entries = content[name] if name else content
        entry = {**entries[number], **fields}
        entries[number] = {key: value for key, value in entry.items() if value is not ...}
        return content

    return changed


def _sentences(change: Callable[[list[dict[str, Any]]], list[Any]]) -> Plant:
    return _json(CAPTIONS, lambda content: {**content, "sentences": change(content["sentences"])})


def _instead(name: str, make: Callable[[str], object]) -> Plant:
    def plant(data: DataSet) -> None:
        path = data.root / name
        path.unlink()
        make(str(path))

    return plant


def _whole_file(datatype: str, name: str) -> Iterator[Fault]:
    """Faults that any text file may have; training refuses each."""
    yield stops(f"text file missing, {name}", datatype, _instead(name, lambda _: None), name)
    yield stops(f"text file empty, {name}", datatype, _text(name, lambda _: ""), name)
    yield stops(f"text file is a folder, {name}", datatype, _instead(name, os.mkdir), name)
    yield stops(f"text file is a named pipe, {name}", datatype, _instead(name, os.mkfifo), name)
    yield stops(f"text file UTF-16, {name}", datatype, _text(name, str, "utf-16"), name, "UTF-16")
    yield stops(f"text file Latin-1, {name}", datatype, lambda data: _latin(data, name), name, "UTF-8")
    yield stops(f"text file with a NUL, {name}", datatype, _text(name, lambda text: text[:60] + "\0" + text[60:]), name)


def _latin(data: DataSet, name: str) -> None:
    content = (data.root / name).read_bytes()
    place = content.index(b"1") if b"1" in content else 20
    data.write(data.root / name, content[:place] + b"\xe9" + content[place:])


def _tables() -> Iterator[Fault]:
    def stop(name: str, change: Lines, *words: str) -> Fault:
        return stops(name, RETRIEVAL, _lines(TABLE, change), TABLE, *words)

    yield stop("csv unquoted comma", _line(5, lambda line: line + ", slowly"), "line 5")
    yield stop("csv unclosed quote", _line(4, lambda line: line.replace(",the", ',"the').replace(",a", ',"a')
               if '"' not in line else line[:-1]), "line")  # fmt: skip
    yield stop("csv field missing", _line(5, lambda line: line.split(",", 1)[1]), "line 5")
    yield stop("csv field added", _line(5, lambda line: "x," + line), "line 5")
    yield stop("csv without its column", _line(1, lambda _: "key,vid_key,video,sentence"), "video_id")
    yield stop("csv two columns of one name", _line(1, lambda _: "video_id,vid_key,video_id,sentence"), "video_id")
    yield stop("csv without a header", lambda lines: lines[1:], "video_id")
    yield stop("csv of a header alone", lambda lines: lines[:1])
    yield stop("csv field of 200,000 characters", _line(5, lambda line: line + "x" * 200_000), "line 5")
    yield stop("csv with semicolons", lambda lines: [line.replace(",", ";") for line in lines], "video_id")
    yield stop("csv id empty", _line(5, lambda line: line.replace("video7013", "")), "line 5")
    yield stop("csv id of white space", _line(5, lambda line: line.replace("video7013", "  ")), "line 5")
    yield stop("csv id with ../", _line(5, lambda line: line.replace("video7013", "../video7013")), "line 5")
    yield stop("csv caption empty", _line(5, lambda line: ",".join([*line.split(",")[:3], ""])), "line 5")
    yield stop("csv is html", lambda _: ["<!DOCTYPE html>", "<html>404</html>"])
    missing = ("missing_video",)
    follow = ("unreferenced_video", "missing_objects", "orphan_objects", "unlisted_captions", "no_caption")

    def lost(name: str, file: str, line: int, change: Callable[[str], str], video_id: str, *kinds: str) -> Fault:
        return Fault(name, RETRIEVAL, _lines(file, _line(line, change)), kinds or missing, video_id, also=follow)

    yield lost("csv id in another case", TABLE, 5, lambda line: line.replace("video7013", "Video7013"), "Video7013")
    yield lost("csv id with white space", TABLE, 5, lambda line: line.replace("video7013", "video7013 "), "video7013 ")
    yield lost("csv id of no video", TABLE, 5, lambda line: line.replace("video7013", "video99"), "video99")
    yield lost("list id in another case", "train.csv", 5, lambda _: "VIDEO3", "VIDEO3", "no_caption")
    yield lost("list id with an extension", "train.csv", 5, lambda _: "video3.mp4", "video3.mp4", "no_caption")
    yield lost("list id None", "train.csv", 5, lambda _: "None", "None", "no_caption", "cannot_start")
    yield lost("list id nan", "train.csv", 5, lambda _: "nan", "nan", "no_caption", "cannot_start")
    yield lost("list id twice", "train.csv", 5, lambda _: "video9", "video9", "repeated_id")
    yield lost(
        "list id of a control character", "train.csv", 5, lambda _: "video3\x1b[31m", "", "no_caption", "cannot_start"
    )
    yield stops(
        "list id with ../", RETRIEVAL, _lines("train.csv", _line(5, lambda _: "../video3")), "train.csv", "line 5"
    )
    yield stops("list id ..", RETRIEVAL, _lines("train.csv", _line(5, lambda _: "..")), "train.csv", "line 5")
    yield stops("list of other videos", RETRIEVAL,
                _lines("train.csv", lambda lines: ["video_id", *(f"clip{n}" for n in range(80))]),
                CAPTIONS)  # fmt: skip
    yield Fault("list id in two splits", RETRIEVAL, _lines("train.csv", lambda lines: [*lines, "video7013"]),
                ("in_two_splits",), "video7013", also=("no_caption",))  # fmt: skip
    yield Fault(
        "csv row twice", RETRIEVAL, _lines(TABLE, lambda lines: [*lines, lines[4]]), ("repeated_row",), "video7013"
    )
    yield Fault("list row dropped", RETRIEVAL, _lines("train.csv", lambda lines: lines[:4] + lines[5:]),
                ("unreferenced_video",), "video3", also=("orphan_objects", "unlisted_captions"))  # fmt: skip
    for name in ("train.csv", TABLE, CAPTIONS):
        yield Fault(f"byte order mark, {name}", RETRIEVAL, _text(name, lambda text: BOM + text), HARMLESS)
    for name in ("train.csv", TABLE):
        yield Fault(
            f"line ends of Windows, {name}", RETRIEVAL, _text(name, lambda text: text.replace("\n", "\r\n")), HARMLESS
        )
        yield Fault(f"blank lines, {name}", RETRIEVAL, _text(name, lambda text: text.replace("\n", "\n\n")), HARMLESS)


def _all_empty(rows: list[dict[str, Any]]) -> list[Any]:
    """Sentences, of which those of one clip have no word."""
    return [{**row, "caption": ""} if row["video_id"] == "video5" else row for row in rows]


def _captions() -> Iterator[Fault]:
    number = 20  # a sentence of video5 or thereabouts

    def stop(name: str, change: Callable[[list[dict[str, Any]]], list[Any]], *words: str) -> Fault:
        return stops(name, RETRIEVAL, _sentences(change), CAPTIONS, *words)

    for name, value in {
        "None": None, "a number": 3, "a list": ["a"], "NaN": float("nan"), "a dictionary": {"text": "a"},
    }.items():  # fmt: skip
        place = "NaN" if name == "NaN" else f"sentence {number}"
        yield stop(f"caption {name}", _entry(number, "", caption=value), place)
    yield stop("caption missing", _entry(number, "", caption=...), f"sentence {number}")
    yield stop("caption's id a number", _entry(number, "", video_id=5), f"sentence {number}")
    yield stop("caption's id None", _entry(number, "", video_id=None), f"sentence {number}")
    yield stop("captions none", lambda _: [])
    yield stops("captions a list", RETRIEVAL, _json(CAPTIONS, lambda content: content["sentences"]), CAPTIONS)
    yield stops("captions cut", RETRIEVAL, _text(CAPTIONS, lambda text: text[: len(text) // 2]), CAPTIONS, "complete")
    yield stops("captions nested deeply", RETRIEVAL, _text(CAPTIONS, lambda _: "[" * 100_000), CAPTIONS, "deep")
    for datatype in (RETRIEVAL, "msrvtt_caption"):
        yield Fault(
            "caption empty", datatype, _sentences(_entry(number, "", caption=" ")), ("empty_caption",), "video5"
        )
        yield Fault("captions of one clip all empty", datatype,
                    _sentences(_all_empty),
                    ("empty_caption",), "video5")  # fmt: skip
        yield Fault("caption of a lone surrogate", datatype, _sentences(_entry(number, "", caption="a \ud800 cat")),
                    ("replaced_text",), words=(CAPTIONS,))  # fmt: skip
    yield Fault(
        "caption of control characters",
        RETRIEVAL,
        _sentences(_entry(number, "", caption="a \x1b[31m\x07 cat")),
        HARMLESS,
    )
    yield Fault("captions of an unlisted clip", RETRIEVAL,
                _sentences(lambda rows: [*rows, {"video_id": "video5000", "caption": "a dog"}]),
                ("unlisted_captions",), "video5000")  # fmt: skip
    yield Fault("captions of a clip missing", RETRIEVAL,
                _sentences(lambda rows: [row for row in rows if row["video_id"] != "video5"]),
                ("no_caption",), "video5")  # fmt: skip
    yield Fault("sentences twice in the file", RETRIEVAL,
                _text(CAPTIONS, lambda text: text[:-1] + ', "sentences": []}'),
                ("cannot_start",), words=(CAPTIONS,))  # fmt: skip
    yield stops("captions of no split", "msrvtt_caption",
                _sentences(lambda rows: [{**row, "video_id": "clip" + row["video_id"][5:]} for row in rows]),
                CAPTIONS)  # fmt: skip


def _msvd() -> Iterator[Fault]:
    def pickled(change: Callable[[dict[str, Any]], Any]) -> Plant:
        def plant(data: DataSet) -> None:
            path = data.root / PICKLE
            data.write(path, pickle.dumps(change(pickle.loads(path.read_bytes()))))

        return plant

    def first(value: Any) -> Plant:
        return pickled(lambda content: {**content, next(iter(content)): value})

    def billion(content: dict[str, Any]) -> dict[str, Any]:
        doubled: list[Any] = ["x"]
        for _ in range(40):
            doubled = [doubled, doubled]
        return {**content, next(iter(content)): doubled}

    for datatype in ("msvd_retrieval", "msvd_caption"):
        yield stops("pickle calls a function", datatype, first(os.getcwd), PICKLE)
        yield stops("pickle doubles itself", datatype, pickled(billion), PICKLE)
        yield stops("pickle of captions as text", datatype, first("a cat"), PICKLE)
        yield stops("pickle of numbers", datatype, first([[1, 2]]), PICKLE)
        yield stops("pickle cut", datatype, lambda data: data.write(
            data.root / PICKLE, (data.root / PICKLE).read_bytes()[:-500]), PICKLE)  # fmt: skip
        yield stops("pickle of a list", datatype, pickled(lambda content: list(content)), PICKLE)
        yield stops(
            "list id with ../", datatype, _lines("val_list.txt", _line(2, lambda _: "../a")), "val_list.txt", "line 2"
        )
        yield Fault(
            "pickle without captions of a clip", datatype, _without_first, ("no_caption",), also=("unlisted_captions",)
        )
        yield Fault("list id of no video", datatype, _lines("train_list.txt", _line(3, lambda _: "unknown")),
                    ("no_caption",), "unknown",
                    also=("unreferenced_video", "orphan_objects", "unlisted_captions"))  # fmt: skip
    for name in ("train_list.txt", "test_list.txt"):
        yield from _whole_file("msvd_caption", name)


def _without_first(data: DataSet) -> None:
    path = data.root / PICKLE
    content = pickle.loads(path.read_bytes())
    content[(data.root / "train_list.txt").read_text().split()[0]] = []
    data.write(path, pickle.dumps(content))


def _other_sets() -> Iterator[Fault]:
    table = "LSMDC16_annos_training.csv"

    def lsmdc(name: str, number: int, change: Callable[[str], str], *words: str) -> Fault:
        return stops(name, "lsmdc_retrieval", _lines(table, _line(number, change)), table, *words)

    yield lsmdc("table field missing", 4, lambda line: line.rsplit("\t", 1)[0], "line 4")
    yield lsmdc("table field added", 4, lambda line: line + "\tmore", "line 4")
    yield lsmdc("table with spaces for tabs", 4, lambda line: line.replace("\t", "  "), "line 4")
    yield lsmdc("table id empty", 4, lambda line: "\t" + line.split("\t", 1)[1], "line 4")
    yield lsmdc("table id with ../", 4, lambda line: "../" + line, "line 4")
    yield Fault("table caption empty", "lsmdc_retrieval",
                _lines(table, _line(4, lambda line: line.rsplit("\t", 1)[0] + "\t ")), ("empty_caption",))  # fmt: skip
    yield Fault(
        "table row twice", "lsmdc_retrieval", _lines(table, lambda lines: [*lines, lines[3]]), ("repeated_row",)
    )
    yield from _whole_file("lsmdc_retrieval", table)
    data, listed = "train_data.json", "train_list.txt"
    didemo = "didemo_retrieval"
    yield stops("description None", didemo, _json(data, _entry(2, "", description=None)), data, "entry 2")
    yield stops("description without its video", didemo, _json(data, _entry(2, "", video=...)), data, "entry 2")
    yield stops("descriptions a dictionary", didemo, _json(data, lambda entries: {"a": entries}), data)
    yield Fault("list id of no video", didemo, _lines(listed, _line(3, lambda _: "nobody.mp4")), ("no_caption",),
                "nobody", also=("unreferenced_video", "orphan_objects"))  # fmt: skip
    yield Fault("videos' LMDB without a key", didemo, _without_key, ("missing_video",))
    yield Fault("videos' LMDB of an empty value", didemo, lambda d: _put(d, b""), ("empty_video",))
    yield Fault(
        "videos' LMDB of a text", didemo, lambda d: _put(d, b"no video" * 99), ("unreadable_video", "truncated_video")
    )
    yield stops("videos' LMDB cut", didemo, lambda d: _cut_lmdb(d, 2), "videos.lmdb")
    yield stops("videos' LMDB empty", didemo, lambda d: _cut_lmdb(d, 10**9), "videos.lmdb")
    yield stops(
        "videos' LMDB is text", didemo, lambda d: d.write(d.root / "videos.lmdb/data.mdb", "x" * 9999), "videos.lmdb"
    )
    yield from _whole_file(didemo, data)


def _first_key(data: DataSet) -> bytes:
    return (data.root / "train_list.txt").read_text().split(".")[0].encode()


def _put(data: DataSet, value: bytes | None) -> None:
    import lmdb

    with lmdb.open(str(data.root / "videos.lmdb"), map_size=1 << 26) as file, file.begin(write=True) as writing:
        if value is None:
            writing.delete(_first_key(data))
        else:
            writing.put(_first_key(data), value)


def _without_key(data: DataSet) -> None:
    _put(data, None)


def _cut_lmdb(data: DataSet, part: int) -> None:
    path = data.root / "videos.lmdb" / "data.mdb"
    data.write(path, path.read_bytes()[: path.stat().st_size // part])


def faults() -> Iterator[Fault]:
    """All of them."""
    yield from _tables()
    yield from _captions()
    yield from _msvd()
    yield from _other_sets()
    for name in ("train.csv", TABLE, CAPTIONS):
        yield from _whole_file(RETRIEVAL, name)


def lines_json(lines: list[str], number: int, **fields: Any) -> list[str]:
    """JSON lines, of which that of a number, from 1, has other fields; a field of ... is left out."""
    entry = {**json.loads(lines[number - 1]), **fields}
    text = json.dumps({key: value for key, value in entry.items() if value is not ...})
    return [*lines[: number - 1], text, *lines[number:]]
