"""Pictures as they are shown: the display matrix of a video, and a picture turned and mirrored by it as FFmpeg does.

A matrix is FFmpeg's: nine numbers, rows [a b u], [c d v], [x y w], of which a, b, c and d turn and mirror.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")
MAX_BOXES = 100_000
FIXED = float(1 << 16)


def is_mp4(path: str | Path) -> bool:
    """Whether a file is MP4 or MOV, by its first box."""
    with open(path, "rb") as file:
        return file.read(8)[4:] in MP4_FIRST


def mp4_matrix(path: str | Path) -> list[float] | None:
    """Display matrix of an MP4 or MOV file's first video track, the whole movie's included; None without such a track.

    OpenCV says by what angle a picture is turned, but not that it is mirrored.
    """
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        for name, start, end in _boxes(file, 0, size):
            if name == b"moov":
                return _movie_matrix(file, start, end)
    return None


def _movie_matrix(file: BinaryIO, start: int, end: int) -> list[float] | None:
    movie: list[float] | None = None
    for name, inner, inner_end in _boxes(file, start, end):
        if name == b"mvhd":
            movie = _matrix(file, inner, {0: 36, 1: 48})
        elif name == b"trak" and (track := _track_matrix(file, inner, inner_end)) is not None:
            return track if movie is None else _product(track, movie)
    return None


def _track_matrix(file: BinaryIO, start: int, end: int) -> list[float] | None:
    """Of a video track; None for a track of another kind."""
    matrix, is_video = None, False
    for name, inner, inner_end in _boxes(file, start, end):
        if name == b"tkhd":
            matrix = _matrix(file, inner, {0: 40, 1: 52})
        elif name == b"mdia":
            for child, child_start, _ in _boxes(file, inner, inner_end):
                if child == b"hdlr":
                    file.seek(child_start + 8)
                    is_video = file.read(4) == b"vide"
    return matrix if is_video else None


def _matrix(file: BinaryIO, start: int, place: dict[int, int]) -> list[float] | None:
    """The matrix of a header box; `place` is where it stands by the box's version."""
    file.seek(start)
    version = file.read(1)
    if not version or version[0] not in place:
        return None
    file.seek(start + place[version[0]])
    data = file.read(36)
    if len(data) < 36:
        return None
    numbers = struct.unpack(">9i", data)
    return [number / (FIXED if column < 2 else 1 << 30) for number, column in zip(numbers, [0, 1, 2] * 3, strict=True)]


def _product(first: Sequence[float], second: Sequence[float]) -> list[float]:
    product = np.array(first).reshape(3, 3) @ np.array(second).reshape(3, 3)
    return product.ravel().tolist()


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box between two places of a file."""
    for _ in range(MAX_BOXES):
        file.seek(start)
        header = file.read(16)
        if len(header) < 8 or start + 8 > end:
            return
        length, name, skip = int.from_bytes(header[:4], "big"), header[4:8], 8
        if length == 1 and len(header) == 16:
            length, skip = int.from_bytes(header[8:], "big"), 16
        stop = end if length == 0 else min(end, start + length)
        if length and length < skip:
            return
        yield name, start + skip, stop
        start = stop


def upright(image: np.ndarray, matrix: Sequence[float] | None) -> np.ndarray:
    """A picture (H, W, 3) as it is shown: turned by quarters and mirrored, by FFmpeg's own rule (ffmpeg_filter.c).

    Other angles, which no camera writes, are left as they are.
    """
    if matrix is None:
        return image
    angle = _angle(matrix)
    if abs(angle - 90) < 1:
        return _clockwise(image[::-1] if matrix[3] > 0 else image)
    if abs(angle - 180) < 1:
        image = image[:, ::-1] if matrix[0] < 0 else image
        return image[::-1] if matrix[4] < 0 else image
    if abs(angle - 270) < 1:
        turned = np.swapaxes(image, 0, 1)[::-1]
        return turned[:, ::-1] if matrix[3] < 0 else turned
    return image[::-1] if abs(angle) < 1 and matrix[4] < 0 else image


def _clockwise(image: np.ndarray) -> np.ndarray:
    return np.swapaxes(image, 0, 1)[:, ::-1]


def _angle(matrix: Sequence[float]) -> float:
    """Degrees in 0..360 by which a picture is to be turned clockwise; 0 for a matrix that squashes it to nothing."""
    scales = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not all(scales):
        return 0.0
    angle = round(math.degrees(math.atan2(matrix[1] / scales[1], matrix[0] / scales[0])))
    return angle - 360 * math.floor(angle / 360 + 0.9 / 360)
