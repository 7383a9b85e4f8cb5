"""Box geometry in numpy: overlap, coordinate orders, and the mapping of original pixels to the model's crop."""

from __future__ import annotations

import numpy as np

PADDING = -1.0

RECT_ORDERS = ("xyxy", "xxyy")
# Of the four numbers: two corners, or the upper left corner or the centre with width and height.
LAYOUTS = (*RECT_ORDERS, "yxyx", "xywh", "cxcywh")
RELATIVE = "relative_"  # 0 to 1, in shares of the frame's width and height; otherwise pixels
BOX_FORMATS = (*LAYOUTS, *(f"{RELATIVE}{layout}" for layout in LAYOUTS))
RELATIVE_RANGE = (-0.5, 1.5)  # boxes in shares of the frame, with some room at the border
FRAME_ROOM, PIXEL_ROOM = 0.05, 2.0  # by which boxes reach beyond a frame: a share of its side, and pixels
LARGEST_EDGE = 1e60  # of what is reckoned with: products of two areas stay finite


def iou_matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of every box of `first` with every box of `second`.

    Args:
        first: (M, 4) x1, y1, x2, y2 in any one unit.
        second: (N, 4) in the same unit.

    Returns:
        (M, N) float64 in [0, 1]; 0 where either box has no area.
    """
    first, second = bounded(first).reshape(-1, 4), bounded(second).reshape(-1, 4)
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, 0)
    intersection = sides[..., 0] * sides[..., 1]
    union = _area(first)[:, None] + _area(second)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (...,) of boxes (..., 4) given as x1, y1, x2, y2; a box turned inside out has area 0."""
    return _area(bounded(boxes))


def bounded(boxes: np.ndarray) -> np.ndarray:
    """Return boxes of any shape as float64 with edges that no product of areas overflows by; others are as they are."""
    return np.clip(np.asarray(boxes, dtype=np.float64), -LARGEST_EDGE, LARGEST_EDGE)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)


def to_xyxy(rects: np.ndarray, rect_order: str) -> np.ndarray:
    """Return rects (..., 4) written in `rect_order` as x1, y1, x2, y2.

    Raises:
        ValueError: if `rect_order` is not "xyxy" or "xxyy".
    """
    if rect_order not in RECT_ORDERS:
        raise ValueError(f"rect_order is {rect_order!r}; it must be one of {', '.join(RECT_ORDERS)}")
    rects = np.asarray(rects)
    return rects if rect_order == "xyxy" else rects[..., [0, 2, 1, 3]]


def edges(rects: np.ndarray, layout: str) -> np.ndarray:
    """Return rects (..., 4) written in one of LAYOUTS as x1, y1, x2, y2, in the same unit."""
    if layout in RECT_ORDERS:
        return to_xyxy(rects, layout)
    a, b, c, d = np.moveaxis(np.asarray(rects), -1, 0)
    if layout == "yxyx":
        return np.stack([b, a, d, c], axis=-1)
    if layout == "xywh":
        return np.stack([a, b, a + c, b + d], axis=-1)
    return np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], axis=-1)


def to_pixels(rects: np.ndarray, box_format: str, size: tuple[int, int]) -> np.ndarray:
    """Return rects (..., 4) written in one of BOX_FORMATS as x1, y1, x2, y2 in pixels of a frame of `size` (W, H)."""
    boxes = edges(np.asarray(rects, dtype=np.float64), box_format.removeprefix(RELATIVE))
    return boxes * np.array(size * 2) if box_format.startswith(RELATIVE) else boxes


def looks_relative(rects: np.ndarray) -> np.ndarray:
    """Which rects (M, 4) are in shares of the frame, (M,) bool: in pixels they are a dot in its corner."""
    low, high = RELATIVE_RANGE
    return ((rects >= low) & (rects <= high)).all(axis=1) & (rects != 0).any(axis=1)


