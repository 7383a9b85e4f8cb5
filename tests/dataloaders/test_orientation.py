"""Display matrices: read from files, and pictures shown as FFmpeg shows them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dataloaders.frames import FrameSettings, read_clip
from dataloaders.orientation import is_mp4, mp4_matrix, upright
from tests.videos import BACKENDS_HERE, write_video

ONE = 1 << 16
# What each matrix (a, b, c, d) makes of a picture, by row and column of its corners.
MATRICES = {
    "as it is": ((1, 0, 0, 1), lambda image: image),
    "a quarter turn": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "half a turn": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "three quarters": ((0, -1, 1, 0), np.rot90),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}


def corners(path: Path) -> Path:
    """A video with another grey in each quarter of its pictures."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32], picture[:24, 32:], picture[24:, :32], picture[24:, 32:] = 40, 100, 160, 220
    return write_video(path, 12, picture=lambda index: picture)


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """`corners` with a display matrix in its track."""
    content = bytearray(corners(path).read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (number * ONE for number in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize("name", MATRICES)
def test_a_video_is_shown_by_its_matrix(tmp_path: Path, name: str, backend: str):
    matrix, shown = MATRICES[name]
    plain = read_clip(corners(tmp_path / "plain.mp4"), 1).frames[0].astype(int)
    clip = read_clip(turned(tmp_path / "turned.mp4", matrix), 1, FrameSettings(video_backend=backend))
    expected = shown(plain)
    assert clip.frames[0].shape == expected.shape and (clip.height, clip.width) == expected.shape[:2]
    assert np.abs(clip.frames[0] - expected).max() == 0


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg, with which pictures are compared")
@pytest.mark.parametrize("name", MATRICES)
def test_that_is_how_ffmpeg_shows_it(tmp_path: Path, name: str):
    path = turned(tmp_path / "turned.mp4", MATRICES[name][0])
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    frame = read_clip(path, 1).frames[0]
    assert np.abs(shown.reshape(frame.shape).astype(int) - frame).max() <= 2


def test_the_movie_s_matrix_is_counted_too(tmp_path: Path):
    path = turned(tmp_path / "turned.mp4", (0, 1, -1, 0))
    content = bytearray(path.read_bytes())
    place = content.index(b"mvhd") + 40
    content[place : place + 36] = struct.pack(">9i", 0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    matrix = mp4_matrix(path)
    assert matrix is not None and matrix[:5] == [-1, 0, 0, 0, -1]


def test_an_angle_that_no_camera_writes_and_a_matrix_of_nothing_change_no_picture():
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for matrix in (None, [0.7, 0.7, 0, -0.7, 0.7, 0, 0, 0, 1], [0] * 9):
        assert upright(picture, matrix) is picture


@pytest.mark.parametrize("cut", [0, 4, 20, 200, 1000])
def test_a_file_that_ends_early_or_is_none_has_no_matrix_or_the_one_before(tmp_path: Path, cut: int):
    content = turned(tmp_path / "whole.mp4", (0, 1, -1, 0)).read_bytes()
    start = content.index(b"moov") - 4
    (tmp_path / "cut.mp4").write_bytes(content[:start] + content[start : start + cut])
    assert is_mp4(tmp_path / "cut.mp4")
    found = mp4_matrix(tmp_path / "cut.mp4")
    assert found is None or found[:5] == [0, 1, 0, -1, 0]
    (tmp_path / "cut.mp4").write_bytes(b"RIFF" + content[:cut])
    assert not is_mp4(tmp_path / "cut.mp4")


def test_boxes_that_state_absurd_lengths_end_the_search(tmp_path: Path):
    box = struct.pack(">I4s", 0xFFFFFFFF, b"moov") + struct.pack(">I4sQ", 1, b"trak", 2**63) + b"x" * 40
    (tmp_path / "absurd.mp4").write_bytes(struct.pack(">I4s4s", 12, b"ftyp", b"isom") + box)
    assert mp4_matrix(tmp_path / "absurd.mp4") is None
