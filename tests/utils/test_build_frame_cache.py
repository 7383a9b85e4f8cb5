"""The command that fills a frame cache, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import pytest

from dataloaders import video_files
from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.frame_cache import FrameCache
from modules.config import ModelConfig
from tests.utils.preparation.test_frame_caching import OneProcess
from tests.videos import write_video
from utils import build_frame_cache
from utils.data.captions import CaptionArguments
from utils.data.clips import open_clips
from utils.preparation import frame_caching
from utils.settings.parser import parse_arguments

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--resolution", "32", "--max_frames", "3", "--workers", "1"]


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process takes seconds to start."""
    monkeypatch.setattr(frame_caching, "WorkerPool", OneProcess)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for number in range(2):
        write_video(tmp_path / "videos" / f"v{number}.mp4", 20 + number)
    return tmp_path / "videos"


def fill(place: Path, cache: Path, *more: str) -> int:
    return build_frame_cache.main([str(place), "--frame_cache", str(cache), *SMALL, *more])


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_task_with_the_same_flags_decodes_nothing(
    videos: Path, tmp_path: Path, is_packed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    place = videos
    if not is_packed:
        monkeypatch.undo()  # once with a real worker
    if is_packed:
        place = tmp_path / "lmdb"
        with lmdb.open(str(place), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
            for path in videos.iterdir():
                transaction.put(path.stem.encode(), path.read_bytes())
    flags = ["--feature_framerate", "3", "--slice_framepos", "0", "--end_seconds", "1.5", "--video_backend", "opencv"]
    assert fill(place, tmp_path / "cache", *flags) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'cache'}: 2 videos stored, 0 were there, 0 unreadable; 0.000 GB\n"
    own = ["--do_train", "--output_dir", str(tmp_path), "--frame_cache", str(tmp_path / "cache")]
    args = parse_arguments([*own, *flags], CaptionArguments, {"datatype": "msrvtt_caption"})
    config = ModelConfig(image_resolution=32, patch_size=16, max_frames=3)
    split = CaptionSplit.from_pairs([TextVideoPair("v0", "a dog"), TextVideoPair("v1", "a cat")])
    clips = open_clips(args, config, split, "train", str(place), None, print, training=True)
    monkeypatch.setattr(video_files, "read_clip", None)
    for video_id in ("v0", "v1"):
        assert len(clips.reader.videos.read(video_id, clips.reader.settings).frames) == 3
    assert fill(place, tmp_path / "cache", *flags) == 0
    assert ": 0 videos stored, 2 were there, 0 unreadable" in capsys.readouterr().out


def test_unreadable_videos_are_named_and_alone_are_a_failure(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(12):
        (broken / f"{number}.mp4").write_bytes(b"not a video" * (100 + number))
    assert fill(broken, tmp_path / "cache") == 1
    printed = capsys.readouterr()
    assert "0 videos stored, 0 were there, 12 unreadable" in printed.out
    lines = [line for line in printed.err.splitlines() if line.startswith("unreadable: ")]
    assert len(lines) == 11 and str(broken) in lines[0] and lines[-1] == "unreadable: 2 more"
    assert fill(tmp_path, tmp_path / "cache") == 0
    assert "2 videos stored, 0 were there, 12 unreadable" in capsys.readouterr().out


def test_a_limit_ends_it(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert fill(videos, tmp_path / "cache", "--frame_cache_gb", "0.000005") == 1
    printed = capsys.readouterr()
    assert "the limit of 5e-06 GB is reached" in printed.err
    assert "storing has stopped: 1 videos read but not stored, 1 not looked at" in printed.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--frame_cache is required"),
        (["--frame_cache", "c", "--frame_cache_gb", "0"], "--frame_cache_gb 0"),
        (["--frame_cache", "c", "--feature_framerate", "-1"], "--feature_framerate -1"),
        (["--frame_cache", "c", "--workers", "0"], "0 is not above 0"),
        (["--frame_cache", "c", "--frame_cache_format", "png"], "invalid choice"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        build_frame_cache.main(["v.mp4", *flags])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_places_that_cannot_be_used_are_one_line(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert fill(tmp_path / "none", tmp_path / "cache") == 1
    assert capsys.readouterr().err == f"build_frame_cache: {tmp_path / 'none'}: no such video\n"
    assert fill(videos, videos / "v0.mp4") == 1
    assert "not a folder that can be used" in capsys.readouterr().err


def test_help_names_the_settings(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        build_frame_cache.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in ("frame_cache_format", "end_seconds", "resolution", "workers"))


@pytest.mark.slow
def test_ctrl_c_leaves_a_sound_cache(tmp_path: Path):
    video = write_video(tmp_path / "videos" / "v0.mp4", 150)
    for number in range(1, 5000):  # enough that none is left only after a long time
        os.link(video, video.with_name(f"v{number}.mp4"))
    cache = tmp_path / "cache"
    command = [sys.executable, str(ROOT / "utils/build_frame_cache.py"), str(tmp_path / "videos")]
    process = subprocess.Popen(
        [*command, "--frame_cache", str(cache), *SMALL], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    # An index is made empty before the first clip is stored.
    while not any(file.stat().st_size for file in cache.glob("*.index")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    error = process.stderr.read()
    assert process.wait(60) == 130 and error == "interrupted: what is stored is kept, run again to go on\n"
    with frame_caching.collected_warnings() as warnings:
        count = len(FrameCache(cache))
    assert 0 < count < 5000 and not warnings
