"""The copy of a video with the boxes of its trajectories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders.decoders import UnreadableVideo
from dataloaders.frames import all_frames
from tests.videos import write_video
from utils.pictures.box_video import box_spans, boxes_at, write_box_video
from utils.pictures.drawing import PALETTE
from utils.pictures.explain import Explanation, Trajectory


def synthetic(video: Path, boxes: list[list[list[float]]], ids: list[list[int]], indices: list[int]) -> Explanation:
    """Frames of 64x64 seen whole by a model of R = 64, so that crop pixels are original pixels."""
    trajectories = [
        Trajectory(index, f"class {index}", None) for index in sorted({i for row in ids for i in row} - {0})
    ]
    return Explanation(
        str(video), "text", [np.zeros((64, 64, 3), np.uint8)] * len(indices), np.array(indices), 8.0, 64,
        np.array(boxes, np.float32), np.array(ids), trajectories, [],
    )  # fmt: skip


def test_boxes_move_evenly_between_frames_that_both_have_them_and_else_stay_near():
    empty = [-1.0] * 4
    boxes = [
        [[0, 0, 10, 10], [50, 50, 60, 60], [20, 0, 30, 10]],
        [[50, 50, 60, 60], [20, 0, 30, 10], empty],
        [empty, [10, 40, 20, 50], empty],
    ]
    shown = synthetic(Path("none"), boxes, [[3, 3, 7], [3, 7, 0], [0, 7, 0]], [0, 8, 24])
    spans = box_spans(shown)

    def at(frame: int) -> list[tuple[int, list[float]]]:
        return sorted((place, box.tolist()) for place, box in boxes_at(spans, frame))

    assert at(0) == [(0, [0, 0, 10, 10]), (0, [50, 50, 60, 60]), (1, [20, 0, 30, 10])]
    assert at(2) == at(0)  # a quarter of a second at 8 frames per second
    assert at(4) == [(0, [50, 50, 60, 60]), (1, [20, 0, 30, 10])]  # the near one of the two stayed, the other has gone
    assert at(16) == [(1, [15, 20, 25, 30])]
    assert at(24) == at(26) == [(1, [10, 40, 20, 50])] and at(27) == []


def test_the_video_has_every_frame_and_boxes_in_color(tmp_path: Path):
    clip = write_video(tmp_path / "clip.mp4", 20, fps=8, size=(64, 64), step=5)
    shown = synthetic(clip, [[[10, 20, 40, 50]]] * 2, [[5], [5]], [0, 8])
    path = tmp_path / "out" / "clip.mp4"
    assert write_box_video(shown, path) == 20 and [file.name for file in path.parent.iterdir()] == ["clip.mp4"]
    frames = list(all_frames(path))
    capture = cv2.VideoCapture(str(path))
    assert len(frames) == 20 and capture.get(cv2.CAP_PROP_FPS) == 8
    assert {frame.shape for frame in frames} == {(320, 320, 3)}
    for number in (0, 8):
        border = frames[number][150:240, 51]
        assert np.abs(border.astype(int) - PALETTE[0]).mean() < 40
    assert np.ptp(frames[19][:, :, 0].astype(int)) < 30  # long after the last sampled frame, nothing is drawn
    with pytest.raises(UnreadableVideo):
        write_box_video(replace(shown, video=str(tmp_path / "gone.mp4")), path)
    assert len(list(all_frames(path))) == 20 and len(list(path.parent.iterdir())) == 1


def test_what_the_model_does_not_see_is_darker(tmp_path: Path):
    clip = write_video(tmp_path / "clip.mp4", 5, fps=8, size=(128, 64), step=50)
    wide = synthetic(clip, [[[-1.0] * 4]], [[0]], [0])
    shown = replace(wide, frames=[np.zeros((64, 128, 3), np.uint8)])
    write_box_video(shown, tmp_path / "out.mp4")
    last = list(all_frames(tmp_path / "out.mp4"))[4]
    assert last[160, 80].mean() < 0.6 * last[160, 320].mean() and last[160, 320].mean() > 180
