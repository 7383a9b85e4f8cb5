"""Files that end before their container says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataloaders.container_end import cut_short
from dataloaders.decoders import UnreadableVideo
from dataloaders.frames import FrameSettings, read_clip
from tests.videos import write_noise


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mp4v"), ("a.mov", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "MJPG")]
)
def test_every_file_that_was_cut_is_told_from_the_whole_one(tmp_path: Path, name: str, codec: str):
    path = tmp_path / name
    content = write_noise(path, codec)
    assert cut_short(path) is None
    for share in (0.2, 0.5, 0.8, 0.95):
        path.write_bytes(content[: int(share * len(content))])
        reason = cut_short(path)
        assert reason is not None and ("promises" in reason or "moov" in reason), share


def test_a_table_of_frames_before_the_frames_does_not_hide_the_cut(tmp_path: Path):
    path = tmp_path / "a.mp4"
    content = write_noise(path, "mp4v")
    boxes, position = {}, 0
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        boxes[content[position + 4 : position + 8]] = content[position : position + length]
        position += length
    path.write_bytes(boxes[b"ftyp"] + boxes[b"moov"] + boxes[b"mdat"][:-100])
    assert str(len(content) - len(boxes[b"free"])) in (cut_short(path) or "")


def test_a_file_filled_up_with_zeros(tmp_path: Path):
    path = tmp_path / "a.avi"
    content = write_noise(path, "MJPG")
    path.write_bytes(content[:-5000] + bytes(5000))
    assert "zeros" in (cut_short(path) or "")
    path.write_bytes(b"text")
    assert cut_short(path) is None


def test_real_files_are_whole(shared: Path):
    paths = [path for path in (shared / "realdata").rglob("*.*") if path.suffix in (".mp4", ".avi", ".mkv")]
    assert len(paths) >= 16
    assert {path.name: cut_short(path) for path in paths if cut_short(path)} == {}


def test_a_clip_counts_its_frames(tmp_path: Path):
    path = tmp_path / "a.avi"
    content = write_noise(path, "MJPG")
    clip = read_clip(path, 3)
    assert (clip.decoded_frames, clip.stated_frames) == (30, 30)
    clip = read_clip(path, 3, FrameSettings(end_seconds=1.2))
    assert (clip.decoded_frames, clip.stated_frames) == (12, 12)
    path.write_bytes(content[: len(content) // 2])
    clip = read_clip(path, 3)
    assert 10 <= clip.decoded_frames < 20 and clip.stated_frames == 30
    path.write_bytes(content[:100])
    with pytest.raises(UnreadableVideo):
        read_clip(path, 3)
