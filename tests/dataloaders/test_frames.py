"""The frame rule, and reading of good and bad videos."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloaders import decoders
from dataloaders.decoders import UnreadableVideo
from dataloaders.frames import FrameSettings, FrameTimes, candidate_indices, pick_frames, pick_positions, read_clip
from tests.videos import write_video


class FakeCapture:
    """Stands in for cv2.VideoCapture: frame i is filled with i; records which frames were converted.

    stamps: milliseconds of each frame, where they are not those of a constant 10 frames per second.
    """

    decodes = 50
    stated_frames: float = 50
    fps: float = 10.0
    size: tuple[float, float] = (6, 4)
    stamps: list[float] | None = None
    bad_image: int | None = None
    opened: list[FakeCapture] = []

    def __init__(self, *_: object) -> None:
        self.position = -1
        self.retrieved: list[int] = []
        self.is_released = False
        FakeCapture.opened.append(self)

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        stamp = 100.0 * self.position if self.stamps is None else self.stamps[min(self.position, len(self.stamps) - 1)]
        return {
            cv2.CAP_PROP_FPS: self.fps,
            cv2.CAP_PROP_FRAME_COUNT: self.stated_frames,
            cv2.CAP_PROP_POS_MSEC: stamp,
            cv2.CAP_PROP_FRAME_WIDTH: self.size[0],
            cv2.CAP_PROP_FRAME_HEIGHT: self.size[1],
        }[what]

    def grab(self) -> bool:
        self.position += 1
        return self.position < self.decodes

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        self.retrieved.append(self.position)
        if self.position == self.bad_image:
            return False, None
        return True, np.full((4, 6, 3), self.position, dtype=np.uint8)

    def release(self) -> None:
        self.is_released = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A file, and settings of the capture that pretends to read it."""
    path = tmp_path / "fake.mp4"
    path.touch()
    monkeypatch.setattr(decoders.cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "opened", [])

    def settings(**values: object) -> Path:
        for name, value in values.items():
            monkeypatch.setattr(FakeCapture, name, value)
        return path

    return settings


def test_candidates_follow_the_fractional_rate():
    expected = [0, 24, 48, 72, 96, 120, 144, 168, 192, 216, 240, 264, 288]
    assert candidate_indices(301, 24000 / 1001).tolist() == expected
    # Cut to 29, the rate would give 29 for the second; with 29.97 the 18th is 509.49 -> 509, not 510.
    assert candidate_indices(520, 29.97)[[1, 17]].tolist() == [30, 509]


@pytest.mark.parametrize("fps", [0.9, 7.5, 12.5, 23.976, 29.97, 30.0, 59.94])
@pytest.mark.parametrize("rate", [0.5, 1, 2, 3])
def test_candidates_equal_the_rule_written_as_a_loop(fps: float, rate: float):
    for num_frames in (1, 2, 31, 200):
        expected = []
        k = 0
        while round(k / rate * fps) < num_frames:
            expected.append(round(k / rate * fps))
            k += 1
        assert candidate_indices(num_frames, fps, rate).tolist() == expected


RATES = [0.9, 7.5, 12.5, 15, 23.976, 24, 24000 / 1001, 25, 29.97, 30000 / 1001, 30, 50, 59.94, 60000 / 1001, 60]


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("rounding", [None, 1 / 90000, 1 / 1000], ids=["exact", "90 kHz", "milliseconds"])
def test_at_a_constant_rate_the_rule_by_time_is_the_rule_by_number(fps: float, rounding: float | None):
    """Also at ties, in the middle and at the end, and for stamps that the container rounds."""
    for num_frames in (1, 2, 3, 30, 31, 32, 200, 1001):
        stamps = np.arange(num_frames) / fps
        if rounding:
            stamps = np.rint(stamps / rounding) * rounding
        times = FrameTimes.of(stamps + 7.25, fps)
        for rate in (0.5, 1, 2, 4):
            expected = candidate_indices(num_frames, fps, rate)
            assert times.num_candidates(rate) == len(expected), (num_frames, rate)
            assert pick_frames(times, None, FrameSettings(rate)).tolist() == expected.tolist(), (num_frames, rate)


