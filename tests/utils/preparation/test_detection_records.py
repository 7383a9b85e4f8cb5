"""Records of detections, and the formats of their boxes: which is told, which is refused, and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dataloaders.frames import Clip
from modules.boxes import BOX_FORMATS
from utils.preparation.detection_records import in_pixels, read_objects, read_record
from utils.preparation.detectors import Frame

CLIP = Clip([np.zeros((48, 64, 3), np.uint8)] * 3, 64, 48, 10.0, np.array([0, 10, 20]), 25, 25)
THING = {"class": "dog", "rect": [10, 20, 30, 40], "conf": 0.9}
EDGES = {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 40}
PIPELINE = {"label": "dog", "score": 0.9, "box": EDGES}
BOXES = [[30.0, 30.0, 44.0, 40.0], [40.0, 4.0, 60.0, 44.0], [50.0, 20.0, 64.0, 30.0]]


@pytest.mark.parametrize("box", [EDGES, [10, 20, 30, 40]], ids=["edges", "list"])
def test_records_of_pipelines_become_those_of_object_files(box: Any):
    record = {**PIPELINE, "box": box, "attributes": ["brown"]}
    assert read_record(record, "here") == {**THING, "attributes": ["brown"]}
    assert read_record(THING, "here") == THING
    assert read_objects([record], "here") == read_objects({"objects": [record]}, "here") == [read_record(record, "")]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (7, 'here is 7, not a record with "class", "rect", "conf"'),
        ({}, 'here is {}, without "class"; records have "class", "rect", "conf"'),
        ({"label": "dog", "score": 1}, 'here is .*, without "box"; records have "label", "box", "score"'),
        ({"class": "dog", "box": [1, 2, 3, 4], "score": 1}, 'here is .*, without "rect"; records have "class"'),
        ({**THING, "class": None}, 'here: "class" is None, not a name'),
        ({**PIPELINE, "label": 3}, 'here: "label" is 3, not a name'),
        ({**PIPELINE, "label": "null"}, "here: \"label\" is 'null', not a name"),
        ({**PIPELINE, "score": float("nan")}, 'here: "score" is nan, not a number from 0 to 1'),
        ({**PIPELINE, "score": True}, 'here: "score" is True, not a number from 0 to 1'),
        ({**PIPELINE, "score": -0.1}, 'here: "score" is -0.1, not a number from 0 to 1'),
        ({**THING, "conf": 1.5}, 'here: "conf" is 1.5, not a number from 0 to 1'),
        ({**THING, "rect": [1, 2, 3]}, r'here: "rect" is \[1, 2, 3\], not four finite numbers'),
        ({**THING, "rect": [1, 2, 3, float("inf")]}, "not four finite numbers"),
        ({**THING, "rect": [1, 2, 3, 10**400]}, "not four finite numbers"),
        ({**PIPELINE, "box": {"xmin": 1}}, 'here: "box" is .*, not four finite numbers under xmin, ymin, xmax, ymax'),
        ({**PIPELINE, "box": {**EDGES, "xmin": "1"}}, 'here: "box" is .*, not four finite numbers under xmin'),
    ],
)
def test_a_record_that_is_none_is_named_with_its_field(record: Any, message: str):
    with pytest.raises(ValueError, match=message):
        read_record(record, "here")


def written(box_format: str, boxes: Any = BOXES) -> list[Frame]:
    """Frames with boxes x1, y1, x2, y2 in pixels of CLIP, written in another format."""
    made = np.array(boxes, dtype=float)
    if box_format.startswith("relative_"):
        made /= [64, 48, 64, 48]
    x, y, right, bottom = made.T
    layouts = {
        "xyxy": (x, y, right, bottom),
        "xxyy": (x, right, y, bottom),
        "yxyx": (y, x, bottom, right),
        "xywh": (x, y, right - x, bottom - y),
        "cxcywh": ((x + right) / 2, (y + bottom) / 2, right - x, bottom - y),
    }
    rects = np.stack(layouts[box_format.removeprefix("relative_")], axis=1).tolist()
    objects = [{"class": "dog", "conf": 0.5, "rect": rect} for rect in rects]
    return [objects, [], objects[:1]]


@pytest.mark.parametrize("box_format", BOX_FORMATS)
def test_boxes_in_any_format_come_out_in_pixels_when_it_is_stated(box_format: str):
    first, second, third = in_pixels(written(box_format), box_format, CLIP, "v.json")
    np.testing.assert_allclose([entry["rect"] for entry in first], BOXES, atol=0.01)
    assert second == [] and len(third) == 1


@pytest.mark.parametrize("stated", BOX_FORMATS)
@pytest.mark.parametrize("real", BOX_FORMATS)
def test_boxes_in_another_format_than_stated_are_an_error_that_names_it(real: str, stated: str):
    pairs = {frozenset(("relative_xyxy", "relative_yxyx"))}  # in a square nothing tells them apart
    if real == stated or frozenset((real, stated)) in pairs:
        return
    with pytest.raises(ValueError, match=rf"make sense as .*{real}.*, not as {stated}; .*--box_format"):
        in_pixels(written(real), stated, CLIP, "v.json")


def test_boxes_far_outside_the_frame_are_an_error():
    with pytest.raises(ValueError, match="4 of 4 boxes do not lie in a frame of 64x48, .* of another size"):
        in_pixels(written("xyxy", np.array(BOXES) * 4), "xyxy", CLIP, "v.json")


def test_boxes_that_name_their_edges_are_in_no_other_format():
    with pytest.raises(ValueError, match='"box" names its edges, so it is not xywh; try --box_format xyxy'):
        read_record(PIPELINE, "here", "xywh")
    share = {name: value / 100 for name, value in EDGES.items()}
    found = [[read_record({**PIPELINE, "box": share}, "here", "relative_xyxy")]]
    assert in_pixels(found, "relative_xyxy", CLIP, "v.json")[0][0]["rect"] == [6.4, 9.6, 19.2, 19.2]