def likely_formats(rects: np.ndarray, stated: str, size: tuple[int, int] | None = None) -> list[str]:
    """Return the formats in which a file's rects make sense rather than in the stated one; none if that explains them.

    Many boxes make sense in several formats and say nothing. A box is evidence for a format when it has an area and
    lies in the frame in it, and in the stated one it is turned inside out, far outside the frame, or a dot (an edge of
    length 0 is no evidence: detectors clip boxes at the border). A format is likely when there is more evidence for it
    than for the stated one; of the likely ones those with most evidence are returned, in the order of BOX_FORMATS.

    Args:
        rects: (M, 4) as written in the file, finite, all of one file.
        stated: which of BOX_FORMATS the file is said to be in.
        size: (width, height) of the frame, if that is known.
    """
    rects = np.asarray(rects, dtype=np.float64).reshape(-1, 4)
    fits_stated, misfits_stated = fitting(rects, stated, size)
    if not misfits_stated.any():
        return []
    evidence = {}
    for other in BOX_FORMATS:
        fits, misfits = fitting(rects, other, size)
        # Without a frame nothing speaks against sides, so each box that fits as stated does.
        against = fits_stated if size is None and other in ("xywh", "cxcywh") else fits_stated & misfits
        count = int((fits & misfits_stated).sum())
        if count > int(against.sum()):
            evidence[other] = count
    return [name for name, count in evidence.items() if count == max(evidence.values())]


def fitting(rects: np.ndarray, box_format: str, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Which rects (M, 4) are boxes of a frame in a format, and which cannot be, each (M,) bool; some are neither."""
    is_relative = box_format.startswith(RELATIVE)
    boxes = edges(rects, box_format.removeprefix(RELATIVE))
    bounds = np.array((1.0, 1.0) if is_relative else size or (np.inf, np.inf))
    if np.isfinite(bounds).all():
        room = FRAME_ROOM * bounds + (0 if is_relative else PIXEL_ROOM)
    else:
        room = np.full(2, FRAME_ROOM * np.abs(rects).max(initial=0) + PIXEL_ROOM)
    low, high = boxes[:, :2], boxes[:, 2:]
    misfits = np.logical_or.reduce((high < low) | (low < -room) | (high > bounds + room), axis=1)
    if not is_relative:
        misfits |= looks_relative(rects)
    return ~misfits & np.logical_and.reduce(high > low, axis=1), misfits


def resized_size(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Return the (width, height) that torchvision's Resize(resolution) gives an image of `size` (width, height)."""
    width, height = size
    if width <= 0 or height <= 0:
        raise ValueError(f"frame size {width}x{height} has no pixels")
    if width <= height:
        return resolution, int(resolution * height / width)
    return int(resolution * width / height), resolution


def map_boxes_to_crop(
    boxes: np.ndarray, original_size: tuple[int, int], stored_size: tuple[int, int], resolution: int
) -> np.ndarray:
    """Map boxes from original pixels through the frame pipeline into pixels of the model's square crop.

    Boxes follow the frames: original size -> size as stored (a shard may hold smaller or squashed frames) ->
    torchvision's Resize(resolution) of the short side -> CenterCrop(resolution).

    Args:
        boxes: (..., 4) x1, y1, x2, y2 in pixels of the original frame; padding (-1) and boxes without area stay
            padding.
        original_size: (width, height) of the frames that the boxes were found in.
        stored_size: (width, height) of the frames that go into Resize; equal to `original_size` for videos read
            directly.
        resolution: side of the crop, R.

    Returns:
        (..., 4) float32 clipped to [0, R]; all -1 where nothing of the box is inside the crop.
    """
    scale, corner = _crop_geometry(original_size, stored_size, resolution)
    mapped = np.asarray(boxes, dtype=np.float64) * scale - corner
    mapped = np.clip(mapped, 0.0, float(resolution)).astype(np.float32)
    is_visible = (mapped[..., 2] > mapped[..., 0]) & (mapped[..., 3] > mapped[..., 1])
    return np.where(is_visible[..., None], mapped, np.float32(PADDING))


def map_boxes_from_crop(boxes: np.ndarray, original_size: tuple[int, int], resolution: int) -> np.ndarray:
    """Map boxes (..., 4) in pixels of the model's square crop back into pixels of the original frame, float64.

    The inverse of `map_boxes_to_crop` for frames that were not stored in another size; no box is padding.

    Args:
        original_size: (width, height) of the frame.
        resolution: side of the crop, R.
    """
    scale, corner = _crop_geometry(original_size, original_size, resolution)
    return (np.asarray(boxes, dtype=np.float64) + corner) / scale


def _crop_geometry(
    original_size: tuple[int, int], stored_size: tuple[int, int], resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scale from original to resized pixels, (4,), and the crop's offset there, (4,), which is then subtracted."""
    width, height = resized_size(stored_size, resolution)
    left, top = int(round((width - resolution) / 2.0)), int(round((height - resolution) / 2.0))
    return np.array([width / original_size[0], height / original_size[1]] * 2), np.array([left, top, left, top])
