"""Frames of one video as a shard stores them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dataloaders.decoders import UnreadableVideo
from dataloaders.frames import FrameSettings, read_clip


@dataclass(frozen=True)
class EncodedClip:
    """All candidate frames of a video, encoded.

    Attributes:
        images: one JPEG file per frame, or a single uint8 (n, size, size, 3) BGR.
        original_size: (width, height) of the video as shown, in pixels.
        stored_size: (width, height) of the frames in `images`, in pixels.
        fps: frame rate of the video.
        frame_indices: number of each frame in the video.
        feature_framerate: frames kept per second.
        notes: what is to be said of reading the video.
    """

    images: list[bytes]
    original_size: tuple[int, int]
    stored_size: tuple[int, int]
    fps: float
    frame_indices: list[int]
    feature_framerate: float
    notes: list[str]


def encode_clip(path: Path, size: int, jpeg_quality: int | None, feature_framerate: float = 1) -> EncodedClip:
    """Read a video and encode its candidate frames (`dataloaders.frames.candidate_indices`).

    Args:
        path: the video.
        size: in pixels; short side of JPEG frames, which keep their aspect and are never enlarged, or both sides of
            raw frames, which are squashed as the released ones are.
        jpeg_quality: 1 to 100, or None for raw frames.
        feature_framerate: frames kept per second.

    Raises:
        UnreadableVideo: nothing decodes, or a frame cannot be encoded.
    """
    shrink = _Shrink(size, keep_aspect=jpeg_quality is not None)
    clip = read_clip(path, None, FrameSettings(feature_framerate), shrink)
    distinct = {id(frame): cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in clip.frames}  # some are there often
    if jpeg_quality is None:
        images = [np.stack([distinct[id(frame)] for frame in clip.frames]).tobytes()]
    else:
        encoded = {key: _jpeg(frame, jpeg_quality, path) for key, frame in distinct.items()}
        images = [encoded[id(frame)] for frame in clip.frames]
    shape, original = clip.frames[0].shape, (clip.width, clip.height)
    indices = clip.frame_indices.tolist()
    return EncodedClip(images, original, (shape[1], shape[0]), clip.fps, indices, feature_framerate, clip.notes)


def _jpeg(frame: np.ndarray, quality: int, path: Path) -> bytes:
    is_encoded, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_encoded:
        raise UnreadableVideo(f"{path}: a frame of shape {frame.shape} cannot be stored as JPEG")
    return data.tobytes()


class _Shrink:
    """Brings the frames of one clip to the stored size, which its first frame decides."""

    def __init__(self, size: int, keep_aspect: bool) -> None:
        self._side = size
        self._keep_aspect = keep_aspect
        self._target: tuple[int, int] | None = None

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        if self._target is None:
            scale = min(1.0, self._side / min(width, height))
            kept = (round(width * scale), round(height * scale))
            self._target = kept if self._keep_aspect else (self._side, self._side)
        if (width, height) == self._target:
            return frame
        is_smaller = self._target[0] <= width and self._target[1] <= height
        return cv2.resize(frame, self._target, interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC)
