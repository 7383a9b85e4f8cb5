"""Pictures of the report page: frames of clips side by side, and files, as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dataloaders.decoders import UnreadableVideo
from dataloaders.frames import FrameSettings, read_clip
from dataloaders.video_files import find_videos

STRIP_HEIGHT = 96  # pixels
GAP = 3  # white pixels between two frames
LARGEST_PNG = 300_000  # bytes; a larger picture is put in as JPEG


class Picture(NamedTuple):
    """An image: its address, what it shows in words, and its size in pixels, which keeps its place free.

    Without an address the words say why there is none.
    """

    uri: str
    alt: str
    width: int | None = None
    height: int | None = None


class Strips:
    """Pictures of clips: some frames of each side by side.

    Args:
        folder: has the videos, anywhere below it.
        video_ids: of the clips that will be asked for.
        frames: of each clip, chosen by the frame rule (dataloaders/frames.py).
        feature_framerate: candidates per second of that rule.
    """

    def __init__(self, folder: Path, video_ids: Iterable[str], frames: int, feature_framerate: float) -> None:
        self._files = find_videos(folder, video_ids)[0]
        self.frames, self.rule = frames, FrameSettings(feature_framerate)
        self._made: dict[str, Picture] = {}

    def of(self, video_id: str) -> Picture:
        """The clip's picture; a sentence where the clip is not there or cannot be read."""
        if video_id not in self._made:
            self._made[video_id] = self._make(video_id)
        return self._made[video_id]

    def _make(self, video_id: str) -> Picture:
        if video_id not in self._files:
            return Picture("", f"There is no video file of {video_id}.")
        try:
            clip = read_clip(self._files[video_id], self.frames, self.rule)
        except UnreadableVideo:
            return Picture("", f"The video of {video_id} cannot be read.")
        scale = min(1.0, STRIP_HEIGHT / clip.height)
        size = (max(1, round(clip.width * scale)), max(1, round(clip.height * scale)))
        gap = np.full((size[1], GAP, 3), 255, np.uint8)
        parts = [part for frame in clip.frames for part in (gap, cv2.resize(frame, size, interpolation=cv2.INTER_AREA))]
        strip = np.hstack(parts[1:])
        alt = f"{len(clip.frames)} frames of {video_id}"
        return Picture(data_uri(_jpeg(strip[..., ::-1]), "jpeg"), alt, strip.shape[1], strip.shape[0])


def data_uri(content: bytes, kind: str) -> str:
    """A file's content as an address; `kind` is the part behind `image/`, such as png."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def embedded(file: Path, alt: str) -> Picture:
    """A picture file as it is, a large one as JPEG where that is smaller; ValueError if it is no picture."""
    content = file.read_bytes()
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise ValueError(f"{file} is no picture: delete it, or make it again")
    if len(content) > LARGEST_PNG:
        smaller = _jpeg(image)
        if len(smaller) < len(content):
            return Picture(data_uri(smaller, "jpeg"), alt)
    return Picture(data_uri(content, "png"), alt)


def _jpeg(image: np.ndarray) -> bytes:
    """A BGR picture (H, W, 3) as a JPEG file."""
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return encoded.tobytes()
