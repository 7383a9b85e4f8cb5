"""Findings: how grave they are, in which order they stand, and how they are written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.checks.findings import (
    COLUMNS,
    EXIT_STATUS,
    KINDS,
    SEVERITIES,
    Finding,
    as_records,
    compact,
    counts,
    exit_status,
    first_ids,
    in_order,
    stop,
    table,
    write_tsv,
)

NOTE = Finding("short_video", "v2", "v2.mp4", "3 frames")
ERROR = Finding("missing_video", "v1", "videos", "")
STOP = stop("no such folder")


def test_every_kind_has_a_severity_that_has_an_exit_status_and_the_gravest_come_first():
    severities = [severity for severity, _ in KINDS.values()]
    assert set(severities) == set(SEVERITIES) == set(EXIT_STATUS)
    assert severities == sorted(severities, key=SEVERITIES.index)
    assert all(meaning and meaning[0].islower() for _, meaning in KINDS.values())


def test_a_reason_to_stop_is_a_finding_of_no_file():
    assert STOP == ("cannot_start", "", "", "no such folder") and STOP.severity == "stop"
    assert stop(FileNotFoundError("gone")).detail == "gone"


@pytest.mark.parametrize(
    ("findings", "status"), [([], 0), ([NOTE], 0), ([NOTE, ERROR, NOTE], 1), ([ERROR, STOP, NOTE], 2)]
)
def test_the_exit_status_is_that_of_the_gravest(findings: list[Finding], status: int):
    assert exit_status(findings) == status


def test_findings_stand_by_gravity_kind_and_id_and_none_twice():
    later = Finding("missing_video", "v3", "videos", "")
    empty = Finding("empty_video", "v0", "v0.mp4", "zero bytes")
    assert in_order([NOTE, later, empty, STOP, ERROR, later, NOTE]) == [STOP, ERROR, later, empty, NOTE]


def test_counts_are_by_kind_in_the_order_of_the_findings():
    assert list(counts([STOP, ERROR, ERROR._replace(video_id="v3"), NOTE]).items()) == [
        ("cannot_start", 1),
        ("missing_video", 2),
        ("short_video", 1),
    ]
    assert counts([]) == {}


def test_the_table_shows_a_few_of_each_kind_and_counts_the_rest():
    many = [ERROR._replace(video_id=f"v{number}") for number in range(5)]
    assert table([STOP, *many, NOTE]) == [
        "stop        1  cannot_start       training cannot start, or would end on the way",
        "                 no such folder",
        "error       5  missing_video      listed videos without a file",
        "                 v0",
        "                 v1",
        "                 v2",
        "                 and 2 more",
        "note        1  short_video        videos with fewer candidate frames than are picked: frames are repeated",
        "                 v2: 3 frames",
    ]
    assert table([]) == []


def test_a_long_detail_is_cut_in_the_table_alone():
    long = NOTE._replace(detail="x" * 500)
    line = table([long])[1]
    assert line.endswith("xxx ...") and len(line.strip()) == 160 + len(" ...")
    assert as_records([long])[0]["detail"] == "x" * 500


def test_a_file_of_findings_has_a_line_for_each_whatever_is_in_them(tmp_path: Path):
    odd = Finding("unreadable_video", "v\t1", "a\nb.mp4", "two\r\nlines  and\ttabs")
    write_tsv(tmp_path / "out" / "report.tsv", [STOP, odd])
    lines = [line.split("\t") for line in (tmp_path / "out" / "report.tsv").read_text(encoding="utf-8").splitlines()]
    assert lines == [
        list(COLUMNS),
        ["stop", "cannot_start", "", "", "no such folder"],
        ["error", "unreadable_video", "v 1", "a b.mp4", "two lines and tabs"],
    ]


def test_findings_as_records_have_the_names_of_the_columns():
    assert as_records([NOTE]) == [
        {"severity": "note", "kind": "short_video", "id": "v2", "file": "v2.mp4", "detail": "3 frames"}
    ]


def test_copies_from_worker_processes_share_their_words():
    copies = [Finding("".join(["short_", "video"]), str(n), "".join(["a", ".mp4"]), "3 frames") for n in range(2)]
    one, other = map(compact, copies)
    assert [one, other] == copies and one.kind is other.kind and one.file is other.file


def test_a_detail_names_the_first_ids():
    assert first_ids(["a", "b"]) == "a, b"
    assert first_ids([str(number) for number in range(5)]) == "0, 1, 2, 3, 4"
    assert first_ids([str(number) for number in range(6)]) == "0, 1, 2, 3, 4, ..."
