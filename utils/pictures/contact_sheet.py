"""One picture of what a model saw in a video: its frames with boxes, and where each action query looked."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.pictures.drawing import (
    BLACK,
    GREY,
    Color,
    Labels,
    color_of,
    crop_picture,
    draw_box,
    draw_boxes,
    heat_overlay,
    match_text,
    put_text,
    text_size,
    wrap_text,
)
from utils.pictures.explain import Action, Explanation

SIDE = 256  # pixels of a frame's picture
COLUMNS = 6  # frames beside each other
MARGIN, GAP = 24, 8
TITLE, BODY, LABEL = 26, 20, 15  # heights of text, pixels
SHOWN_SHARE = 0.05  # of a frame's attention that an object must have to be marked
EXPLANATION = (
    "Heat: the query's attention over the patches of a frame, on one scale for an action's frames. Boxes: objects with "
    "5% or more of it. Under a frame: its share of the action token's attention over time, the rest of which goes to "
    "the clip's mean; and how much of the query's attention in the frame goes to objects."
)


def contact_sheet(explanation: Explanation) -> np.ndarray:
    """Frames with boxes, trajectories, and the frames again for each action, verbs first: uint8 (H, W, 3) RGB."""
    pictures = [crop_picture(frame, explanation.resolution, SIDE) for frame in explanation.frames]
    width = min(len(pictures), COLUMNS) * (SIDE + GAP) - GAP
    parts = [_paragraph(explanation.text, TITLE, width), _frames(explanation, pictures)]
    if explanation.trajectories:
        parts += [_legend(explanation, width)]
    for number, action in explanation.numbered_actions:
        parts += [_action(explanation, action, number, pictures, width)]
    if explanation.actions:
        parts += [_paragraph(EXPLANATION, BODY, width, GREY)]
    return _stack(parts)


def _stack(parts: Sequence[np.ndarray]) -> np.ndarray:
    height = sum(len(part) for part in parts) + (len(parts) + 1) * MARGIN
    sheet = _blank(height, max(part.shape[1] for part in parts) + 2 * MARGIN)
    top = MARGIN
    for part in parts:
        sheet[top : top + len(part), MARGIN : MARGIN + part.shape[1]] = part
        top += len(part) + MARGIN
    return sheet


def _blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, dtype=np.uint8)


def _paragraph(text: str, size: int, width: int, color: Color = BLACK) -> np.ndarray:
    lines = wrap_text(text, size, width)
    image = _blank(len(lines) * (size + GAP), width)
    for row, line in enumerate(lines):
        put_text(image, line, 0, row * (size + GAP), size, color)
    return image


def _strip(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Pictures (S, S, 3) in lines of COLUMNS, each with a line of text below."""
    line = SIDE + BODY + 2 * GAP
    columns = min(len(pictures), COLUMNS)
    image = _blank(-(-len(pictures) // columns) * line, columns * (SIDE + GAP) - GAP)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        y, x = place // columns * line, place % columns * (SIDE + GAP)
        image[y : y + SIDE, x : x + SIDE] = picture
        put_text(image, caption, x, y + SIDE + GAP // 2, BODY, GREY)
    return image


def _frames(explanation: Explanation, pictures: Sequence[np.ndarray]) -> np.ndarray:
    drawn = [picture.copy() for picture in pictures]
    for frame, picture in enumerate(drawn):
        draw_boxes(explanation, frame, picture, LABEL)
    return _strip(drawn, [f"{index / explanation.fps:.2f} s" for index in explanation.frame_indices.tolist()])


def _legend(explanation: Explanation, width: int) -> np.ndarray:
    """Trajectories with colour, class, matched noun and score, in as many columns as fit."""
    entries = [f"{entry.class_name}: {match_text(entry.match)}" for entry in explanation.trajectories]
    square = BODY
    column = max(text_size(entry, BODY)[0] for entry in entries) + square + 4 * GAP
    columns = max(1, min(len(entries), (width + 4 * GAP) // column))
    rows = -(-len(entries) // columns)
    image = _blank(BODY + 2 * GAP + rows * (BODY + GAP), max(width, column))
    put_text(image, "trajectories: class, matched noun, score", 0, 0, BODY, GREY)
    for place, entry in enumerate(entries):
        x, y = place % columns * column, BODY + 2 * GAP + place // columns * (BODY + GAP)
        cv2.rectangle(image, (x, y), (x + square - 1, y + square - 1), color_of(place), -1)
        put_text(image, entry, x + square + GAP, y, BODY)
    return image


def _action(
    explanation: Explanation, action: Action, number: int, pictures: Sequence[np.ndarray], width: int
) -> np.ndarray:
    title = f"action {number}: {match_text(action.match)}"
    aside = f"attention over time: clip's mean {action.clip:.0%}, frames {1 - action.clip:.0%}"
    head = _blank(TITLE + GAP, width)
    put_text(head, title, 0, 0, TITLE)
    put_text(head, aside, text_size(title, TITLE)[0] + 3 * GAP, (TITLE - BODY) * 3 // 4, BODY, GREY)
    largest = float(action.patches.max())
    drawn = [heat_overlay(picture, weights, largest) for picture, weights in zip(pictures, action.patches, strict=True)]
    for frame, picture in enumerate(drawn):
        _mark_objects(explanation, action, frame, picture)
    shares = zip(action.frames, action.objects.sum(1), strict=True)
    captions = [f"frame {share:.0%}, objects {objects:.0%}" for share, objects in shares]
    return np.concatenate([head, _strip(drawn, captions)])


def _mark_objects(explanation: Explanation, action: Action, frame: int, picture: np.ndarray) -> None:
    """Boxes of the objects that an action query attends to, with their share of its attention in this frame."""
    places = {trajectory.id: place for place, trajectory in enumerate(explanation.trajectories)}
    labels = Labels(picture, LABEL)
    for slot, index in enumerate(explanation.box_trajectory[frame].tolist()):
        share = float(action.objects[frame, slot])
        if index and share >= SHOWN_SHARE:
            color, box = color_of(places[index]), explanation.boxes[frame, slot] * (SIDE / explanation.resolution)
            draw_box(picture, box, color, 2)
            labels.add(f"{share:.0%}", box, color)
