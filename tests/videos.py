"""Small videos that tests write themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from dataloaders.decoders import has_av

BACKENDS_HERE = ("opencv", "av") if has_av() else ("opencv",)


def write_video(
    path: Path,
    num_frames: int,
    fps: float = 10,
    size: tuple[int, int] = (64, 48),
    step: int = 2,
    picture: Callable[[int], np.ndarray] | None = None,
) -> Path:
    """Write an MP4 (MPEG-4 part 2) whose frame i is grey of level step * i.

    Args:
        path: the file; its folder is made.
        num_frames: frames to write.
        fps: frames per second.
        size: (width, height) in pixels.
        step: grey levels from one frame to the next.
        picture: frame i (height, width, 3) instead of grey.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    assert writer.isOpened()
    for index in range(num_frames):
        grey = np.full((size[1], size[0], 3), step * index % 256, dtype=np.uint8)
        writer.write(picture(index) if picture else grey)
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


def write_timed(path: Path, seconds: Sequence[float], codec: str = "libx264", size: tuple[int, int] = (64, 48)) -> Path:
    """Write a video whose frame i is grey of level 20 + i % 200 and is shown at seconds[i]; needs PyAV."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        time_base = Fraction(1, 90000)
        stream.time_base = stream.codec_context.time_base = time_base
        for index, second in enumerate(seconds):
            image = np.full((size[1], size[0], 3), 20 + index % 200, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(second / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
