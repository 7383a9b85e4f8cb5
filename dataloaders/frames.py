"""The rule for which frames of a video are read, the same in training, evaluation, object extraction and shards.

Free of PyTorch, because the shard writer runs it beside TensorFlow.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataloaders.decoders import (
    BACKENDS,
    ROUNDING,
    Decoder,
    NothingDecodes,
    OpenCVVideo,
    Transform,
    UnreadableVideo,
    has_av,
    open_video,
)
from modules.config import check_settings, setting

HEAD, TAIL, UNIFORM = 0, 1, 2
# Of what is made of frames: 1, or none stated, chose them by number times mean rate, 2 by time.
FRAME_RULE = 2
MILLISECOND = 1e-3  # that containers round time stamps to
MAX_CANDIDATES = 100_000  # where all are read; more than a day at one per second


@dataclass(frozen=True)
class FrameSettings:
    """Which frames of a video are sampled."""

    feature_framerate: float = setting(1, "candidate frames per second", above=0, seen=True)
    slice_framepos: int = setting(
        UNIFORM,
        "frames taken of a longer clip: 0 head, 1 tail, 2 evenly spread",
        choices=(HEAD, TAIL, UNIFORM),
        seen=True,
    )
    end_seconds: float | None = setting(
        None, "frames are taken before this second of a video; default: the whole video", above=0, seen=True
    )
    video_backend: str = setting(
        "auto",
        "decoder of video files; auto: OpenCV, and PyAV where OpenCV decodes nothing and PyAV is installed",
        choices=BACKENDS,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not all(math.isfinite(value) for value in (self.feature_framerate, self.end_seconds or 0)):
            raise ValueError(
                f"--feature_framerate {self.feature_framerate}, --end_seconds {self.end_seconds}: must be finite"
            )

    def rule(self) -> dict[str, float | int | None]:
        """All that decides which frames those are, as plain values; decoders give the same ones."""
        return {
            "feature_framerate": float(self.feature_framerate),  # 1 and 1.0 are one key of a cache
            "slice_framepos": self.slice_framepos,
            "end_seconds": None if self.end_seconds is None else float(self.end_seconds),
            "frame_rule": FRAME_RULE,
        }


WHOLE_VIDEO = FrameSettings()


@dataclass
class Clip:
    """Frames of one video.

    Attributes:
        frames: T images, uint8 (H, W, 3), RGB; a frame that was picked twice is the same array twice.
        width: width of the video as it is shown (after rotation), in pixels, before any transform.
        height: height of the video as it is shown, in pixels, before any transform.
        fps: frames per second, as the container states it; where it states none, as its time stamps say.
        frame_indices: int64 (T,), the number of each frame in the order in which frames are shown.
        decoded_frames: how many frames decode, up to `end_seconds`.
        stated_frames: how many the container states, up to `end_seconds`; 0 where it states none.
        num_candidates: how many frames the rule picks from.
        seconds: length up to `end_seconds`, by time stamps.
        backend: the decoder, `opencv` or `av`.
        notes: what is to be said of the reading: another decoder than OpenCV was taken, or there are no time stamps.
    """

    frames: list[np.ndarray]
    width: int
    height: int
    fps: float
    frame_indices: np.ndarray
    decoded_frames: int
    stated_frames: int
    num_candidates: int = 0
    seconds: float = 0.0
    backend: str = "opencv"
    notes: list[str] = field(default_factory=list)


class FrameTimes(NamedTuple):
    """When each frame of a video is shown.

    seconds: float64 (n,), counted from the first frame's, never falling, n at least 1. interval: mean seconds from one
    frame to the next. by_number: there were no usable time stamps, and these are numbers over the stated rate.
    """

    seconds: np.ndarray
    interval: float
    by_number: bool = False

    @classmethod
    def of(cls, stamps: np.ndarray, fps: float) -> FrameTimes:
        """From the stamps of a decoder in seconds, nan where there is none, and the stated rate, nan without one.

        The last frames may lack a stamp (a decoder that is emptied does not know them): they follow at the mean
        interval. Stamps that are those of the stated rate but for the container's rounding are taken as that rate, so
        that rounding decides no tie.

        Raises:
            ValueError: neither stamps nor a rate.
        """
        known = len(stamps)
        while known > 2 and math.isnan(stamps[known - 1]):
            known -= 1
        seconds = stamps[:known] - stamps[0]
        if known == 1 and math.isfinite(fps):
            return cls(np.zeros(1), 1 / fps)
        if known > 1 and np.isfinite(seconds).all() and (np.diff(seconds) >= 0).all() and seconds[-1] > 0:
            interval = float(seconds[-1] / (known - 1))
            missing = seconds[-1] + interval * np.arange(1, len(stamps) - known + 1)
            seconds = np.concatenate([seconds, missing])
            stated = np.arange(len(stamps)) / fps  # nan without a rate
            is_stated = np.abs(seconds - stated).max() <= MILLISECOND
            return cls(stated, 1 / fps) if is_stated else cls(seconds, interval)
        if not math.isfinite(fps):
            raise ValueError("neither usable time stamps nor a usable frame rate")
        return cls.constant(len(stamps), fps)

    @classmethod
    def constant(cls, num_frames: int, fps: float) -> FrameTimes:
        """Of frames at a constant rate, by their numbers."""
        return cls(np.arange(num_frames) / fps, 1 / fps, by_number=True)

    def num_candidates(self, feature_framerate: float) -> int:
        """How many times k / feature_framerate, k = 0, 1, 2, ..., are nearer to a frame than to one behind the last."""
        end = self.seconds[-1] + self.interval / 2
        last = math.floor((end + ROUNDING) * feature_framerate)
        is_tie = abs(last / feature_framerate - end) <= ROUNDING
        return last if is_tie and last and len(self.seconds) % 2 == 0 else last + 1

    def frames_at(self, seconds: np.ndarray) -> np.ndarray:
        """The frame nearest to each time, int64; the one before it, if it is shown more than half an interval later.

        Of two frames that are equally near, the one with the even number, as `np.rint` has it.
        """
        after = np.searchsorted(self.seconds, seconds - ROUNDING).clip(max=len(self.seconds) - 1)
        before = np.maximum(after - 1, 0)
        late, early = self.seconds[after] - seconds, seconds - self.seconds[before]
        is_tie = np.abs(late - early) <= ROUNDING
        takes_after = np.where(is_tie, after % 2 == 0, late < early)
        return np.where(takes_after & (late <= self.interval / 2 + ROUNDING), after, before).astype(np.int64)


def candidate_indices(num_frames: int, fps: float, feature_framerate: float = 1) -> np.ndarray:
    """Numbers of the frames that may be sampled at a constant rate: round(k / feature_framerate * fps), k = 0, 1, ...

    The fractional frame rate is used; the released code cut it to an integer, which drifts by up to 1.5 s in 35 s.

    Args:
        num_frames: frames that decode.
        fps: frames per second of the video, above 0.
        feature_framerate: candidates per second, above 0.

    Returns:
        int64 (n,), rising, all below `num_frames`; n is 0 only if `num_frames` is.
    """
    if not (fps > 0 and math.isfinite(fps) and feature_framerate > 0):
        raise ValueError(f"frame rates must be above 0: video {fps}, feature_framerate {feature_framerate}")
    if num_frames <= 0:
        return np.zeros(0, dtype=np.int64)
    steps = np.arange(math.ceil(num_frames / fps * feature_framerate) + 2)
    indices = np.rint(steps / feature_framerate * fps).astype(np.int64)
    return indices[indices < num_frames]


def pick_positions(num_candidates: int, max_frames: int, slice_framepos: int = UNIFORM) -> np.ndarray:
    """Pick the frames of a clip among the candidates.

    Args:
        num_candidates: number of candidates, at least 1.
        max_frames: T, frames of the clip.
        slice_framepos: 0 the first T, 1 the last T, 2 evenly spread. With fewer than T candidates they are always
            spread, so that some are picked more than once.

    Returns:
        int64 (T,), positions among the candidates, rising.
    """
    if num_candidates < 1 or max_frames < 1:
        raise ValueError(f"cannot pick {max_frames} frames of {num_candidates} candidates")
    if slice_framepos not in (HEAD, TAIL, UNIFORM):
        raise ValueError(f"slice_framepos must be 0 (head), 1 (tail) or 2 (uniform), not {slice_framepos}")
    if slice_framepos == UNIFORM or num_candidates < max_frames:
        return np.linspace(0, num_candidates - 1, max_frames).astype(np.int64)
    start = 0 if slice_framepos == HEAD else num_candidates - max_frames
    return np.arange(start, start + max_frames, dtype=np.int64)


def pick_frames(times: FrameTimes, max_frames: int | None, settings: FrameSettings) -> np.ndarray:
    """Numbers of the frames that are read: int64 (T,); all candidates, if `max_frames` is None.

    Candidate k is the frame shown at k / feature_framerate seconds.

    Raises:
        ValueError: all of more than MAX_CANDIDATES are asked for.
    """
    count = times.num_candidates(settings.feature_framerate)
    if max_frames is None and count > MAX_CANDIDATES:
        raise ValueError(
            f"{count} candidate frames in {times.seconds[-1]:.0f} s, more than {MAX_CANDIDATES}: lower "
            "--feature_framerate"
        )
    positions = np.arange(count) if max_frames is None else pick_positions(count, max_frames, settings.slice_framepos)
    return times.frames_at(positions / settings.feature_framerate)


def read_clip(
    path: str | os.PathLike[str],
    max_frames: int | None,
    settings: FrameSettings = WHOLE_VIDEO,
    transform: Transform | None = None,
) -> Clip:
    """Read the frames of the rule above.

    The picks depend on the time stamps of all frames that decode. OpenCV knows them when it has decoded the file, which
    it does with a guess by the stated rate and number of frames; where the truth changes the picks, as in a video whose
    rate varies, the file is read again. PyAV knows them before.

    Args:
        path: the video file.
        max_frames: T, or None for all candidates.
        settings: candidates per second, which of them, and the decoder. At `end_seconds` the video ends for the rule,
            and decoding does too: only frames that are shown before it count.
        transform: applied to each kept frame as it is decoded, to shrink it on the way.

    Raises:
        UnreadableVideo: the file is absent or empty, has neither time stamps nor a frame rate, is a sound file with a
            cover picture, a list of other files, states pictures of an absurd size, or no frame of it decodes;
            (NoAccess) the system does not let it be read.
    """
    path = Path(path)
    backend = "av" if settings.video_backend == "av" else "opencv"
    try:
        return _read_with(backend, path, max_frames, settings, transform)
    except NothingDecodes as error:
        if settings.video_backend != "auto" or not has_av():
            raise
        try:
            clip = _read_with("av", path, max_frames, settings, transform)
        except UnreadableVideo:
            raise error from None
    clip.notes.append(f"{path}: decoded by PyAV, as OpenCV decodes nothing of it")
    return clip


def all_frames(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """Every frame of a video that OpenCV decodes, in order, as shown: uint8 (H, W, 3), RGB.

    Raises:
        UnreadableVideo: the file is absent or empty.
    """
    with open_video(Path(path), "opencv", None) as video:
        assert isinstance(video, OpenCVVideo)
        yield from video.pictures()


def _read_with(
    backend: str,
    path: Path,
    max_frames: int | None,
    settings: FrameSettings,
    transform: Transform | None,
) -> Clip:
    with open_video(path, backend, transform) as video:
        stamps = video.scan(_predicted(video, max_frames, settings), settings.end_seconds)
        while len(stamps):
            if video.is_cover and len(stamps) == 1:
                raise UnreadableVideo(f"{path}: no video in it, only sound and a cover picture")
            times = FrameTimes.of(stamps, video.fps)
            picks = pick_frames(times, max_frames, settings)
            missing = set(picks.tolist()) - video.kept.keys()
            if not missing:
                return _clip(video, path, times, picks, settings)
            for index in video.kept.keys() - set(picks.tolist()):
                del video.kept[index]
            stamps = video.fetch(missing, settings.end_seconds)[: len(stamps)]
    raise NothingDecodes(f"{path}: {_nothing_decodes(backend)}")


def _nothing_decodes(backend: str) -> str:
    reason = "no frame decodes (a damaged file, or a codec that {} cannot decode)"
    if backend == "opencv" and not has_av():
        return reason.format("OpenCV") + "; PyAV decodes more: pip install -r requirements-optional.txt"
    return reason.format("PyAV" if backend == "av" else "OpenCV")


def _predicted(video: Decoder, max_frames: int | None, settings: FrameSettings) -> list[int]:
    """The picks of a constant rate, if the file states the truth; none if it states nothing, or an absurd number."""
    count = video.stated_frames
    if settings.end_seconds is not None and math.isfinite(video.fps):
        count = min(count, math.ceil(settings.end_seconds * video.fps))
    if not count or not math.isfinite(video.fps):
        return []
    try:
        return pick_frames(FrameTimes.constant(count, video.fps), max_frames, settings).tolist()
    except ValueError:
        return []


def _clip(video: Decoder, path: Path, times: FrameTimes, picks: np.ndarray, settings: FrameSettings) -> Clip:
    fps, stated = video.fps, video.stated_frames
    fps = fps if math.isfinite(fps) else 1 / times.interval
    if settings.end_seconds is not None:
        stated = min(stated, math.ceil(settings.end_seconds * fps))
    notes = [f"{path}: no usable time stamps, frames are chosen by number"] if times.by_number else []
    return Clip(
        [video.kept[index] for index in picks.tolist()],
        video.width,
        video.height,
        fps,
        picks,
        len(times.seconds),
        stated,
        times.num_candidates(settings.feature_framerate),
        float(times.seconds[-1]) + times.interval,
        video.name,
        notes,
    )
