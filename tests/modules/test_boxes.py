"""Box geometry against torchvision's own, and the guess of the coordinate order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from modules.boxes import (
    BOX_FORMATS,
    box_area,
    fitting,
    iou_matrix,
    likely_formats,
    map_boxes_to_crop,
    resized_size,
    to_pixels,
    to_xyxy,
)


def _box_seen_by_torchvision(size: tuple[int, int], stored: tuple[int, int], box: list[int], side: int) -> list[float]:
    width, height = size
    image = torch.zeros(1, height, width)
    image[:, box[1] : box[3], box[0] : box[2]] = 1.0
    image = v2.Resize((stored[1], stored[0]), antialias=True)(image)
    image = v2.CenterCrop(side)(v2.Resize(side, antialias=True)(image))[0]
    rows, columns = torch.where(image > 0.5)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize(
    ("size", "stored"),
    [((320, 240), (320, 240)), ((596, 336), (454, 256)), ((240, 431), (256, 460)), ((596, 336), (256, 256))],
)
def test_a_mapped_box_is_where_resize_and_crop_put_it(size: tuple[int, int], stored: tuple[int, int]) -> None:
    box = [size[0] // 3, size[1] // 4, size[0] // 3 + 90, size[1] // 4 + 70]
    mapped = map_boxes_to_crop(np.array([box]), size, stored, 224)[0]
    expected = np.array(_box_seen_by_torchvision(size, stored, box, 224))
    np.testing.assert_allclose(mapped, expected, atol=1.01)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (596, 336), (101, 333), (224, 224), (37, 64)])
def test_resized_size_is_torchvisions(size: tuple[int, int]) -> None:
    width, height = size
    resized = v2.Resize(64)(torch.zeros(1, height, width))
    assert resized_size(size, 64) == (resized.shape[2], resized.shape[1])


def test_boxes_outside_the_crop_and_padding_become_padding() -> None:
    boxes = np.array([[0, 0, 30, 240], [-1, -1, -1, -1], [100, 50, 200, 150], [20, 0, 60, 240], [np.nan, 0, 9, 9]])
    mapped = map_boxes_to_crop(boxes.reshape(1, 5, 4), (320, 240), (320, 240), 240)
    assert mapped.shape == (1, 5, 4)
    assert mapped.dtype == np.float32
    np.testing.assert_array_equal(mapped[0, [0, 1, 4]], -1)
    np.testing.assert_array_equal(mapped[0, 2], [60, 50, 160, 150])
    np.testing.assert_array_equal(mapped[0, 3], [0, 0, 20, 240])


def test_iou_matrix() -> None:
    first = np.array([[0, 0, 10, 10], [5, 5, 5, 5]])
    second = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(iou_matrix(first, second), np.array([[1, 1 / 3, 0], [0, 0, 0]]))
    assert iou_matrix(np.zeros((0, 4)), second).shape == (0, 3)


def test_order_is_told_by_boxes_that_are_inside_out_in_it() -> None:
    boxes = np.array([[10, 150, 60, 200], [100, 20, 180, 90], [30, 40, 50, 60]])
    assert likely_formats(boxes, "xyxy") == []
    as_xxyy = boxes[:, [0, 2, 1, 3]]
    assert likely_formats(as_xxyy, "xyxy") == ["xxyy"]
    assert likely_formats(as_xxyy, "xxyy") == []
    np.testing.assert_array_equal(to_xyxy(as_xxyy, "xxyy"), boxes)


def test_flat_boxes_say_nothing_about_the_order() -> None:
    assert likely_formats(np.array([[10, 50, 30, 50]]), "xyxy") == []


def test_boxes_with_sides_are_told_from_boxes_in_another_order() -> None:
    sides = np.array([[100, 200, 300, 50], [400, 300, 60, 90], [50, 200, 20, 80]])
    assert likely_formats(sides, "xyxy") == ["xywh"], "the last alone could be x1, x2, y1, y2"
    assert likely_formats(sides[2:], "xyxy") == ["xxyy", "xywh", "cxcywh"]
    assert likely_formats(sides, "xyxy", (640, 480)) == ["xywh"]


def test_a_box_that_is_inside_out_among_others_says_nothing_about_sides() -> None:
    boxes = np.array([[10, 150, 60, 200], [100, 20, 180, 90], [90, 40, 50, 60]])
    assert likely_formats(boxes, "xyxy") == [] and likely_formats(boxes, "xyxy", (320, 240)) == []


@pytest.mark.parametrize("box_format", BOX_FORMATS)
def test_every_format_is_read_into_pixels(box_format: str) -> None:
    written = {
        "xyxy": [8, 6, 40, 36], "xxyy": [8, 40, 6, 36], "yxyx": [6, 8, 36, 40], "xywh": [8, 6, 32, 30],
        "cxcywh": [24, 21, 32, 30],
    }[box_format.removeprefix("relative_")]  # fmt: skip
    if box_format.startswith("relative_"):
        sides = {"xxyy": [80, 80, 60, 60], "yxyx": [60, 80, 60, 80]}.get(box_format[9:], [80, 60, 80, 60])
        written = [part / side for part, side in zip(written, sides, strict=True)]
    rects = np.array([[written]])
    np.testing.assert_allclose(to_pixels(rects, box_format, (80, 60)), [[[8, 6, 40, 36]]])
    fits, misfits = fitting(rects[0], box_format, (80, 60))
    assert fits.all() and not misfits.any() and likely_formats(rects, box_format, (80, 60)) == []


def test_unknown_order_is_an_error() -> None:
    with pytest.raises(ValueError, match="xyxy, xxyy"):
        to_xyxy(np.zeros((1, 4)), "xywh")


def test_boxes_of_any_size_overflow_nothing() -> None:
    huge = np.array([[-1e308, -1e308, 1e308, 1e308], [0, 0, np.inf, 1e308], [0, 0, 9, 9]])
    with np.errstate(all="raise"):
        overlaps, areas = iou_matrix(huge, huge), box_area(huge)
    assert np.isfinite(overlaps).all() and np.isfinite(areas).all() and areas[2] == 81 and overlaps[0, 0] == 1