def test_a_gap_shows_the_last_frame_before_it():
    times = FrameTimes.of(np.concatenate([np.arange(20), np.arange(60, 100)]) / 10, 10)
    assert times.interval == pytest.approx(9.9 / 59)
    found = times.frames_at(np.arange(10.0))
    assert found.tolist() == [0, 10, 19, 19, 19, 19, 20, 30, 40, 50]
    # Nearer to the frame behind the gap, but that is not shown yet.
    assert times.frames_at(np.array([5.5, 5.9, 5.95])).tolist() == [19, 19, 20]


def test_equal_stamps_are_no_fall():
    times = FrameTimes.of(np.array([0, 0, 0.1, 0.2, 0.2, 0.3]), 10)
    assert not times.by_number and times.frames_at(np.array([0.1, 0.3])).tolist() == [2, 5]


def test_no_frames_no_candidates_and_bad_rates_are_errors():
    assert candidate_indices(0, 25).tolist() == []
    for fps, rate in ((0, 1), (float("nan"), 1), (25, 0)):
        with pytest.raises(ValueError, match="above 0"):
            candidate_indices(10, fps, rate)


def test_picks_head_tail_and_spread():
    assert pick_positions(10, 3, 0).tolist() == [0, 1, 2]
    assert pick_positions(10, 3, 1).tolist() == [7, 8, 9]
    assert pick_positions(10, 4, 2).tolist() == [0, 3, 6, 9]
    assert pick_positions(18, 12).tolist() == np.linspace(0, 17, 12).astype(int).tolist()
    assert pick_positions(3, 3, 1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("slice_framepos", [0, 1, 2])
def test_too_few_candidates_are_spread_and_repeated(slice_framepos: int):
    assert pick_positions(2, 5, slice_framepos).tolist() == [0, 0, 0, 0, 1]


def test_impossible_picks_are_errors():
    with pytest.raises(ValueError, match="0 candidates"):
        pick_positions(0, 3)
    with pytest.raises(ValueError, match="slice_framepos"):
        pick_positions(5, 3, 7)


def test_only_picked_frames_are_converted_in_one_pass(fake):
    clip = read_clip(fake(), 3)
    assert clip.frame_indices.tolist() == [0, 20, 40]
    assert [frame[0, 0, 0] for frame in clip.frames] == [0, 20, 40]
    assert [capture.retrieved for capture in FakeCapture.opened] == [[0, 20, 40]]
    assert all(capture.is_released for capture in FakeCapture.opened)


@pytest.mark.parametrize("stated", [80, 20, 0, -3, float("nan"), 1e18])
def test_wrong_frame_count_gives_the_frames_of_the_true_one(fake, stated: float):
    clip = read_clip(fake(stated_frames=stated), 3)
    assert clip.frame_indices.tolist() == [0, 20, 40]
    assert [frame[0, 0, 0] for frame in clip.frames] == [0, 20, 40]
    assert len(FakeCapture.opened) == 2


def test_wrong_frame_count_that_changes_nothing_costs_no_second_pass(fake):
    assert read_clip(fake(stated_frames=47), 3).frame_indices.tolist() == [0, 20, 40]
    assert len(FakeCapture.opened) == 1


def test_a_frame_without_an_image_ends_the_video(fake):
    clip = read_clip(fake(bad_image=40), 3)
    assert clip.frame_indices.tolist() == [0, 10, 30]
    assert read_clip(fake(bad_image=30, stated_frames=0), None).frame_indices.tolist() == [0, 10, 20]


@pytest.mark.parametrize("fps", [0.0, float("nan"), float("inf"), -1.0])
def test_without_a_rate_time_stamps_are_enough(fake, fps: float):
    clip = read_clip(fake(fps=fps), 3)
    assert clip.frame_indices.tolist() == [0, 20, 40] and clip.fps == pytest.approx(10)
    with pytest.raises(UnreadableVideo, match=r"fake\.mp4.*neither usable time stamps nor a usable frame rate"):
        read_clip(fake(fps=fps, stamps=[0.0]), 3)
    assert all(capture.is_released for capture in FakeCapture.opened)


@pytest.mark.parametrize("stamps", [[0.0], [200.0 - abs(i - 1) for i in range(50)], [float("nan")] * 50], ids=len)
def test_without_usable_stamps_frames_are_chosen_by_number_and_that_is_said(fake, stamps: list[float]):
    clip = read_clip(fake(stamps=stamps), 3)
    assert clip.frame_indices.tolist() == [0, 20, 40]
    assert len(clip.notes) == 1 and "fake.mp4: no usable time stamps, frames are chosen by number" in clip.notes[0]
    assert read_clip(fake(stamps=None), 3).notes == []


def test_the_last_frames_of_a_decoder_that_is_emptied_may_lack_a_stamp(fake):
    stamps = [40.0 + 100 * i for i in range(48)] + [0.0, 0.0]
    clip = read_clip(fake(stamps=stamps), None)
    assert clip.frame_indices.tolist() == [0, 10, 20, 30, 40] and clip.notes == [] and clip.seconds == pytest.approx(5)


def test_frames_are_at_their_time_where_the_rate_varies(fake):
    stamps = [1000 + 50.0 * i for i in range(20)] + [2000 + 200.0 * i for i in range(30)]
    clip = read_clip(fake(stamps=stamps, decodes=50), None)
    assert clip.frame_indices.tolist() == [0, 20, 25, 30, 35, 40, 45]
    assert [frame[0, 0, 0] for frame in clip.frames] == clip.frame_indices.tolist()
    assert clip.num_candidates == 7 and clip.seconds == pytest.approx(6.8 * 50 / 49)
    assert len(FakeCapture.opened) == 2, "the guess by number was wrong"
    assert read_clip(fake(), None, FrameSettings(end_seconds=2)).frame_indices.tolist() == [0, 20]
    assert read_clip(fake(), None, FrameSettings(end_seconds=2)).decoded_frames == 25


@pytest.mark.parametrize("size", [(8192.0, 8193.0), (1e9, 1.0), (float("nan"), 4.0), (-3.0, 4.0)])
def test_pictures_of_absurd_size_are_refused_before_anything_is_decoded(fake, size: tuple[float, float]):
    with pytest.raises(UnreadableVideo, match=r"fake\.mp4: states pictures of"):
        read_clip(fake(size=size), 3)
    assert FakeCapture.opened[0].position == -1


def test_all_of_too_many_candidates_are_refused_but_not_a_few_of_them(fake):
    stamps = [1e8 * i for i in range(50)]  # a frame a day, about
    clip = read_clip(fake(stamps=stamps, fps=1e-5), 3)
    assert clip.frame_indices.tolist() == [0, 24, 49] or clip.frame_indices[-1] == 49
    with pytest.raises(UnreadableVideo, match="candidate frames in .* s, more than 100000: lower --feature_framerate"):
        read_clip(fake(), None)


def test_no_decodable_frame_is_named(fake):
    with pytest.raises(UnreadableVideo, match=r"fake\.mp4.*no frame decodes"):
        read_clip(fake(decodes=0), 3)


def test_the_cover_picture_of_a_sound_file_is_no_video(fake):
    with pytest.raises(UnreadableVideo, match=r"fake\.mp4: no video in it, only sound and a cover picture"):
        read_clip(fake(fps=90000.0, stated_frames=450000.0, decodes=1), 3)
    assert len(read_clip(fake(fps=25.0, stated_frames=1), 3).frames) == 3, "a video of one frame is one"


def test_transform_is_applied_and_size_stays_the_original(fake):
    clip = read_clip(fake(), None, transform=lambda frame: frame[:2, :3])
    assert (clip.width, clip.height) == (6, 4)
    assert {frame.shape for frame in clip.frames} == {(2, 3, 3)}


@pytest.mark.parametrize("stated", [50, 80, 20, 0])
@pytest.mark.parametrize("slice_framepos", [0, 1, 2])
def test_with_an_end_the_video_is_as_if_it_stopped_there(fake, stated: float, slice_framepos: int):
    limited = read_clip(fake(stated_frames=stated), 3, FrameSettings(2, slice_framepos, 2.65))
    assert all(capture.position <= 27 for capture in FakeCapture.opened)  # one frame beyond shows that it is the end
    cut = read_clip(fake(decodes=27, stated_frames=27), 3, FrameSettings(2, slice_framepos))
    assert limited.frame_indices.tolist() == cut.frame_indices.tolist()
    assert [frame[0, 0, 0] for frame in limited.frames] == limited.frame_indices.tolist()


def test_the_frame_at_the_end_itself_does_not_count(fake):
    for end, expected in ((2, [0, 10]), (2.01, [0, 10, 20]), (0.01, [0]), (100, [0, 10, 20, 30, 40])):
        assert read_clip(fake(), None, FrameSettings(end_seconds=end)).frame_indices.tolist() == expected


@pytest.mark.parametrize("end", [0, -1, float("nan"), float("inf")])
def test_an_end_that_is_no_time_is_an_error(end: float):
    with pytest.raises(ValueError, match="--end_seconds .*: must be"):
        FrameSettings(end_seconds=end)


def test_real_file_forward_decoding_gives_the_right_frames_in_rgb(tmp_path: Path):
    clip = read_clip(write_video(tmp_path / "a.mp4", 45), 4)
    assert (clip.width, clip.height, clip.fps) == (64, 48, 10)
    assert clip.frame_indices.tolist() == [0, 10, 20, 40]
    assert np.abs(np.array([frame.mean() for frame in clip.frames]) - 2 * clip.frame_indices).max() < 3

    red = cv2.VideoWriter(str(tmp_path / "red.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    red.write(np.full((48, 64, 3), (0, 0, 255), dtype=np.uint8))
    red.release()
    frame = read_clip(tmp_path / "red.mp4", 1).frames[0]
    assert frame.dtype == np.uint8
    assert frame[24, 32, 0] > 200 > 60 > frame[24, 32, 2]


def test_a_video_that_is_tagged_as_rotated_is_shown_upright(tmp_path: Path):
    path = write_video(tmp_path / "turned.mp4", 12)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # a quarter turn in the track's display matrix
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    clip = read_clip(path, 2)
    assert (clip.width, clip.height) == (48, 64)
    assert clip.frames[0].shape == (64, 48, 3)


def test_missing_empty_and_foreign_files_are_named(tmp_path: Path):
    with pytest.raises(UnreadableVideo, match=r"gone\.mp4.*no such file"):
        read_clip(tmp_path / "gone.mp4", 3)
    for name, content in (("empty.mp4", b""), ("text.mp4", b"not a video at all" * 50)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableVideo, match=name):
            read_clip(tmp_path / name, 3)


def test_truncated_file_is_named(tmp_path: Path):
    whole = write_video(tmp_path / "whole.mp4", 30).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])  # mp4 keeps its directory at the end
    with pytest.raises(UnreadableVideo, match=r"half\.mp4"):
        read_clip(tmp_path / "half.mp4", 3)


def test_the_module_needs_neither_torch_nor_tensorflow():
    names = "dataloaders.frames, dataloaders.tfrecord, dataloaders.frame_cache"
    code = f"import sys, {names}; assert not {{'torch', 'tensorflow'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.slow
def test_frame_numbers_of_the_real_clips(shared: Path):
    stated = json.loads((shared / "realdata/objects/frames.json").read_text())
    assert len(stated) == 10
    for video_id, expected in stated.items():
        folder = "msrvtt" if video_id.startswith("video") else "webvid"
        clip = read_clip(shared / f"realdata/{folder}/videos/{video_id}.mp4", 12)
        assert clip.frame_indices.tolist() == expected["frame_indices"], video_id
        assert (clip.width, clip.height) == (expected["width"], expected["height"])
        assert clip.fps == pytest.approx(expected["fps"])


def test_odd_videos(shared: Path):
    odd = shared / "realdata/odd_videos"
    short = read_clip(odd / "imageio_realshort.mp4", 12)
    assert short.frame_indices.tolist() == [0] * 11 + [30]
    assert short.frames[0] is short.frames[10]
    portrait = read_clip(odd / "videollava_sample_demo_22.mp4", 2)
    assert (portrait.width, portrait.height) == (204, 360)
    assert portrait.frames[0].shape == (360, 204, 3)
    assert read_clip(odd / "mmaction2_test.avi", 12).frame_indices[-1] == 150
    assert read_clip(odd / "torchcodec_h265_10bits.mp4", 2).frames[0].dtype == np.uint8
    damaged = read_clip(odd / "decord_corrupted.mp4", None)  # states 50 frames at 10 per second
    assert damaged.frame_indices.tolist() in ([0, 10, 20], [0, 10, 20, 30, 40])
    try:
        assert len(read_clip(odd / "torchcodec_av1_video.mkv", 12).frames) == 12
    except UnreadableVideo as error:
        assert "torchcodec_av1_video.mkv" in str(error)
