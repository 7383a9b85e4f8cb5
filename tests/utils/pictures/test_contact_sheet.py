"""The picture of what a model saw in a video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils.pictures.contact_sheet import GAP, MARGIN, SIDE, TITLE, contact_sheet
from utils.pictures.drawing import PALETTE, crop_picture, draw_boxes
from utils.pictures.explain import NOTHING, Action, Explanation, Trajectory, WordMatch


def test_the_sheet_holds_the_frames_with_boxes_in_the_trajectories_colors(explanation: Explanation, tmp_path: Path):
    picture = crop_picture(explanation.frames[0], explanation.resolution, SIDE)
    draw_boxes(explanation, 0, picture, 15)
    sheet = contact_sheet(explanation)
    top = MARGIN + TITLE + GAP + MARGIN
    np.testing.assert_array_equal(sheet[top : top + SIDE, MARGIN : MARGIN + SIDE], picture)
    slot = int(np.flatnonzero(explanation.box_trajectory[0])[-1])  # drawn last: no other box lies over it
    place = [entry.id for entry in explanation.trajectories].index(int(explanation.box_trajectory[0, slot]))
    x1, y1, x2, y2 = np.rint(explanation.boxes[0, slot] * SIDE / explanation.resolution).astype(int)
    border = np.concatenate(
        [picture[y1 + 1, x1:x2], picture[y2 - 2, x1:x2], picture[y1:y2, x1 + 1], picture[y1:y2, x2 - 2]]
    )
    assert (border == PALETTE[place]).all(-1).mean() > 0.5  # labels lie over the rest
    for place in range(len(explanation.trajectories)):
        assert (sheet == PALETTE[place]).all(-1).sum() > 100


def shown(frames: int, actions: int = 0, trajectories: int = 0, text: str = "a dog runs") -> Explanation:
    """Grey frames of which each has a box of each trajectory, and actions that look at all patches alike."""
    boxes = np.tile(np.array([[4.0, 4, 20, 20]], np.float32), (frames, max(trajectories, 1), 1))
    ids = np.tile(np.arange(1, trajectories + 1), (frames, 1)) if trajectories else np.zeros((frames, 1), int)
    looks = np.full((frames, 4, 4), 1 / 32, np.float32)
    seen = np.full((frames, ids.shape[1]), 0.5 / ids.shape[1], np.float32)
    action = Action(looks, seen, np.full(frames, 0.5 / frames, np.float32), 0.5, None)
    return Explanation(
        "v.mp4", text, [np.full((48, 64, 3), 128, np.uint8)] * frames, np.arange(frames), 10.0, 32,
        boxes if trajectories else np.full_like(boxes, -1), ids,
        [Trajectory(index, f"thing {index}", None) for index in range(1, trajectories + 1)], [action] * actions,
    )  # fmt: skip


@pytest.mark.parametrize(("frames", "columns"), [(1, 1), (4, 4), (6, 6), (13, 6)])
def test_frames_stand_beside_each_other_six_in_a_line(frames: int, columns: int):
    sheet = contact_sheet(shown(frames))
    assert sheet.dtype == np.uint8 and sheet.shape[1] == columns * (SIDE + GAP) - GAP + 2 * MARGIN
    lines = -(-frames // 6)
    assert lines * SIDE < sheet.shape[0] < (lines + 1) * (SIDE + 100)


def test_there_is_a_part_for_each_action_and_one_for_the_trajectories():
    heights = [len(contact_sheet(shown(6, actions))) for actions in range(4)]
    steps = np.diff(heights)
    assert (steps > SIDE).all() and steps[1] == steps[2], "the first comes with the explanation of all"
    assert len(contact_sheet(shown(6, trajectories=2))) > heights[0]


def test_actions_with_a_verb_stand_first_under_their_own_numbers():
    named = shown(2, actions=4)
    matches = [None, WordMatch(NOTHING, 0.9), WordMatch("running", 0.1), WordMatch("jumping", 0.8)]
    actions = [replace(action, match=match) for action, match in zip(named.actions, matches, strict=True)]
    numbered = replace(named, actions=actions).numbered_actions
    assert [number for number, _ in numbered] == [3, 4, 1, 2]
    assert all(action is actions[number - 1] for number, action in numbered)
    swapped = contact_sheet(replace(named, actions=actions[:1] + actions[2:3]))
    assert (swapped != contact_sheet(replace(named, actions=actions[2:3] + actions[:1]))).any(), "the number is shown"
    assert len(swapped) == len(contact_sheet(shown(2, actions=2)))


def test_a_long_text_takes_more_lines_and_no_more_width():
    short, long = (contact_sheet(shown(3, text=text)) for text in ("a dog", "a dog runs " * 30))
    assert long.shape[1] == short.shape[1] and len(long) >= len(short) + 3 * TITLE


def test_objects_that_an_action_looks_at_are_marked_in_their_colour():
    plain, marked = (contact_sheet(shown(2, 1, trajectories)) for trajectories in (0, 1))
    assert not (plain == PALETTE[0]).all(-1).any()
    bottom = marked[-(2 * SIDE) :]
    assert (bottom == PALETTE[0]).all(-1).sum() > 100, "below the frames and the list"
