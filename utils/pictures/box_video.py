"""A copy of a video with the boxes of its trajectories drawn in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from dataloaders.files import atomic_path
from dataloaders.frames import all_frames
from modules.boxes import map_boxes_from_crop
from utils.pictures.drawing import Labels, color_of, draw_box, trajectory_label
from utils.pictures.explain import Explanation

MIN_HEIGHT = 320
HOLD_SECONDS = 0.25
OUTSIDE = 0.45  # brightness of what the model does not see


class Span(NamedTuple):
    """A box from one frame of the video to another, moving evenly; `first` and `last` are seen at `start` and `end`."""

    place: int  # of its trajectory
    start: int
    end: int
    first: np.ndarray  # (4,) original pixels
    last: np.ndarray


def write_box_video(explanation: Explanation, path: Path) -> int:
    """Write every frame of the video, at its own speed, with boxes; part of it that the model does not see is darker.

    Boxes are thick near the frames that they were found in, and thin between them, where they are interpolated.

    Args:
        path: the .mp4 to write; MPEG-4, at least MIN_HEIGHT high.

    Returns:
        The number of frames.

    Raises:
        OSError: OpenCV cannot write the file, or what it wrote cannot be read back; nothing is left at `path`.
    """
    width, height = explanation.size
    scale = max(1.0, MIN_HEIGHT / height)
    size = 2 * round(width * scale / 2), 2 * round(height * scale / 2)
    with atomic_path(path.absolute(), ".mp4") as temporary:  # its ending tells OpenCV the container
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), explanation.fps, size)
        try:
            if not writer.isOpened():
                raise OSError(
                    f"{path}: OpenCV cannot write this video (no MPEG-4 encoder, or the folder is not writable)"
                )
            written = 0
            for picture in _drawn_frames(explanation, size):
                writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                written += 1
        finally:
            writer.release()
        readable = sum(1 for _ in all_frames(temporary))
        if readable != written:
            raise OSError(f"{path}: {written} frames written, {readable} can be read back; is the disk full?")
    return written


def _drawn_frames(explanation: Explanation, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The frames of the video with boxes, uint8 (H, W, 3), resized to (width, height)."""
    spans = box_spans(explanation)
    scale = np.array([size[0] / explanation.size[0], size[1] / explanation.size[1]] * 2)
    side = explanation.resolution
    seen = np.rint(map_boxes_from_crop(np.array([0, 0, side, side]), explanation.size, side) * scale).astype(int)
    x1, y1, x2, y2 = np.clip(seen, 0, size * 2).tolist()
    sampled, hold = np.unique(explanation.frame_indices), _hold_frames(explanation.fps)
    text_height = max(15, size[1] // 24)
    for number, frame in enumerate(all_frames(explanation.video)):
        enlarged = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) if frame.shape[1::-1] != size else frame
        picture = cv2.convertScaleAbs(enlarged, alpha=OUTSIDE)
        picture[y1:y2, x1:x2] = enlarged[y1:y2, x1:x2]
        shown = [(place, box * scale) for place, box in boxes_at(spans, number)]
        is_near = bool(np.abs(sampled - number).min() <= hold)
        for place, box in shown:
            draw_box(picture, box, color_of(place), max(3, size[1] // 160) if is_near else 1)
        labels = Labels(picture, text_height)
        for place, box in shown:
            labels.add(trajectory_label(explanation.trajectories[place]), box, color_of(place))
        yield picture


def boxes_at(spans: list[Span], frame: int) -> list[tuple[int, np.ndarray]]:
    """The boxes of one frame of the video: place of the trajectory, (4,) in original pixels."""
    found = []
    for span in spans:
        if span.start <= frame < span.end:
            share = (frame - span.start) / (span.end - span.start)
            found.append((span.place, (1 - share) * span.first + share * span.last))
    return found


def box_spans(explanation: Explanation) -> list[Span]:
    """Join the boxes of each trajectory from one sampled frame to the next.

    Boxes of a trajectory in neighbouring sampled frames are paired by the distance of their centres. What has no
    partner stays for HOLD_SECONDS, at most half-way to the neighbour.
    """
    frames = sorted(set(explanation.frame_indices.tolist()))
    found = [_boxes_of(explanation, frame) for frame in frames]
    hold = _hold_frames(explanation.fps)
    spans: list[Span] = []
    for now, frame in enumerate(frames):
        before = min(hold, (frame - frames[now - 1]) // 2 if now else frame)
        after = min(hold, (frames[now + 1] - frame) // 2 if now + 1 < len(frames) else hold)
        for place, boxes in found[now].items():
            earlier = {last for _, last in _pairs(found[now - 1].get(place, []), boxes)} if now else set()
            later = dict(_pairs(boxes, found[now + 1].get(place, []))) if now + 1 < len(frames) else {}
            for row, box in enumerate(boxes):
                if row not in earlier and before:
                    spans.append(Span(place, frame - before, frame, box, box))
                if row in later:
                    spans.append(Span(place, frame, frames[now + 1], box, found[now + 1][place][later[row]]))
                else:
                    spans.append(Span(place, frame, frame + after + 1, box, box))
    return spans


def _boxes_of(explanation: Explanation, frame: int) -> dict[int, list[np.ndarray]]:
    """Boxes (4,) in original pixels of the frame with this number, by the place of their trajectory."""
    sample = explanation.frame_indices.tolist().index(frame)
    places = {trajectory.id: place for place, trajectory in enumerate(explanation.trajectories)}
    boxes = map_boxes_from_crop(explanation.boxes[sample], explanation.size, explanation.resolution)
    found: dict[int, list[np.ndarray]] = defaultdict(list)
    for index, box in zip(explanation.box_trajectory[sample].tolist(), boxes, strict=True):
        if index:
            found[places[index]].append(box)
    return found


def _pairs(first: list[np.ndarray], second: list[np.ndarray]) -> list[tuple[int, int]]:
    if not first or not second:
        return []
    centres = [(np.stack(boxes)[:, :2] + np.stack(boxes)[:, 2:]) / 2 for boxes in (first, second)]
    rows, columns = linear_sum_assignment(np.linalg.norm(centres[0][:, None] - centres[1][None], axis=-1))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _hold_frames(fps: float) -> int:
    return round(HOLD_SECONDS * fps)
