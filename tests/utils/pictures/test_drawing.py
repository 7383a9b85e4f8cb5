"""Pieces of the pictures that explain a model."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from dataloaders.transforms import frames_to_tensor
from modules.boxes import iou_matrix, map_boxes_from_crop, map_boxes_to_crop
from utils.pictures.drawing import (
    BLACK,
    PALETTE,
    WHITE,
    Labels,
    color_of,
    contrasting,
    crop_picture,
    draw_box,
    heat_overlay,
    match_text,
    score_text,
    text_size,
    trajectory_label,
    wrap_text,
)
from utils.pictures.explain import NOTHING, Trajectory, WordMatch


def test_the_way_back_from_the_crop():
    boxes = np.array([[40.0, 10, 80, 60], [55, 20, 60, 90]])
    there = map_boxes_to_crop(boxes, (160, 96), (160, 96), 64)
    np.testing.assert_allclose(map_boxes_from_crop(there, (160, 96), 64), boxes, atol=1e-4)


@pytest.mark.parametrize("size", [(86, 64), (64, 150), (640, 360)])
def test_a_picture_shows_what_the_model_sees(size: tuple[int, int]):
    """At the model's own size it is the model's picture, up to the kernel of the resizing."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    frame = np.rint(255 * np.stack([x, y, (x + y) / 2], axis=-1)).astype(np.uint8)
    seen = frames_to_tensor([frame], 32)[0].permute(1, 2, 0).numpy().astype(int)
    np.testing.assert_allclose(crop_picture(frame, 32, 32).astype(int), seen, atol=4)
    large = cv2.resize(crop_picture(frame, 32, 256), (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(large.astype(int), seen, atol=4)


def test_heat_is_where_the_attention_is():
    weights = np.full((4, 4), 0.01, np.float32)
    weights[1, 2] = 0.8
    picture = np.full((64, 64, 3), 128, np.uint8)
    changed = np.abs(heat_overlay(picture, weights, 0.8).astype(int) - 128).sum(-1)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert 16 <= row < 32 and 32 <= column < 48
    assert changed[48:, :16].max() < changed.max() / 4
    assert [score_text(score) for score in (0.831, 0.005, 0.004)] == ["0.83", "0.01", "<0.01"]


def test_scores_and_matches_as_text():
    noun = Trajectory(3, "dog", WordMatch("puppy", 0.837))
    assert match_text(noun.match) == "puppy 0.84" and match_text(WordMatch(NOTHING, 0.001)) == f"{NOTHING} <0.01"
    assert match_text(None) == "not matched"
    assert trajectory_label(noun) == "dog: puppy" and trajectory_label(replace(noun, match=None)) == "dog"


def test_colours_repeat_after_the_palettes_end_and_text_on_them_can_be_read():
    assert len(set(PALETTE)) == len(PALETTE)
    assert [color_of(place) for place in (0, 1, len(PALETTE))] == [PALETTE[0], PALETTE[1], PALETTE[0]]
    assert contrasting((255, 255, 0)) == BLACK and contrasting((0, 0, 120)) == WHITE


def test_text_is_broken_at_spaces_into_lines_that_fit():
    text = "a dog runs over the old bridge while two men sing"
    width = text_size("a dog runs over", 20)[0]
    lines = wrap_text(text, 20, width)
    assert len(lines) > 2 and " ".join(lines) == text
    assert all(text_size(line, 20)[0] <= width for line in lines)
    for line, following in pairwise(lines):
        assert text_size(f"{line} {following.split()[0]}", 20)[0] > width, "the next word had no room"
    assert wrap_text("a extraordinarily-long-word b", 20, text_size("a b", 20)[0]) == [
        "a", "extraordinarily-long-word", "b",
    ]  # fmt: skip
    assert wrap_text("  ", 20, 100) == []


@pytest.mark.parametrize("thickness", [1, 2, 3, 4])
def test_the_border_of_a_box_is_drawn_inside_it(thickness: int):
    """OpenCV makes lines of an odd thickness from 3 on a pixel wider on either side."""
    image = np.zeros((40, 40, 3), np.uint8)
    draw_box(image, np.array([5.2, 10.0, 25.0, 29.7]), (255, 0, 0), thickness)
    rows, columns = np.nonzero(image[..., 0])
    beyond = 1 if thickness == 3 else 0
    edges = (columns.min() + beyond, rows.min() + beyond, columns.max() - beyond, rows.max() - beyond)
    assert edges == (5, 10, 24, 29) and not image[16:24, 11:19].any()


def test_labels_of_boxes_at_one_place_do_not_cover_each_other_and_stay_in_the_picture():
    image = np.zeros((200, 200, 3), np.uint8)
    labels = Labels(image, 15)
    for _ in range(4):
        labels.add("a dog", np.array([100.0, 100, 150, 150]), PALETTE[0])
    spots = np.array(labels.taken, float)
    assert len(np.unique(spots, axis=0)) == 4
    overlaps = iou_matrix(spots, spots) - np.eye(4)
    assert overlaps.max() < 1e-6
    for corner in ([0.0, 0, 10, 10], [190.0, 190, 200, 200]):
        labels.add("a long label", np.array(corner), PALETTE[1])
    spots = np.array(labels.taken)
    assert spots.min() >= 0 and spots.max() <= 200
