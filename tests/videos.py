"""Small videos that tests write themselves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_video(path: Path, num_frames: int, fps: float = 10, size: tuple[int, int] = (64, 48), step: int = 2) -> Path:
    """Write an MP4 (MPEG-4 part 2) whose frame i is grey of level step * i.

    Args:
        path: the file; its folder is made.
        num_frames: frames to write.
        fps: frames per second.
        size: (width, height) in pixels.
        step: grey levels from one frame to the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    assert writer.isOpened()
    for index in range(num_frames):
        writer.write(np.full((size[1], size[0], 3), step * index % 256, dtype=np.uint8))
    writer.release()
    return path


def write_noise(path: Path, codec: str, num_frames: int = 30, fps: float = 10) -> bytes:
    """Write a video of 64x48 noise, whose frames take most of the file, and return its bytes.

    Args:
        path: the file; its suffix says which container.
        codec: four characters, for instance "MJPG".
        num_frames: frames to write.
        fps: frames per second.
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    pictures = np.random.default_rng(0)
    for _ in range(num_frames):
        writer.write(pictures.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path.read_bytes()
