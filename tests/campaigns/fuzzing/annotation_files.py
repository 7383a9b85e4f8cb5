"""Readers of annotations: captions, questions, lists and tables of all data sets."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from random import Random
from typing import Any

from dataloaders.caption_files import caption_texts
from dataloaders.caption_split import CaptionSplit
from dataloaders.caption_store import iter_captions
from dataloaders.datasets import didemo, lsmdc, msrvtt, msvd
from dataloaders.id_lists import listed_ids, read_frame_sizes
from dataloaders.label_map import load_label_map
from dataloaders.multiple_choice import read_choices
from dataloaders.pretrain_index import IndexReport, clip_places
from dataloaders.questions import read_answers, read_msrvtt, read_msvd, read_msvd_names
from modules.foreign_text import read_plain_pickle
from tests.campaigns.fuzzing.forms import (
    BAD_IDS,
    CSV,
    JSON,
    JSON_LINES,
    LINES,
    NO_TEXT,
    PICKLE,
    TABS,
    Form,
    csv_mutators,
    drop,
    drop_any,
    known,
    put,
    rearranged,
    replace,
    replace_any,
    shorten,
)
from tests.campaigns.fuzzing.mutators import KNOWN_TEXT, cut_short
from tests.campaigns.fuzzing.reader import Expected, Mutant, Mutator, Reader, Taken

ERRORS = (ValueError, FileNotFoundError)
IDS = [f"video{number}" for number in range(6)]
BAD_JSON_IDS: tuple[Any, ...] = (*BAD_IDS, *NO_TEXT[:1], 1.5, True, ["a"], {})
WORDS = (
    "a man runs",
    "a dog sees a café",
    "two women sing, loudly",
    "someone cuts bread",
    "a car stops",
    "people dance",
)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def _lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _split(split: CaptionSplit) -> Taken:
    """The split as every task takes it."""
    kept = split.without_empty_captions()
    content = (kept.video_ids, kept.captions, kept.caption_video.tolist())
    return Taken(len(kept.captions), len(split.captions) - len(kept.captions), content)


def _make_msrvtt(folder: Path) -> None:
    _lines(folder / "train.csv", ["video_id", *IDS])
    _lines(
        folder / "test.csv", ["key,video_id,sentence", *(f"ret{n},{IDS[n]},{WORDS[n].split(',')[0]}" for n in range(6))]
    )
    sentences = [{"video_id": IDS[n % 6], "caption": f"{WORDS[n % 6]} {n}", "sen_id": n} for n in range(12)]
    _json(folder / "data.json", {"videos": [{"video_id": name} for name in IDS], "sentences": sentences})


def _sentences(value: Any) -> Any:
    return value["sentences"]


def _json_list(
    text: str, place: Callable[[Any], Any] = lambda value: value, video: str | None = "video_id"
) -> tuple[Mutator, ...]:
    """Mutations of a JSON list of records with a text, and an id of a video."""
    ids = () if video is None else (known(JSON, "a bad id", Expected.COUNTED, put(video, BAD_JSON_IDS, place)),)
    return (
        *KNOWN_TEXT,
        *ids,
        rearranged(JSON),
        cut_short(),
        known(JSON, "an entry dropped", Expected.FEWER, drop(place)),
        known(JSON, "no text", Expected.REFUSED, put(text, NO_TEXT, place)),
        known(JSON, "an empty text", Expected.COUNTED, put(text, ("", " "), place)),
    )


def _bad_line(rows: Any, draw: Random) -> None:
    rows[draw.randrange(len(rows))] = draw.choice(BAD_IDS[2:])


ID_LINES = (
    *KNOWN_TEXT,
    rearranged(LINES),
    known(LINES, "a row dropped", Expected.FEWER, drop()),
    known(LINES, "a bad id", Expected.COUNTED, _bad_line),
)


def _make_msvd(folder: Path) -> None:
    _lines(folder / "test_list.txt", IDS)
    captions = {name: [WORDS[n].split()] for n, name in enumerate(IDS)}
    (folder / msvd.CAPTION_FILE).write_bytes(pickle.dumps(captions, protocol=2))


def _doubling(content: bytes, draw: Random) -> Mutant:
    """Thirty to a hundred lists, each of which holds the one before twice."""
    levels = draw.choice((30, 60, 100))
    return Mutant(b"\x80\x02]q\x00" + b"(h\x00h\x00lq\x00" * levels + b".", "lists that double", Expected.REFUSED)


def _names_code(content: bytes, draw: Random) -> Mutant:
    name = draw.choice((b"cos\nsystem\n", b"cbuiltins\neval\n", b"ccollections\nOrderedDict\n", b"cdatetime\ndate\n"))
    return Mutant(b"\x80\x02" + name + b"X\x04\x00\x00\x00echo\x85R.", "a pickle that calls", Expected.REFUSED)


PICKLED = (rearranged(PICKLE), cut_short(), _doubling, _names_code)


def _make_lsmdc(folder: Path) -> None:
    rows = ["\t".join((f"1_A_00.{n}", "0", "1", "0", "1", WORDS[n])) for n in range(6)]
    _lines(folder / lsmdc.FILES["test"], rows)


LSMDC = (
    *KNOWN_TEXT,
    rearranged(TABS),
    known(TABS, "a row dropped", Expected.FEWER, drop()),
    known(TABS, "a field added", Expected.REFUSED, lambda rows, draw: draw.choice(rows).append("more")),
    known(TABS, "a field removed", Expected.REFUSED, shorten()),
    known(TABS, "a bad id", Expected.COUNTED, put(0, BAD_IDS)),
    known(TABS, "an empty text", Expected.COUNTED, put(5, ("", " "))),
)


def _make_didemo(folder: Path) -> None:
    _lines(folder / "test_list.txt", [f"{name}.mp4" for name in IDS])
    _json(
        folder / "test_data.json",
        [{"video": f"{IDS[n]}.mp4", "description": WORDS[n], "times": [[0, 1]]} for n in range(6)],
    )


def _make_questions(folder: Path) -> None:
    rows = [{"question": WORDS[n], "answer": f"café {n}", "video_id": IDS[n], "id": n} for n in range(6)]
    (folder / "qa.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _json(folder / "msvd_qa.json", [{**row, "video_id": n + 1} for n, row in enumerate(rows)])
    _json(folder / "id_mapping.json", {str(n + 1): name for n, name in enumerate(IDS)})
    _json(folder / "answers.json", {f"answer {n}": n for n in range(6)})


def _json_lines(text: str, video: str) -> tuple[Mutator, ...]:
    return (
        *KNOWN_TEXT,
        rearranged(JSON_LINES),
        known(JSON_LINES, "a row dropped", Expected.FEWER, drop()),
        known(JSON_LINES, "a bad id", Expected.COUNTED, put(video, BAD_JSON_IDS)),
        known(JSON_LINES, "no text", Expected.REFUSED, put(text, NO_TEXT)),
        known(JSON_LINES, "an empty text", Expected.COUNTED, put(text, ("", " "))),
    )


def _make_choices(folder: Path) -> None:
    rows = [{"qid": n, "video_id": IDS[n], "options": list(WORDS[:5]), "answer": n % 5} for n in range(6)]
    (folder / "mc_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _make_lists(folder: Path) -> None:
    _lines(folder / "ids.txt", IDS)
    _lines(folder / "ids.csv", ["video_id,name", *(f"{name},clip {n}" for n, name in enumerate(IDS))])
    _json(folder / "ids.json", {"videos": [{"video_id": name} for name in IDS]})
    (folder / "ids.jsonl").write_text("".join(json.dumps({"video_id": name}) + "\n" for name in IDS))
    _lines(folder / "sizes.csv", ["video_id,width,height", *(f"{name},{640 + n},480" for n, name in enumerate(IDS))])
    _json(folder / "sizes.json", {name: [640 + n, 480] for n, name in enumerate(IDS)})
    _json(
        folder / "label_map.json", {"label_to_idx": {"man": 1, "dog": 2, "red car": 3}, "attribute_to_idx": {"red": 1}}
    )


def _size_values(name: Any) -> Mutator:
    bad = (0, -1, None, "wide", [1], 1e308, float("nan"), 2**70, True)
    return known(
        JSON,
        "a value out of range",
        Expected.REFUSED,
        lambda value, draw: value[draw.choice(IDS)].__setitem__(name, draw.choice(bad)),
    )


LABEL_VALUES = (0, -1, 2, 2**32 + 3, 2**70, 1.5, True, None, "1", [1])


def _make_captions(folder: Path) -> None:
    _json(folder / "frozen_train_labels.json", [{"video_id": IDS[n], "caption": WORDS[n]} for n in range(6)])


def _captions(folder: Path) -> Taken:
    rows = list(iter_captions(folder / "frozen_train_labels.json"))
    empty = sum(not row.caption.strip() for row in rows)  # `prepare_pretrain_index` leaves them out and counts them
    return Taken(len(rows) - empty, empty, rows)


def _make_plain_captions(folder: Path) -> None:
    """Of ids that are nowhere looked for, and of captions that may be missing."""
    _json(folder / "c.json", [{"video": IDS[n], "caption": WORDS[n]} for n in range(6)])
    _lines(folder / "c.csv", ["video,caption", *(f"{name},a café {n}" for n, name in enumerate(IDS))])


def _plain_captions(name: str) -> Callable[[Path], Taken]:
    return _counted(lambda folder: list(caption_texts(folder / name)))


def _make_path_index(folder: Path) -> None:
    _lines(folder / "path.index", [f"{name}\tpath-{n // 3}.tfrecord\t{1000 * n}" for n, name in enumerate(IDS)])


def _path_index(folder: Path) -> Taken:
    report = IndexReport()
    clips, shards = clip_places(folder / "path.index", report.note)
    left_out = report.broken_index_lines + report.repeated_clips
    return Taken(len(clips.rows), left_out, (clips.rows, shards, clips.offsets.tolist()))


PATH_INDEX = (
    *KNOWN_TEXT,
    rearranged(TABS),
    known(TABS, "a row dropped", Expected.FEWER, drop()),
    known(TABS, "a field added", Expected.COUNTED, lambda rows, draw: rows[draw.randrange(len(rows))].append("more")),
    known(TABS, "a field removed", Expected.COUNTED, shorten()),
    known(TABS, "a bad id", Expected.COUNTED, put(0, BAD_IDS)),
    known(TABS, "a value out of range", Expected.COUNTED, put(2, ("-1", "1.5", str(2**63), str(2**70), "x", ""))),
    known(TABS, "a path that is none", Expected.COUNTED, put(1, ("", " ", "\0"))),
)


def _counted(read: Callable[[Path], Any]) -> Callable[[Path], Taken]:
    """A reader of a list or a dictionary, which is its own content."""

    def taken(folder: Path) -> Taken:
        content = read(folder)
        return Taken(len(content) if isinstance(content, Sized) else 1, 0, content)

    return taken


def _whole(read: Callable[[Path], Sequence[Any]]) -> Callable[[Path], Taken]:
    """A reader of questions, which are left out where a text is empty."""

    def taken(folder: Path) -> Taken:
        questions = read(folder)
        kept = [question for question in questions if question.is_whole]
        return Taken(len(kept), len(questions) - len(kept), kept)

    return taken


def _reader(
    name: str,
    make: Callable[[Path], None],
    file: str,
    mutators: Sequence[Mutator],
    read: Any,
    names: tuple[str, ...] = (),
) -> Reader:
    return Reader(name, make, {file: mutators}, read, ERRORS, names)


def _folder(read: Callable[[Path], CaptionSplit]) -> Callable[[Path], Taken]:
    return lambda folder: _split(read(folder))


def _file(name: str, read: Callable[..., Any], *more: Any) -> Callable[[Path], Taken]:
    return _counted(lambda folder: read(folder / name, *more))


def _msvd_questions(folder: Path) -> Any:
    return read_msvd(folder / "msvd_qa.json", read_msvd_names(folder), "--flag")


ANSWERS = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    known(JSON, "a value out of range", Expected.REFUSED, replace_any((-1, 6, 2**32, 1.0, None, True, float("nan")))),
)
CHOICES = (
    *_json_lines("options", "video_id"),
    known(JSON_LINES, "a value out of range", Expected.REFUSED, put("answer", (-1, 5, 2**32, 1.0, "1", None, True))),
    known(JSON_LINES, "a field removed", Expected.REFUSED, shorten(lambda entry: entry["options"])),
    known(JSON_LINES, "an empty option", Expected.COUNTED, put("options", (["a", "b", "", "d", "e"],))),
)
PLAIN_CAPTIONS_CSV = csv_mutators("caption", "caption", ())
PLAIN_CAPTIONS = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    known(JSON, "a row dropped", Expected.FEWER, drop()),
    known(JSON, "no text", Expected.REFUSED, put("caption", NO_TEXT)),
    known(JSON, "no record", Expected.REFUSED, lambda rows, draw: rows.insert(0, draw.choice((None, 5, [], {})))),
)
NAMES = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    known(JSON, "a bad id", Expected.COUNTED, replace_any(BAD_JSON_IDS)),
    known(JSON, "an entry dropped", Expected.REFUSED, drop_any),
)
SIZES_CSV = (
    *KNOWN_TEXT,
    *csv_mutators("height", "video_id", checked=()),
    known(
        CSV,
        "a value out of range",
        Expected.REFUSED,
        put(1, ("0", "-1", "", "nan", "1e3", "wide", str(2**70)), first=1),
    ),
)


def _json_ids(form: Form, place: Callable[[Any], Any] = lambda value: value) -> tuple[Mutator, ...]:
    return (
        *KNOWN_TEXT,
        rearranged(form),
        known(form, "an entry dropped", Expected.FEWER, drop(place)),
        known(form, "a bad id", Expected.COUNTED, put("video_id", BAD_JSON_IDS, place)),
    )


SIZES = (*KNOWN_TEXT, rearranged(JSON), cut_short(), _size_values(0), _size_values(1))
LABEL_MAP = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    known(
        JSON,
        "a value out of range",
        Expected.REFUSED,
        replace("man", LABEL_VALUES, lambda value: value["label_to_idx"]),
    ),
)

READERS = (
    _reader(
        "msrvtt-json",
        _make_msrvtt,
        "data.json",
        _json_list("caption", _sentences),
        _folder(lambda folder: msrvtt.read_train_split(folder / "train.csv", folder / "data.json")),
    ),
    _reader(
        "msrvtt-csv",
        _make_msrvtt,
        "test.csv",
        (*KNOWN_TEXT, *csv_mutators("sentence", "video_id")),
        _folder(lambda folder: msrvtt.read_test_split(folder / "test.csv")),
    ),
    _reader(
        "msvd-pickle", _make_msvd, msvd.CAPTION_FILE, PICKLED, _folder(lambda folder: msvd.read_split(folder, "test"))
    ),
    _reader(
        "msvd-list",
        _make_msvd,
        "test_list.txt",
        ID_LINES,
        _folder(lambda folder: msvd.read_split(folder, "test")),
        (msvd.CAPTION_FILE,),
    ),
    _reader("lsmdc", _make_lsmdc, lsmdc.FILES["test"], LSMDC, _folder(lambda folder: lsmdc.read_split(folder, "test"))),
    _reader(
        "didemo",
        _make_didemo,
        "test_data.json",
        _json_list("description", video=None),
        _folder(lambda folder: didemo.read_split(folder, "test")),
    ),
    _reader(
        "msrvtt-questions",
        _make_questions,
        "qa.json",
        _json_lines("question", "video_id"),
        _whole(lambda folder: read_msrvtt(folder / "qa.json", "--flag")),
    ),
    _reader(
        "msvd-questions",
        _make_questions,
        "msvd_qa.json",
        _json_list("question"),
        _whole(_msvd_questions),
    ),
    _reader("msvd-names", _make_questions, "id_mapping.json", NAMES, _counted(_msvd_questions), ("msvd_qa.json",)),
    _reader("answers", _make_questions, "answers.json", ANSWERS, _file("answers.json", read_answers, "--flag")),
    _reader(
        "multiple-choice",
        _make_choices,
        "mc_test.jsonl",
        CHOICES,
        _whole(lambda folder: read_choices(folder / "mc_test.jsonl")),
    ),
    _reader("ids-txt", _make_lists, "ids.txt", ID_LINES, _file("ids.txt", listed_ids)),
    _reader(
        "ids-csv",
        _make_lists,
        "ids.csv",
        (*KNOWN_TEXT, *csv_mutators("name", "video_id", checked=("id",))),
        _file("ids.csv", listed_ids),
    ),
    _reader(
        "ids-json",
        _make_lists,
        "ids.json",
        _json_ids(JSON, lambda value: value["videos"]),
        _file("ids.json", listed_ids),
    ),
    _reader("ids-jsonl", _make_lists, "ids.jsonl", _json_ids(JSON_LINES), _file("ids.jsonl", listed_ids)),
    _reader("frame-sizes-json", _make_lists, "sizes.json", SIZES, _file("sizes.json", read_frame_sizes)),
    _reader("frame-sizes-csv", _make_lists, "sizes.csv", SIZES_CSV, _file("sizes.csv", read_frame_sizes)),
    _reader("label-map", _make_lists, "label_map.json", LABEL_MAP, _file("label_map.json", load_label_map)),
    _reader("pretrain-captions", _make_captions, "frozen_train_labels.json", _json_list("caption"), _captions),
    _reader("captions-json", _make_plain_captions, "c.json", PLAIN_CAPTIONS, _plain_captions("c.json")),
    _reader("captions-csv", _make_plain_captions, "c.csv", PLAIN_CAPTIONS_CSV, _plain_captions("c.csv")),
    _reader("path-index", _make_path_index, "path.index", PATH_INDEX, _path_index),
    _reader("plain-pickle", _make_msvd, msvd.CAPTION_FILE, PICKLED, _file(msvd.CAPTION_FILE, read_plain_pickle)),
)
