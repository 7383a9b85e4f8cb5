"""Objects of one clip: their stored form, and the frames they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders.object_records import (
    HEADER,
    MAGIC,
    OBJECTS,
    REPORT_FOLDER,
    ObjectRecord,
    detected_frames,
    pack_record,
    unpack_record,
)


@pytest.mark.parametrize("indices", [None, np.array([0, 25, 2**31 - 1])], ids=["unknown frames", "known frames"])
def test_records_survive_packing(indices: np.ndarray | None) -> None:
    record = ObjectRecord(
        np.random.default_rng(0).random((3, 4, 4), np.float32),
        np.arange(12).reshape(3, 4),
        np.arange(12, 24).reshape(3, 4),
        np.arange(8),
        indices,
    )
    unpacked = unpack_record(pack_record(record))
    assert isinstance(unpacked, ObjectRecord)
    for packed, expected in zip(unpacked, record, strict=True):
        if expected is None:
            assert packed is None
            continue
        assert packed.dtype == expected.dtype
        np.testing.assert_array_equal(packed, expected)
    assert unpacked.boxes.flags.writeable
    for damaged in (b"", b"no record at all", pack_record(record)[:-1]):
        with pytest.raises(ValueError, match="record"):
            unpack_record(damaged)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"frame_indices": [0, 10, 20]}, [0, 10, 20]),
        ({"frame_indices": [0, 10]}, None),
        ({"frame_indices": [0, 10, 2**40]}, None),
        ({"frame_indices": [0, True, 2.5]}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
    ids=str,
)
def test_the_frames_of_the_boxes_are_those_of_the_detector_s_report(tmp_path: Path, report: Any, expected: Any) -> None:
    path = tmp_path / "a.json"
    if report is not None:
        (tmp_path / REPORT_FOLDER).mkdir()
        (tmp_path / REPORT_FOLDER / "a.json").write_text(json.dumps(report))
    found = detected_frames(path, 3)
    assert (None if found is None else found.tolist()) == expected


def test_a_record_of_an_unknown_kind_is_damaged() -> None:
    with pytest.raises(ValueError, match="unknown kind, 7"):
        unpack_record(HEADER.pack(MAGIC, 7, 0, 0))


@pytest.mark.parametrize(("objects", "frames"), [(0, 2**31 - 1), (65_535, 2**31 - 1), (1, -1), (0, 0)])
def test_a_header_that_states_other_sizes_than_the_value_has_is_refused(objects: int, frames: int):
    with pytest.raises(ValueError, match=f"does not fit {frames} frames of {objects} boxes"):
        unpack_record(HEADER.pack(MAGIC, OBJECTS, objects, frames))
