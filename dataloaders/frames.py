"""The rule for which frames of a video are read, the same in training, evaluation, object extraction and shards.

Free of PyTorch, because the shard writer runs it beside TensorFlow.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# FFmpeg writes a line to stderr for every damaged packet; what matters of it is in UnreadableVideo.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

import cv2  # after the two settings, which OpenCV reads when it starts

from modules.config import check_settings, setting

# Data-loader workers are forked: OpenCV's thread pool does not survive that, and one thread per worker is enough.
cv2.setNumThreads(0)

HEAD, TAIL, UNIFORM = 0, 1, 2
MIN_FPS = 0.01
MAX_STATED_FRAMES = 1_000_000


class UnreadableVideo(Exception):
    """No frame can be had from a video; the message names the file and the reason."""


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

    def __post_init__(self) -> None:
        check_settings(self)
        if not all(math.isfinite(value) for value in (self.feature_framerate, self.end_seconds or 0)):
            raise ValueError(
                f"--feature_framerate {self.feature_framerate}, --end_seconds {self.end_seconds}: must be finite"
            )


WHOLE_VIDEO = FrameSettings()


@dataclass
class Clip:
    """Frames of one video.

    Attributes:
        frames: T images, uint8 (H, W, 3), RGB; a frame that was picked twice is the same array twice.
        width: width of the video as it is shown (after rotation), in pixels, before any transform.
        height: height of the video as it is shown, in pixels, before any transform.
        fps: frames per second, as the container states it.
        frame_indices: int64 (T,), the number of each frame in decoding order.
        decoded_frames: how many frames decode, up to `end_seconds`.
        stated_frames: how many the container states, up to `end_seconds`; 0 where it states none.
    """

    frames: list[np.ndarray]
    width: int
    height: int
    fps: float
    frame_indices: np.ndarray
    decoded_frames: int
    stated_frames: int


def candidate_indices(num_frames: int, fps: float, feature_framerate: float = 1) -> np.ndarray:
    """Numbers of the frames that may be sampled: round(k / feature_framerate * fps) for k = 0, 1, 2, ...

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


def read_clip(
    path: str | os.PathLike[str],
    max_frames: int | None,
    settings: FrameSettings = WHOLE_VIDEO,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Clip:
    """Decode a video forward and keep the frames of the rule above.

    Every frame is decoded (`grab`), only picked ones are converted to an image (`retrieve`). The picks depend on how
    many frames decode, and containers state that wrongly; when the truth changes the picks, the file is read again.

    Args:
        path: the video file.
        max_frames: T, or None for all candidates.
        settings: candidates per second, and which of them. At `end_seconds` the video ends for the rule, and decoding
            does too: only frames with index / fps below it count.
        transform: applied to each kept frame as it is decoded, for instance to shrink a long video on the way.

    Raises:
        UnreadableVideo: the file is absent or empty, states no frame rate, or no frame of it decodes.
    """
    video = _Video(Path(path), transform, settings.end_seconds)
    try:
        num_frames = video.walk(_picks(video.stated_frames, video.fps, max_frames, settings))
        while num_frames:
            picks = _picks(num_frames, video.fps, max_frames, settings)
            missing = set(picks.tolist()) - video.kept.keys()
            if not missing:
                frames = [video.kept[index] for index in picks.tolist()]
                return Clip(frames, video.width, video.height, video.fps, picks, num_frames, video.stated_frames)
            num_frames = min(num_frames, video.walk(missing))
    finally:
        video.capture.release()
    raise UnreadableVideo(f"{path}: no frame decodes (a damaged file, or a codec that OpenCV cannot decode)")


def all_frames(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """Every frame of a video that decodes, in order: uint8 (H, W, 3), RGB.

    Raises:
        UnreadableVideo: the file is absent or empty, or states no frame rate.
    """
    video = _Video(Path(path), None, None)
    try:
        while video.capture.grab():
            is_image, image = video.capture.retrieve()
            if not is_image or image is None:
                return
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    finally:
        video.capture.release()


def _picks(num_frames: int, fps: float, max_frames: int | None, settings: FrameSettings) -> np.ndarray:
    """Numbers of the frames to keep if `num_frames` decode: int64 (T,), empty when none do."""
    candidates = candidate_indices(num_frames, fps, settings.feature_framerate)
    if max_frames is None or not len(candidates):
        return candidates
    return candidates[pick_positions(len(candidates), max_frames, settings.slice_framepos)]


class _Video:
    """An open video file and the frames kept of it so far, by frame number."""

    def __init__(
        self, path: Path, transform: Callable[[np.ndarray], np.ndarray] | None, end_seconds: float | None
    ) -> None:
        self.path = path
        self.transform = transform
        self.kept: dict[int, np.ndarray] = {}
        self.width = self.height = 0
        self.capture = self._open()
        self._is_at_start = True
        self.fps = float(self.capture.get(cv2.CAP_PROP_FPS))
        if not (math.isfinite(self.fps) and self.fps >= MIN_FPS):
            self.capture.release()
            raise UnreadableVideo(f"{path}: the file states no usable frame rate ({self.fps})")
        self.limit = sys.maxsize if end_seconds is None else math.ceil(end_seconds * self.fps)
        stated = self.capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # Nonsense counts (negative, NaN, 2**63 / something) mean "unknown": the first walk then only counts.
        self.stated_frames = min(int(stated), self.limit) if 0 < stated < MAX_STATED_FRAMES else 0

    def walk(self, wanted: Collection[int]) -> int:
        """Decode from the start to the end or the limit, keep the wanted frames, return how many frames decode."""
        if not self._is_at_start:
            self.capture.release()
            self.capture = self._open()
        self._is_at_start = False
        wanted = set(wanted)
        count = 0
        while count < self.limit and self.capture.grab():
            if count in wanted and not self._keep(count):
                break
            count += 1
        return count

    def _keep(self, index: int) -> bool:
        """Convert the frame that was grabbed last; False when it gives no image, which ends the video there."""
        is_image, image = self.capture.retrieve()
        if not is_image or image is None:
            return False
        if not self.kept:
            self.height, self.width = image.shape[:2]
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        self.kept[index] = self.transform(image) if self.transform else image
        return True

    def _open(self) -> cv2.VideoCapture:
        if not self.path.is_file():
            raise UnreadableVideo(f"{self.path}: there is no such file")
        # One decoding thread: the loaders run one process per core, and what decodes of a damaged file is the same
        # on every machine. Only FFmpeg, as OpenCV's other readers take digits in a name for an image sequence.
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not capture.isOpened():
            capture.release()
            raise UnreadableVideo(f"{self.path}: not a video that FFmpeg can open ({self.path.stat().st_size} bytes)")
        return capture
