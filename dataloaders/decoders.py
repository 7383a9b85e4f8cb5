"""Two decoders of video files behind one interface: OpenCV, and PyAV where it is installed.

Free of PyTorch, because the shard writer runs it beside TensorFlow.
"""

from __future__ import annotations

import bisect
import math
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dataloaders.opencv import FFMPEG_OPTIONS, cv2
from dataloaders.orientation import is_mp4, mp4_matrix, upright
from modules.characters import printable_lines
from modules.foreign_text import why_no_file

BACKENDS = ("auto", "opencv", "av")
# In the order in which they are looked for; the second line is of DiDeMo's videos.
VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".webm", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".3gp", ".wmv"),
    *(".3g2", ".mts", ".m2ts", ".qt", ".3gpp", ".asf", ".divx", ".null"),
)
MIN_FPS = 0.01
MAX_STATED_FRAMES = 1_000_000
MAX_PIXELS = 1 << 26  # of one picture: 8192 x 8192
COVER_RATE = 90_000  # frames per second that FFmpeg states of a cover picture
SIDEWAYS = "4.11."
WITHOUT_STAMPS = ("avi",)  # containers whose presentation stamps FFmpeg guesses, frames of reordered codecs wrongly
ROUNDING = 1e-6  # seconds that two time stamps may differ by and still be the same

Transform = Callable[[np.ndarray], np.ndarray]


