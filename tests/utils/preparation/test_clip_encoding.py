"""Frames of a video as a shard stores them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders.decoders import UnreadableVideo
from tests.videos import write_noise, write_video
from utils.preparation import clip_encoding
from utils.preparation.clip_encoding import encode_clip


def test_frames_are_never_enlarged_and_keep_their_aspect(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 12, size=(160, 96))
    small = encode_clip(path, 48, 90)
    assert (small.original_size, small.stored_size, small.frame_indices) == ((160, 96), (80, 48), [0, 10])
    assert encode_clip(path, 256, 90).stored_size == (160, 96)
    raw = encode_clip(path, 128, None, feature_framerate=5)
    assert raw.stored_size == (128, 128)
    assert np.frombuffer(raw.images[0], np.uint8).size == len(raw.frame_indices) * 128 * 128 * 3
    with pytest.raises(UnreadableVideo):
        encode_clip(tmp_path / "gone.mp4", 48, 90)


def test_jpeg_frames_are_those_of_the_video_in_opencvs_order_of_colours(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 31, step=7)
    clip = encode_clip(path, 48, 90)
    assert (clip.fps, clip.frame_indices, clip.stored_size) == (10, [0, 10, 20, 30], (64, 48))
    for image, number in zip(clip.images, clip.frame_indices, strict=True):
        decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (48, 64, 3) and abs(decoded.mean() - 7 * number % 256) < 3


def write_blue(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(5):
        writer.write(np.full((48, 64, 3), (250, 20, 20), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("quality", [90, None])
def test_blue_comes_first(tmp_path: Path, quality: int | None):
    clip = encode_clip(write_blue(tmp_path / "a.mp4"), 32, quality)
    frame = np.frombuffer(clip.images[0], np.uint8)
    picture = frame.reshape(-1, 32, 32, 3)[0] if quality is None else cv2.imdecode(frame, cv2.IMREAD_COLOR)
    blue, _, red = picture.reshape(-1, 3).mean(0)
    assert blue > 200 and red < 60


def test_a_lower_quality_takes_less_room(tmp_path: Path):
    write_noise(tmp_path / "a.avi", "MJPG", 5)
    good, bad = (sum(map(len, encode_clip(tmp_path / "a.avi", 48, quality).images)) for quality in (95, 20))
    assert bad < good / 2


def test_upright_videos_are_shrunk_by_their_width(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", 5, size=(96, 160))
    assert encode_clip(path, 48, 90).stored_size == (48, 80)


def test_a_clip_says_by_which_rate_its_frames_were_kept_and_what_is_to_be_said_of_it(tmp_path: Path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 25)
    clip = encode_clip(path, 48, 90, feature_framerate=2)
    assert (clip.feature_framerate, clip.frame_indices, clip.notes) == (2, [0, 5, 10, 15, 20], [])
    read = clip_encoding.read_clip

    def noted(*arguments):
        return dataclasses.replace(read(*arguments), notes=["a.mp4: by number"])

    monkeypatch.setattr(clip_encoding, "read_clip", noted)
    assert encode_clip(path, 48, 90).notes == ["a.mp4: by number"]


def test_a_frame_that_is_shown_long_is_encoded_once(tmp_path: Path, monkeypatch):
    path, encoded = write_video(tmp_path / "slow.mp4", 3, fps=0.5), []
    plain = clip_encoding._jpeg
    monkeypatch.setattr(clip_encoding, "_jpeg", lambda *arguments: encoded.append(1) or plain(*arguments))
    clip = encode_clip(path, 48, 90, feature_framerate=2)
    assert len(clip.images) == 11 and len(encoded) == 3 and clip.frame_indices == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
