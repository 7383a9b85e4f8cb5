"""Faults of question answering, of multiple choice, and of WebVid's csv."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.campaigns.planted_faults.faults import HARMLESS, Fault, stops
from tests.campaigns.planted_faults.text_faults import _entry, _instead, _json, _line, _lines, _text, lines_json
from tests.campaigns.planted_faults.worlds import DataSet

QA, CHOICE, MSVD, WEBVID = "msrvtt_qa", "msrvtt_mc", "msvd_qa", "webvid"
FILES = {QA: "qa/train.jsonl", CHOICE: "mc_test.jsonl", MSVD: "qa/train_qa.json", WEBVID: "results_demo_train.csv"}
ANSWERS = "qa/train_ans2label.json"


def _line_with(name: str, **fields: Any) -> Callable[[DataSet], object]:
    return lambda data: data.edit_lines(name, lambda lines: lines_json(lines, 3, **fields))


def _questions() -> Iterator[Fault]:
    name = FILES[QA]
    for what, fields in {
        "question missing": {"question": ...}, "question None": {"question": None},
        "question a list": {"question": ["a"]},
        "answer missing": {"answer": ...}, "answer a number": {"answer": 3}, "id missing": {"video_id": ...},
        "id a number": {"video_id": 5}, "id None": {"video_id": None},
    }.items():  # fmt: skip
        yield stops(f"question's {what}", QA, _line_with(name, **fields), name, "line 3")
    yield Fault("question empty", QA, _line_with(name, question=" "), ("empty_question",), "video0")
    yield Fault("answer empty", QA, _line_with(name, answer=""), ("empty_question",), "video0")
    yield Fault("question of no video", QA, _line_with(name, video_id="video999"), ("missing_video",), "video999",
                also=("missing_objects",))  # fmt: skip
    yield Fault("question with ../ in its id", QA, _line_with(name, video_id="../video0"),
                ("missing_video", "cannot_start"), also=("missing_objects",))  # fmt: skip
    yield stops("line of questions cut", QA, _lines(name, _line(4, lambda line: line[:20])), name, "line 4")
    yield stops("line of questions a list", QA, _lines(name, _line(4, lambda _: "[1, 2]")), name, "line 4")
    yield stops("questions a JSON list", QA, _lines(name, lambda lines: ["[" + ", ".join(lines) + "]"]), name)
    yield stops("no question", QA, _text(name, lambda _: "\n"), name)
    yield stops("file of questions missing", QA, _instead(name, lambda _: None), name)
    yield Fault("byte order mark, questions", QA, _text(name, lambda text: "\ufeff" + text), HARMLESS)
    for what, change in {
        "a gap": lambda labels: {**labels, "red": 99}, "two of one": lambda labels: {**labels, "red": 1},
        "text": lambda labels: {**labels, "red": "x"}, "a list": list, "negative": lambda labels: {**labels, "red": -1},
    }.items():  # fmt: skip
        yield stops(f"labels of answers {what}", QA, _json(ANSWERS, change), ANSWERS)
    yield stops("answers of another data set", QA, _json(ANSWERS, lambda _: {"dog": 0, "cat": 1}), "answer")
    yield stops("answers none", QA, _json(ANSWERS, lambda _: {}), "answer")
    yield stops("answers missing", QA, _instead(ANSWERS, lambda _: None), ANSWERS)


def _msvd() -> Iterator[Fault]:
    name, names = FILES[MSVD], "qa/id_mapping.json"
    for what, fields in {
        "id text": {"video_id": "a"}, "id true": {"video_id": True}, "id missing": {"video_id": ...},
        "text None": {"question": None}, "answer a list": {"answer": []},
    }.items():  # fmt: skip
        yield stops(f"MSVD question's {what}", MSVD, _json(name, _entry(2, "", **fields)), name, "entry 2")
    yield stops("MSVD question of no name", MSVD, _json(name, _entry(2, "", video_id=5000)), name, "5000")
    yield Fault("MSVD question's number twice", MSVD, _json(name, _entry(2, "", id=1)), ("repeated_id",), "1")
    yield Fault("MSVD question empty", MSVD, _json(name, _entry(2, "", question="")), ("empty_question",))
    yield stops("MSVD names a list", MSVD, _json(names, lambda content: list(content.values())), names)
    yield stops("MSVD names by text", MSVD, _json(names, lambda content: {"x": "a", **content}), names)
    yield Fault("MSVD name with ../", MSVD, _json(names, lambda content: {**content, "1": "../" + content["1"]}),
                ("missing_video", "cannot_start"),
                also=("unreferenced_video", "missing_objects", "orphan_objects"))  # fmt: skip
    yield Fault("MSVD name of another type", MSVD, _json(names, lambda content: {**content, "1": None}),
                ("missing_video", "cannot_start"),
                also=("unreferenced_video", "missing_objects", "orphan_objects"))  # fmt: skip


def _choices() -> Iterator[Fault]:
    name = FILES[CHOICE]
    for what, fields in {
        "without options": {"options": ...}, "of one option": {"options": ["a"]},
        "of fewer options": {"options": ["a", "b"]},
        "with an option None": {"options": ["a", None, "b", "c", "d"]},
        "with options as text": {"options": "a b c d e"},
        "without an answer": {"answer": ...}, "with answer 5": {"answer": 5}, "with answer -1": {"answer": -1},
        "with answer true": {"answer": True}, "with answer text": {"answer": "0"}, "with answer 1.0": {"answer": 1.0},
        "without a clip": {"clip_name": ...}, "with clip None": {"clip_name": None},
        "with an empty clip": {"clip_name": ""},
    }.items():  # fmt: skip
        yield stops(f"choice {what}", CHOICE, _line_with(name, **fields), name, "line 3")
    yield Fault("choice with an empty option", CHOICE, _line_with(name, options=["a", "b", "c", "d", " "], answer=0),
                ("empty_question",), "video7012")  # fmt: skip
    yield Fault("choice of no video", CHOICE, _line_with(name, clip_name="video99"), ("missing_video",), "video99",
                also=("missing_objects", "unreferenced_video", "orphan_objects", "unlisted_captions"))  # fmt: skip
    yield Fault("choice's number twice", CHOICE, _line_with(name, qid=0), ("repeated_id",), "0")
    yield stops("file of choices cut", CHOICE, _text(name, lambda text: text[:-30]), name, "line 12")


def _webvid() -> Iterator[Fault]:
    name = FILES[WEBVID]
    second = "1000001"

    def row(what: str, change: Callable[[str], str], kinds: tuple[str, ...], video_id: str, *also: str) -> Fault:
        return Fault(what, WEBVID, _lines(name, _line(3, change)), kinds, video_id, also=also)

    lost = ("unreferenced_video", "orphan_objects")
    yield stops(
        "csv unquoted comma",
        WEBVID,
        _lines(name, _line(3, lambda line: line.replace(" and ", ", and ", 1))),
        name,
        "line 3",
    )
    yield stops(
        "csv unclosed quote", WEBVID, _lines(name, _line(3, lambda line: line.replace(",a ", ',"a ', 1))), name, "line"
    )
    yield stops(
        "csv field missing", WEBVID, _lines(name, _line(3, lambda line: line.rsplit(",", 1)[0])), name, "line 3"
    )
    yield stops("csv field added", WEBVID, _lines(name, _line(3, lambda line: line + ",more")), name, "line 3")
    yield stops(
        "csv without its column", WEBVID, _lines(name, _line(1, lambda line: line.replace("name", "title"))), name
    )
    yield stops(
        "csv two columns of one name",
        WEBVID,
        _lines(name, _line(1, lambda line: line.replace("page_idx", "name"))),
        name,
    )
    yield stops(
        "csv field of 200,000 characters",
        WEBVID,
        _lines(name, _line(3, lambda line: line.replace("a ", "a" * 200_000, 1))),
        name,
    )
    yield stops("text file UTF-16", WEBVID, _text(name, str, "utf-16"), name)
    yield stops("text file Latin-1", WEBVID, lambda data: data.write(
        data.root / name, (data.root / name).read_bytes().replace(b"red", b"r\xe9d", 1)), name)  # fmt: skip
    yield stops("text file with a NUL", WEBVID, _text(name, lambda text: text[:200] + "\0" + text[200:]), name)
    yield stops("text file empty", WEBVID, _text(name, lambda _: ""), name)
    yield stops("csv of a header alone", WEBVID, _lines(name, lambda lines: lines[:1]), name)
    yield row("csv id empty", lambda line: line.replace(second, "", 1), ("bad_id",), "", *lost)
    yield row(
        "csv id with ../", lambda line: line.replace(second, "../" + second, 1), ("bad_id",), "../" + second, *lost
    )
    yield row(
        "csv id of a control character", lambda line: line.replace(second, second + "\x07", 1), ("bad_id",), "", *lost
    )
    yield row("list id twice", lambda line: line.replace(second, "1000004", 1), ("repeated_id",), "1000004", *lost)
    yield row(
        "csv caption empty",
        lambda line: ",".join([second, " ", *line.split(",")[-4:]]),
        ("empty_caption",),
        second,
        *lost,
    )
    yield row(
        "page folder with ../",
        lambda line: line.replace("000001_000050,PT", "../videos,PT"),
        ("missing_video",),
        second,
        *lost,
    )
    yield row(
        "page folder absolute",
        lambda line: line.replace("000001_000050,PT", "/etc,PT"),
        ("missing_video",),
        second,
        *lost,
    )
    yield row(
        "page folder of another",
        lambda line: line.replace("000001_000050,PT", "000051_000100,PT"),
        ("missing_video",),
        second,
        *lost,
    )
    yield Fault("byte order mark, csv", WEBVID, _text(name, lambda text: "\ufeff" + text), HARMLESS)


def faults() -> Iterator[Fault]:
    """All of them."""
    yield from _questions()
    yield from _msvd()
    yield from _choices()
    yield from _webvid()