class UnusableClip(Exception):
    """A clip that gives no sample: training takes another one and counts it, evaluation lists it.

    The message names the file and the reason, and can be written and shown whatever is in it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable_lines(message))  # a loader's worker hands it on with a traceback


class Misfit(UnusableClip, ValueError):
    """A sound clip that does not fit the settings: one is an accident, many are a mistake in the settings."""


class UnreadableVideo(UnusableClip):
    """No frame can be had from a video."""


class NoAccess(UnreadableVideo):
    """The system does not let a file be read; that may pass, so nothing remembers it."""


class NothingDecodes(UnreadableVideo):
    """A file that this decoder cannot read; another one may."""


class Decoder(Protocol):
    """An open video file and the frames kept of it so far.

    Attributes:
        name: of the decoder, a value of BACKENDS.
        fps: frames per second that the file states; nan where that is nonsense.
        stated_frames: frames that it states; 0 where that is nonsense.
        is_cover: the only picture is the cover of a sound file, as far as can be told before decoding.
        kept: pictures (H, W, 3) RGB as shown, transformed, by frame number.
        width, height: in pixels, as shown; 0 before a frame was kept.
    """

    name: str
    fps: float
    stated_frames: int
    is_cover: bool
    kept: dict[int, np.ndarray]
    width: int
    height: int

    def scan(self, predicted: Collection[int], end_seconds: float | None) -> np.ndarray:
        """Time stamps of all frames before `end_seconds`, in seconds, nan where there is none; may keep `predicted`."""

    def fetch(self, wanted: Collection[int], end_seconds: float | None) -> np.ndarray:
        """Keep the frames `wanted`; time stamps again, fewer where frames turn out not to decode."""

    def close(self) -> None:
        """Release the file."""


class _Kept:
    """What both decoders do with a decoded frame."""

    def __init__(self, path: Path, transform: Transform | None) -> None:
        if reason := why_no_file(path):
            raise UnreadableVideo(f"{path}: {reason}")
        open(path, "rb").close()  # FFmpeg does not say that it may not
        self.path, self.transform = path, transform
        self.kept: dict[int, np.ndarray] = {}
        self.width = self.height = 0

    def keep(self, index: int, image: np.ndarray) -> None:
        """Keep a picture (H, W, 3) RGB as it is shown."""
        if not self.width:
            self.height, self.width = image.shape[:2]
        image = np.ascontiguousarray(image)
        self.kept[index] = self.transform(image) if self.transform else image

    def check_size(self, width: float, height: float) -> None:
        """Refuse pictures that would take gigabytes, before memory is taken."""
        if not 0 <= width * height <= MAX_PIXELS:
            raise UnreadableVideo(
                f"{self.path}: states pictures of {width:.0f} x {height:.0f}, more than {MAX_PIXELS} pixels"
            )


class OpenCVVideo(_Kept):
    """Decodes forward: every frame is decoded (`grab`), only kept ones are converted to a picture (`retrieve`)."""

    name = "opencv"

    def __init__(self, path: Path, transform: Transform | None = None) -> None:
        super().__init__(path, transform)
        self.matrix = mp4_matrix(path) if is_mp4(path) else None
        self.capture = self._open()
        self._is_at_start = True
        fps, stated = self.capture.get(cv2.CAP_PROP_FPS), self.capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = fps if math.isfinite(fps) and fps >= MIN_FPS else math.nan
        # Nonsense counts (negative, NaN, 2**63 / something) mean "unknown": the first walk then only counts.
        self.stated_frames = int(stated) if 0 < stated < MAX_STATED_FRAMES else 0
        self.is_cover = fps >= COVER_RATE

    def scan(self, predicted: Collection[int], end_seconds: float | None) -> np.ndarray:
        """Decode from the start to the end, keeping the frames `predicted`."""
        if not self._is_at_start:
            self.capture.release()
            self.capture = self._open()
        self._is_at_start = False
        wanted, stamps = set(predicted), list[float]()
        while self.capture.grab():
            stamp = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            # A frame without a stamp has 0.
            stamps.append(math.nan if stamps and stamp == 0 else stamp)
            index = len(stamps) - 1
            if self._is_past(stamps, end_seconds) or (index in wanted and not self._keep_grabbed(index)):
                stamps.pop()
                break
        return np.array(stamps)

    fetch = scan

    def pictures(self) -> Iterator[np.ndarray]:
        """Every frame from here on, (H, W, 3) RGB as shown."""
        try:
            while self.capture.grab() and (image := self._grabbed()) is not None:
                yield image
        finally:
            self.close()

    def close(self) -> None:
        """Release the file."""
        self.capture.release()

    def _is_past(self, stamps: list[float], end_seconds: float | None) -> bool:
        """Whether the last of the stamps is at or after the end; by the stated rate where it is no stamp."""
        if end_seconds is None:
            return False
        seconds = stamps[-1] - stamps[0]
        if math.isnan(seconds):
            seconds = (len(stamps) - 1) / self.fps
        return seconds >= end_seconds - ROUNDING

    def _keep_grabbed(self, index: int) -> bool:
        """Convert the frame that was grabbed last; False when it gives no picture, which ends the video there."""
        image = self._grabbed()
        if image is not None:
            self.keep(index, image)
        return image is not None

    def _grabbed(self) -> np.ndarray | None:
        is_image, image = self.capture.retrieve()
        if not is_image or image is None:
            return None
        return cv2.cvtColor(np.ascontiguousarray(upright(image, self.matrix)), cv2.COLOR_BGR2RGB)

    def _open(self) -> cv2.VideoCapture:
        if cv2.__version__.startswith(SIDEWAYS):
            raise UnreadableVideo(
                f"OpenCV {cv2.__version__} turns portrait videos sideways: pip install 'opencv-python!=4.11.*'"
            )
        # One decoding thread: the loaders run one process per core, and what decodes of a damaged file is the same
        # on every machine. Only FFmpeg, as OpenCV's other readers take digits in a name for an image sequence.
        with utf8_name(self.path) as name:
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not capture.isOpened():
            capture.release()
            raise NothingDecodes(f"{self.path}: not a video that FFmpeg can open ({self.path.stat().st_size} bytes)")
        if self.matrix is not None:
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        self.check_size(capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        return capture


@contextmanager
def utf8_name(path: Path) -> Iterator[str]:
    """Name to open a file by: absolute, since FFmpeg takes `12:30.mp4` or `subfile,...` for a protocol.

    OpenCV dies of a segmentation fault on names that are not UTF-8, so these get a link.
    """
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="video-") as folder:
            link = Path(folder, "video" + path.suffix.encode(errors="ignore").decode())
            link.symlink_to(name)
            yield str(link)
    else:
        yield name


class AVVideo(_Kept):
    """PyAV: time stamps are read without decoding, and a frame is decoded from the key frame before it.

    Where that does not give the very frame that was asked for (a damaged file), all frames are decoded from the start.
    """

    name = "av"

    def __init__(self, path: Path, transform: Transform | None = None) -> None:
        super().__init__(path, transform)
        self.av: Any = import_av()
        # One for all frames: PyAV 18 starts threads for each new one, which takes ten times as long as the conversion.
        self.reformatter = self.av.video.reformatter.VideoReformatter()
        self.container: Any = None
        self.stream = self._open()
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.fps = float(rate) if rate and float(rate) >= MIN_FPS else math.nan
        stated = self.stream.frames
        self.stated_frames = stated if 0 < stated < MAX_STATED_FRAMES else 0
        self.is_cover = False  # such streams are passed over
        self.pts: list[int] = []  # empty where all frames are decoded from the start
        self.key_frames: list[int] = []

    def scan(self, predicted: Collection[int], end_seconds: float | None) -> np.ndarray:
        """Read the time stamps of all packets; nothing is decoded, unless a packet has no stamp."""
        try:
            packets = [packet for packet in self.container.demux(self.stream) if packet.size and not packet.is_discard]
        except self.av.FFmpegError:  # a damaged file; what decodes before that is read
            return self._decode_all(predicted, end_seconds)
        if self.container.format.name in WITHOUT_STAMPS or any(packet.pts is None for packet in packets):
            return self._decode_all(predicted, end_seconds)
        self.pts = sorted(packet.pts for packet in packets)
        self.key_frames = sorted(packet.pts for packet in packets if packet.is_keyframe)
        self.pts = self.pts[: self._before(end_seconds)]
        return self._seconds()

    def fetch(self, wanted: Collection[int], end_seconds: float | None) -> np.ndarray:
        """Decode each wanted frame from the key frame before it, or go on from the one before if that is shorter."""
        if not self.pts:
            return self._decode_all(wanted, end_seconds)
        frames: Iterator[Any] = iter(())
        at = math.inf
        for index in sorted(wanted):
            pts = self.pts[index]
            place = bisect.bisect_right(self.key_frames, pts)
            if not place:
                return self._decode_all(wanted, end_seconds)
            if not self.key_frames[place - 1] <= at <= pts:
                try:
                    self.container.seek(self.key_frames[place - 1], stream=self.stream)
                except self.av.FFmpegError:
                    return self._decode_all(wanted, end_seconds)
                frames = self._frames()
            found = next((frame for frame in frames if frame.pts is not None and frame.pts >= pts), None)
            if found is None or found.pts != pts:
                return self._decode_all(wanted, end_seconds)
            at = pts
            self._keep_frame(index, found)
        return self._seconds()

    def close(self) -> None:
        """Release the file."""
        self.container.close()

    def _before(self, end_seconds: float | None) -> int:
        """Number of frames before the end."""
        if end_seconds is None or not self.pts:
            return len(self.pts)
        return bisect.bisect_left(self.pts, self.pts[0] + (end_seconds - ROUNDING) / float(self.stream.time_base))

    def _seconds(self) -> np.ndarray:
        return np.array([float(pts * self.stream.time_base) for pts in self.pts])

    def _decode_all(self, wanted: Collection[int], end_seconds: float | None) -> np.ndarray:
        """From the start to the end, as OpenCV does."""
        if self.pts:  # what was kept so far went by other numbers
            self.kept.clear()
        self.container.close()
        self.stream, self.pts = self._open(), []
        wanted, stamps = set(wanted), list[float]()
        guessed = self.container.format.name in WITHOUT_STAMPS
        for frame in self._frames():
            pts = frame.dts if guessed else frame.pts
            stamp = math.nan if pts is None else float(pts * self.stream.time_base)
            seconds = len(stamps) / self.fps if math.isnan(stamp) else stamp - (stamps[0] if stamps else stamp)
            if end_seconds is not None and seconds >= end_seconds - ROUNDING:
                break
            if len(stamps) in wanted:
                self._keep_frame(len(stamps), frame)
            stamps.append(stamp)
        return np.array(stamps)

    def _frames(self) -> Any:
        """Decode on from where the file stands; a damaged packet ends that."""
        try:
            yield from self.container.decode(self.stream)
        except self.av.FFmpegError:
            return

    def _keep_frame(self, index: int, frame: Any) -> None:
        self.check_size(frame.width, frame.height)
        matrix = next(
            (np.frombuffer(bytes(data), np.int32) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"),
            None,
        )
        image = self.reformatter.reformat(frame, format="rgb24", interpolation="BICUBIC").to_ndarray()
        self.keep(index, upright(image, None if matrix is None else matrix.tolist()))

    def _open(self) -> Any:
        try:
            self.container = self.av.open(str(self.path.absolute()), options=dict(FFMPEG_OPTIONS))
        except (self.av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnreadableVideo(f"{self.path}: not a video that PyAV can open ({reason})") from error
        cover = self.av.stream.Disposition.attached_pic
        streams = [stream for stream in self.container.streams.video if not stream.disposition & cover]
        if not streams:
            self.container.close()
            raise UnreadableVideo(f"{self.path}: no video in it, only sound or a cover picture")
        stream = streams[0]
        if stream.codec_context is None:  # then it has no size either
            self.container.close()
            raise UnreadableVideo(f"{self.path}: its video is damaged, or of a kind that PyAV cannot decode")
        self.check_size(stream.width, stream.height)
        stream.codec_context.thread_count = 1
        return stream


def import_av() -> Any:
    """PyAV; UnreadableVideo that says what to install where it is not."""
    try:
        import av
    except ImportError as error:
        raise UnreadableVideo("--video_backend av needs PyAV: pip install -r requirements-optional.txt") from error
    av.logging.set_level(None)
    return av


def has_av() -> bool:
    """Whether PyAV is installed."""
    try:
        import_av()
    except UnreadableVideo:
        return False
    return True


@contextmanager
def open_video(path: Path, backend: str, transform: Transform | None) -> Iterator[Decoder]:
    """A file that is open with the decoder `opencv` or `av` for the block.

    Raises:
        UnreadableVideo: it is absent, no video that the decoder can open, or what either raises in the block.
        NoAccess: the system does not let it be read.
    """
    try:
        with closing(AVVideo(path, transform) if backend == "av" else OpenCVVideo(path, transform)) as video:
            yield video
    except UnusableClip:
        raise
    except _errors(backend) as error:
        raise UnreadableVideo(f"{path}: damaged, or of a kind that the decoder does not know ({error})") from error
    except OSError as error:
        raise NoAccess(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UnreadableVideo(f"{path}: {error}") from error


def _errors(backend: str) -> type[Exception]:
    """What a decoder raises of itself."""
    return import_av().FFmpegError if backend == "av" else cv2.error
