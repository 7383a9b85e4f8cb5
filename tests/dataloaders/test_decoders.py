"""Both decoders: the same frames at the same times, whatever the file states."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders import decoders, frames
from dataloaders.decoders import AVVideo, NoAccess, OpenCVVideo, UnreadableVideo, has_av
from dataloaders.frames import FrameSettings, read_clip
from tests.videos import BACKENDS_HERE, write_timed, write_video

NEEDS_AV = pytest.mark.skipif(not has_av(), reason="needs PyAV: pip install -r requirements-optional.txt")
STAMPS = {
    "30 then 10": [*np.arange(90) / 30, *(3 + np.arange(40) / 10)],
    "5 then 30": [*np.arange(20) / 5, *(4 + np.arange(100) / 30)],
    "60 then 24": [*np.arange(120) / 60, *(2 + np.arange(96) / 24)],
    "a gap": [*np.arange(40) / 20, *(6.3 + np.arange(40) / 20)],
    "late start": list(3.7 + np.arange(60) / 15),
    "one frame in ten seconds": [0.0, 0.1, 10.0, 10.1],
}


def by_definition(seconds: list[float], rate: float) -> list[int]:
    """The rule in words, as a loop: the nearest frame, unless it is shown more than half an interval later."""
    times = np.array(seconds) - seconds[0]
    interval, found = times[-1] / (len(times) - 1), []
    while len(found) / rate <= times[-1] + interval / 2 + 1e-6:
        time = len(found) / rate
        away = np.abs(times - time)
        nearest = min(np.flatnonzero(away <= away.min() + 1e-6).tolist(), key=lambda index: index % 2)
        while times[nearest] - time > interval / 2 + 1e-6:
            nearest -= 1
        found.append(nearest)
    return found


@NEEDS_AV
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize("name", STAMPS)
def test_frames_are_at_their_time(tmp_path: Path, name: str, backend: str, suffix: str):
    seconds = [float(second) for second in STAMPS[name]]
    path = write_timed(tmp_path / f"timed{suffix}", seconds)
    for rate in (1.0, 2.0):
        clip = read_clip(path, None, FrameSettings(rate, video_backend=backend))
        assert clip.frame_indices.tolist() == by_definition(seconds, rate)
        assert [round(float(frame.mean())) for frame in clip.frames] == pytest.approx(
            [20 + index % 200 for index in clip.frame_indices], abs=3
        )
        assert clip.notes == [] and clip.backend == backend and clip.decoded_frames == len(seconds)


@NEEDS_AV
@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe, with whose time stamps are compared")
@pytest.mark.parametrize("name", STAMPS)
def test_stamps_are_those_of_ffprobe(tmp_path: Path, name: str):
    path = write_timed(tmp_path / "timed.mkv", [float(second) for second in STAMPS[name]])
    command = ["ffprobe", "-v", "quiet", "-show_entries", "frame=best_effort_timestamp_time", "-of", "json", str(path)]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["frames"]
    expected = np.array([float(frame["best_effort_timestamp_time"]) for frame in listed])
    for kind in (OpenCVVideo, AVVideo):
        found = kind(path).scan([], None)
        np.testing.assert_allclose(found - found[0], expected - expected[0], atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize(
    "name",
    [
        "12:30.mp4",
        "http:clip.mp4",
        "file:clip.mp4",
        "concat:a.mp4|b.mp4",
        "subfile,,start,0,end,9,,:a.mp4",
        "pipe:0.mp4",
        "data:text.mp4",
        "-i.mp4",
        "a|b.mp4",
        "frame_%03d.mp4",
        "100%.mp4",
        "clip*?[1].mp4",
        " blank .mp4",
        "tail.mp4#t=1",
        "x?y=1&z.mp4",
        "line\nbreak.mp4",
        "a\\b'c\".mp4",
    ],
)
def test_a_name_is_that_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, backend: str):
    made = write_video(tmp_path / "made.mp4", 20)
    made.rename(tmp_path / name)
    write_video(tmp_path / "a.mp4", 5)  # what some of the names would mean
    monkeypatch.chdir(tmp_path)
    clip = read_clip(Path(name), 2, FrameSettings(video_backend=backend))
    assert clip.decoded_frames == 20
    with pytest.raises(UnreadableVideo, match=r"^other:clip\.mp4: there is no such file"):
        read_clip(Path("other:clip.mp4"), 2, FrameSettings(video_backend=backend))


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_a_path_through_a_linked_folder_is_not_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str):
    write_video(tmp_path / "disk/videos/a.mp4", 20)
    write_video(tmp_path / "a.mp4", 5)
    (tmp_path / "disk/videos/deep").mkdir()
    (tmp_path / "link").symlink_to("disk/videos/deep")
    monkeypatch.chdir(tmp_path)
    assert read_clip(Path("link/../a.mp4"), 2, FrameSettings(video_backend=backend)).decoded_frames == 20


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_an_end_cuts_by_time(tmp_path: Path, backend: str):
    path = write_video(tmp_path / "a.mp4", 45)
    for end, expected in ((2, [0, 10]), (2.05, [0, 10, 20]), (0.05, [0]), (100, [0, 10, 20, 30, 40])):
        clip = read_clip(path, None, FrameSettings(end_seconds=end, video_backend=backend))
        assert clip.frame_indices.tolist() == expected and clip.decoded_frames == min(45, int(np.ceil(end * 10)))


@NEEDS_AV
@pytest.mark.slow
def test_real_clips_are_the_same_pixels_in_both(shared: Path):
    for path in sorted((shared / "realdata").glob("*/videos/*.mp4")):
        first, second = (read_clip(path, 12, FrameSettings(video_backend=name)) for name in ("opencv", "av"))
        assert first.frame_indices.tolist() == second.frame_indices.tolist()
        assert all(np.array_equal(a, b) for a, b in zip(first.frames, second.frames, strict=True)), path.name
        assert (first.fps, first.decoded_frames) == (pytest.approx(second.fps), second.decoded_frames)


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_odd_videos_have_the_same_frames_in_both(shared: Path, backend: str):
    expected = {
        "decord_corrupted.mp4": [0, 10, 20],
        "imageio_realshort.mp4": [0, 30],
        "mmaction2_test.avi": [0, 25, 50, 75, 100, 125, 150],
        "torchcodec_h265_10bits.mp4": [0],
    }
    for name, indices in expected.items():
        clip = read_clip(shared / "realdata/odd_videos" / name, None, FrameSettings(video_backend=backend))
        assert clip.frame_indices.tolist() == indices and clip.notes == [], name


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_cases_are_read_as_their_readme_says(shared: Path, backend: str):
    videos, settings = shared / "cases" / "videos", FrameSettings(video_backend=backend)
    clip = read_clip(videos / "vfr_30then10fps.mp4", 12, settings)
    assert clip.frame_indices.tolist() == [0, 30, 90, 150, 160, 180, 200, 220, 230, 250, 270, 290]
    gap = read_clip(videos / "avi_empty_chunks.avi", None, settings)
    assert gap.frame_indices.tolist() == [0, 30, 59, 59, 59, 59, 59, 69, 99, 129]
    assert gap.seconds == pytest.approx(10, abs=0.1) and gap.num_candidates == 10
    mirrored = read_clip(videos / "mirrored.mp4", 1, settings).frames[0].astype(int)
    redness = mirrored[..., 0] - mirrored[..., 2]
    assert (
        redness[: len(redness) // 4, -redness.shape[1] // 4 :].mean() > 20 > redness[:, : redness.shape[1] // 2].max()
    )
    with pytest.raises(UnreadableVideo, match=r"audio_with_cover\.mp4: no video in it"):
        read_clip(videos / "audio_with_cover.mp4", 12, settings)


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_a_file_that_states_a_million_frames_takes_no_memory(shared: Path, backend: str):
    code = (
        "import resource, sys; from dataloaders.frames import FrameSettings, read_clip\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for frames in (12, None):\n"
        "    clip = read_clip(sys.argv[1], frames, FrameSettings(video_backend=sys.argv[2]))\n"
        "print(clip.decoded_frames, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    path = shared / "cases/videos/states_999999_frames.avi"
    done = subprocess.run([sys.executable, "-c", code, str(path), backend], capture_output=True, text=True, check=True)
    decoded, megabytes = map(int, done.stdout.split())
    assert decoded == 24 and megabytes < 200


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "av":
            raise ImportError("no av here")
        return plain(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_the_optional_package_the_error_says_what_to_install(tmp_path: Path, without_av: None, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 5)
    with pytest.raises(UnreadableVideo, match=r"needs PyAV: pip install -r requirements-optional\.txt"):
        read_clip(path, 3, FrameSettings(video_backend="av"))
    assert read_clip(path, 1).backend == "opencv"
    monkeypatch.setattr(OpenCVVideo, "scan", lambda self, predicted, end: np.zeros(0))
    with pytest.raises(UnreadableVideo, match=r"a\.mp4: no frame decodes.*; PyAV decodes more: pip install"):
        read_clip(path, 3)


@NEEDS_AV
def test_auto_takes_the_other_decoder_only_where_opencv_decodes_nothing(tmp_path: Path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 25)
    assert read_clip(path, 3).backend == "opencv"
    monkeypatch.setattr(OpenCVVideo, "scan", lambda self, predicted, end: np.zeros(0))
    clip = read_clip(path, 3)
    assert clip.backend == "av" and clip.frame_indices.tolist() == [0, 10, 20]
    assert clip.notes == [f"{path}: decoded by PyAV, as OpenCV decodes nothing of it"]
    with pytest.raises(UnreadableVideo, match="OpenCV cannot decode"):
        read_clip(path, 3, FrameSettings(video_backend="opencv"))
    (tmp_path / "text.mp4").write_bytes(b"no video at all" * 50)
    with pytest.raises(UnreadableVideo, match=r"text\.mp4: not a video that FFmpeg can open"):
        read_clip(tmp_path / "text.mp4", 3)


def test_av1_is_read_or_the_error_says_how(shared: Path):
    path = shared / "realdata/odd_videos/torchcodec_av1_video.mkv"
    if has_av():
        assert len(read_clip(path, 12).frames) == 12
    else:
        with pytest.raises(UnreadableVideo, match=r"torchcodec_av1_video\.mkv.*PyAV decodes more: pip install"):
            read_clip(path, 12)


@NEEDS_AV
def test_seeking_decodes_no_more_than_from_the_key_frame_before(tmp_path: Path, monkeypatch):
    path = write_timed(tmp_path / "a.mp4", [index / 25 for index in range(500)])
    decoded = [0]

    def counting(self: AVVideo) -> Iterator[Any]:
        for frame in self.container.decode(self.stream):
            decoded[0] += 1
            yield frame

    monkeypatch.setattr(AVVideo, "_frames", counting)
    clip = read_clip(path, 2, FrameSettings(video_backend="av"))
    assert clip.frame_indices.tolist() == [0, 475] and decoded[0] <= 1 + 250


@NEEDS_AV
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")
def test_the_conversion_of_frames_starts_no_threads_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_video(tmp_path / "v.avi", 40)
    held = []
    original = AVVideo._keep_frame

    def keep(self: AVVideo, index: int, frame: Any) -> None:
        held.append(frame)  # a converter of its own would live as long
        original(self, index, frame)

    monkeypatch.setattr(AVVideo, "_keep_frame", keep)
    before = len(os.listdir("/proc/self/task"))
    read_clip(path, 40, FrameSettings(video_backend="av", feature_framerate=10))
    assert len(held) >= 40 and len(os.listdir("/proc/self/task")) - before < 10


@NEEDS_AV
def test_where_seeking_does_not_give_the_frame_everything_is_decoded(tmp_path: Path, monkeypatch):
    path = write_timed(tmp_path / "a.mp4", [index / 10 for index in range(50)])
    expected = read_clip(path, 5, FrameSettings(video_backend="opencv"))
    scan = AVVideo.scan

    def wrong_key_frames(self: AVVideo, *arguments: Any) -> np.ndarray:
        stamps = scan(self, *arguments)
        self.pts = [pts + (1 if index > 20 else 0) for index, pts in enumerate(self.pts)]
        return stamps

    monkeypatch.setattr(AVVideo, "scan", wrong_key_frames)
    clip = read_clip(path, 5, FrameSettings(video_backend="av"))
    assert clip.frame_indices.tolist() == expected.frame_indices.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(clip.frames, expected.frames, strict=True))


def test_the_opencv_that_turns_portrait_videos_sideways_is_refused(tmp_path: Path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 5)
    monkeypatch.setattr(decoders.cv2, "__version__", "4.11.0")
    with pytest.raises(UnreadableVideo, match=r"OpenCV 4\.11\.0 turns portrait videos sideways: pip install"):
        read_clip(path, 1)


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_pictures_are_shrunk_as_they_are_decoded(tmp_path: Path, backend: str):
    held: list[int] = []

    def shrink(image: np.ndarray) -> np.ndarray:
        held.append(image.nbytes)
        return image[:4, :4].copy()

    clip = read_clip(write_video(tmp_path / "a.mp4", 30), 3, FrameSettings(video_backend=backend), shrink)
    assert (
        len(held) == 3
        and {frame.shape for frame in clip.frames} == {(4, 4, 3)}
        and (clip.width, clip.height) == (64, 48)
    )


def test_frames_of_the_guess_that_are_not_wanted_are_let_go(tmp_path: Path, monkeypatch):
    """Two passes hold no more pictures than one."""
    if not has_av():
        pytest.skip("needs PyAV")
    path = write_timed(tmp_path / "a.mp4", [*np.arange(90) / 30, *(3 + np.arange(40) / 10)])
    most = [0]
    keep = OpenCVVideo.keep

    def watched(self: OpenCVVideo, *arguments: Any) -> None:
        keep(self, *arguments)
        most[0] = max(most[0], len(self.kept))

    monkeypatch.setattr(OpenCVVideo, "keep", watched)
    clip = read_clip(path, 4)
    assert len(set(clip.frame_indices.tolist())) == 4 and most[0] == 4
    assert frames.FRAME_RULE == 2


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize("place", ["caf\udce9.mp4", "caf\udce9/a.mp4", "a.mp4\udce9", "tab\tesc\x1b[31m.mp4", "%d.mp4"])
def test_a_file_is_read_whatever_its_name(tmp_path: Path, place: str, backend: str):
    """OpenCV dies of a segmentation fault on a name that is not UTF-8."""
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    shutil.copy(write_video(tmp_path / "plain.mp4", 30), path)
    settings = FrameSettings(video_backend=backend)
    assert read_clip(path, 3, settings).frame_indices.tolist() == [0, 10, 20]
    path.write_bytes(b"no video" * 50)
    with pytest.raises(UnreadableVideo, match="not a video") as caught:
        read_clip(path, 3, settings)
    message = str(caught.value)
    assert message.isprintable() and message.encode() and ascii(path.name)[1:-1] in message


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("nothing", "there is no such file"),
        ("dangling", "a link to .*nowhere.mp4, which is not there"),
        ("loop", "cannot be opened: Too many levels"),
        ("folder", "a folder, not a file"),
        ("pipe", "a pipe or a device"),
        ("device", "a pipe or a device"),
        ("empty", "not a video"),
        ("text", "not a video"),
    ],
)
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str, reason: str, backend: str):
    path = tmp_path / "x.mp4"
    {
        "nothing": lambda: None,
        "dangling": lambda: path.symlink_to(tmp_path / "nowhere.mp4"),
        "loop": lambda: path.symlink_to(path),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "empty": path.touch,
        "text": lambda: path.write_text("just text\n" * 50),
    }[kind]()
    with pytest.raises(UnreadableVideo, match=rf"x\.mp4: {reason}"):
        read_clip(path, 3, FrameSettings(video_backend=backend))


@pytest.mark.parametrize("backend", BACKENDS_HERE)
def test_a_file_that_the_system_does_not_give_is_no_damage(tmp_path: Path, monkeypatch, backend: str):
    path = write_video(tmp_path / "a.mp4", 5)
    plain = builtins.open

    def refuse(name: Any, *arguments: Any, **more: Any) -> Any:
        if name == path:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(name, *arguments, **more)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(NoAccess, match=r"a\.mp4: cannot be read: Permission denied"):
        read_clip(path, 1, FrameSettings(video_backend=backend))


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile 'inner.mkv'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3.0,\ninner.mkv\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "redirect": "[Reference]\nRef1=http://127.0.0.1:9/a\n",
}


@pytest.mark.parametrize("backend", BACKENDS_HERE)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".sdp", ".ffconcat"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_lists_of_other_files_are_not_followed(tmp_path: Path, kind: str, suffix: str, backend: str):
    shutil.copy(write_video(tmp_path / "plain.mp4", 5), tmp_path / "inner.mkv")
    path = tmp_path / f"list{suffix}"
    path.write_text(PLAYLISTS[kind])
    with pytest.raises(UnreadableVideo, match=f"list{suffix}: not a video"):
        read_clip(path, 1, FrameSettings(video_backend=backend))


@NEEDS_AV
@pytest.mark.parametrize("method", ["demux", "seek", "decode"])
def test_what_the_decoder_raises_is_an_unreadable_video_or_decoded_from_the_start(
    tmp_path: Path, monkeypatch, method: str
):
    import av

    class Failing:
        """A container whose method raises, as on damaged files."""

        def __init__(self, container: Any) -> None:
            self.container = container

        def __getattr__(self, name: str) -> Any:
            return self.fail if name == method else getattr(self.container, name)

        def fail(self, *_: Any, **__: Any) -> Any:
            raise av.error.OSError(29, "Illegal seek")

    path = write_timed(tmp_path / "a.mp4", [index / 10 for index in range(50)])
    opened, settings = AVVideo._open, FrameSettings(video_backend="av")
    expected = read_clip(path, 3, settings).frame_indices.tolist()

    def failing(self: AVVideo) -> Any:
        stream = opened(self)
        self.container = Failing(self.container)
        return stream

    monkeypatch.setattr(AVVideo, "_open", failing)
    if method == "decode":
        with pytest.raises(UnreadableVideo, match=r"a\.mp4: no frame decodes"):
            read_clip(path, 3, settings)
    else:
        assert read_clip(path, 3, settings).frame_indices.tolist() == expected
