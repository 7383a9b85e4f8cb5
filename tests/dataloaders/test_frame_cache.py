"""The cache of frames: what it serves is what was stored, whatever happened to the processes that filled it."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dataloaders import frame_cache
from dataloaders.frame_cache import CachedClip, FrameCache, Unreadable
from dataloaders.frame_segments import index_line

ROOT = Path(__file__).resolve().parents[2]
SIDE = 8
CLIP_BYTES = 3 * SIDE * SIDE * 3


@pytest.fixture(autouse=True)
def always_rescan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_cache, "RESCAN_SECONDS", 0)


def make_key(number: int) -> str:
    return f"{number:064x}"


def make_clip(number: int, side: int = SIDE, distinct: int = 3) -> CachedClip:
    """A clip that its number determines; its last frame is its first again."""
    noise = np.random.default_rng(number).integers(0, 256, (distinct, side, side, 3), np.uint8)
    frames = list(noise)
    return CachedClip(
        [*frames, frames[0]],
        (640 + number, 360),
        list(range(len(frames) + 1)),
        [f"note {number}"] if number % 2 else [],
    )


def assert_same(found: CachedClip | Unreadable | None, expected: CachedClip) -> None:
    assert isinstance(found, CachedClip)
    assert found[1:] == expected[1:]
    np.testing.assert_array_equal(found.frames, expected.frames)


def filled(folder: Path, count: int) -> FrameCache:
    cache = FrameCache(folder)
    for number in range(count):
        cache.put(make_key(number), make_clip(number))
    return cache


def fill(folder: str, first: int, step: int) -> None:
    """What a process of its own does until it is killed: store clip after clip."""
    cache = FrameCache(folder)
    for number in range(first, 1_000_000, step):
        cache.put(make_key(number), make_clip(number))


def only(folder: Path, suffix: str) -> Path:
    (path,) = folder.glob(f"*{suffix}")
    return path


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


def test_raw_frames_come_back_bit_for_bit(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "new" / "folder", "raw")
    assert cache.get(make_key(1)) is None
    cache.put(make_key(1), make_clip(1))
    found = cache.get(make_key(1))
    assert_same(found, make_clip(1))
    assert isinstance(found, CachedClip)
    assert found.frames[3] is found.frames[0] and found.frames[1] is not found.frames[0]
    assert found.frames[0].dtype == np.uint8 and found.frames[0].flags.writeable
    found.frames[0][:] = 0
    assert_same(cache.get(make_key(1)), make_clip(1))
    assert len(cache) == 1 and cache.size() == CLIP_BYTES


def test_a_view_that_is_not_contiguous_is_stored_as_it_looks(tmp_path: Path) -> None:
    clip = make_clip(0)
    turned = clip._replace(frames=[frame[:, ::-1, ::-1] for frame in clip.frames])
    cache = FrameCache(tmp_path)
    cache.put(make_key(0), turned)
    assert_same(cache.get(make_key(0)), turned)


def test_jpeg_frames_are_close_and_red_stays_red(tmp_path: Path) -> None:
    red = cv2.resize(make_clip(0, 4).frames[0], (32, 32), interpolation=cv2.INTER_CUBIC)
    red[..., 0] = 230
    cache = FrameCache(tmp_path, "jpeg")
    cache.put(make_key(0), CachedClip([red, red[::-1], red], (64, 32), [0, 5, 9], ["odd"]))
    found = FrameCache(tmp_path, "jpeg").get(make_key(0))
    assert isinstance(found, CachedClip)
    assert found.original_size == (64, 32) and found.notes == ["odd"]
    assert found.frames[0] is found.frames[2]
    assert found.frames[0].flags.writeable
    for frame, expected in zip(found.frames, (red, red[::-1], red), strict=True):
        assert frame.shape == (32, 32, 3)
        assert np.abs(frame.astype(int) - expected).mean() < 6
        assert np.abs(frame[..., 0].astype(int) - 230).mean() < 12


def test_formats_do_not_mix(tmp_path: Path) -> None:
    raw, jpeg = FrameCache(tmp_path, "raw"), FrameCache(tmp_path, "jpeg")
    raw.put(make_key(0), make_clip(0))
    assert jpeg.get(make_key(0)) is None
    jpeg.put(make_key(0), make_clip(1))
    jpeg.put_unreadable(make_key(2), "broken")
    assert raw.get(make_key(2)) is None
    assert_same(raw.get(make_key(0)), make_clip(0))
    assert isinstance(jpeg.get(make_key(0)), CachedClip)
    assert len(raw) == 1 and len(jpeg) == 2
    assert raw.size() == jpeg.size() == sum(path.stat().st_size for path in tmp_path.glob("*.frames"))
    with pytest.raises(ValueError, match="png"):
        FrameCache(tmp_path, "png")


def test_another_quality_is_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FrameCache(tmp_path, "jpeg").put(make_key(0), make_clip(0))
    monkeypatch.setattr(frame_cache, "JPEG_QUALITY", 50)
    assert FrameCache(tmp_path, "jpeg").get(make_key(0)) is None


def test_unreadable_clips_are_remembered_with_their_reason(tmp_path: Path) -> None:
    reason = "no frame decodes:\nmoov atom \udcff not found"
    FrameCache(tmp_path).put_unreadable(make_key(0), reason)
    cache = FrameCache(tmp_path)
    assert cache.get(make_key(0)) == Unreadable(reason)
    cache.put(make_key(0), make_clip(0))
    assert cache.get(make_key(0)) == Unreadable(reason)
    assert cache.size() == 0 and len(cache) == 1


def test_a_known_key_is_not_stored_again(tmp_path: Path) -> None:
    first, second = FrameCache(tmp_path), FrameCache(tmp_path)
    first.put(make_key(0), make_clip(0))
    for cache in (first, second):
        cache.put(make_key(0), make_clip(1))
        cache.put_unreadable(make_key(0), "no")
    assert_same(second.get(make_key(0)), make_clip(0))
    assert second.size() == CLIP_BYTES


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [np.zeros((8, 8, 3), np.float32)],
        [np.zeros((8, 9, 3), np.uint8)],
        [np.zeros((8, 8, 3), np.uint8), np.zeros((9, 9, 3), np.uint8)],
        [np.zeros((0, 0, 3), np.uint8)],
        [np.zeros((1, 1, 3), np.uint8)] * 4097,
    ],
)
def test_what_is_no_clip_is_refused(tmp_path: Path, frames: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="cannot be cached"):
        FrameCache(tmp_path).put(make_key(0), CachedClip(frames, (8, 8), list(range(len(frames))), []))
    assert not list(tmp_path.iterdir())


def test_two_processes_see_each_other(tmp_path: Path) -> None:
    first, second = FrameCache(tmp_path), FrameCache(tmp_path)
    for number in range(6):
        (first, second)[number % 2].put(make_key(number), make_clip(number))
        assert_same((second, first)[number % 2].get(make_key(number)), make_clip(number))
    assert len(first) == len(second) == 6
    assert len(list(tmp_path.glob("*.frames"))) == len(list(tmp_path.glob("*.index"))) == 2


def test_misses_look_at_the_folder_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(frame_cache, "RESCAN_SECONDS", 1)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    cache = FrameCache(tmp_path)
    assert cache.get(make_key(0)) is None
    filled(tmp_path, 1)
    now = 100.9
    assert cache.get(make_key(0)) is None
    now = 101.1
    assert_same(cache.get(make_key(0)), make_clip(0))


def test_a_pickled_cache_is_its_settings(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, "jpeg", 2.5)
    cache.put(make_key(0), make_clip(0))
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy.folder, copy.format, copy.limit_gb) == (tmp_path, "jpeg", 2.5)
    assert isinstance(copy.get(make_key(0)), CachedClip)
    copy.put(make_key(1), make_clip(1))
    assert len(list(tmp_path.glob("*.frames"))) == 2
    assert isinstance(cache.get(make_key(1)), CachedClip)


def _use_after_fork(cache: FrameCache, results: Any) -> None:
    known = isinstance(cache.get(make_key(0)), CachedClip)
    cache.put(make_key(1), make_clip(1))
    results.put((os.getpid(), known))


def test_a_forked_process_writes_to_its_own_segment(tmp_path: Path) -> None:
    cache = filled(tmp_path, 1)
    parents = only(tmp_path, ".frames")
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=_use_after_fork, args=(cache, results))
    process.start()
    child, known = results.get(timeout=30)
    process.join()
    assert process.exitcode == 0 and known
    assert parents.stat().st_size == CLIP_BYTES
    (childs,) = set(tmp_path.glob("*.frames")) - {parents}
    assert f"-{os.getpid()}-" in parents.name and f"-{child}-" in childs.name
    cache.put(make_key(2), make_clip(2))
    assert parents.stat().st_size == 2 * CLIP_BYTES and childs.stat().st_size == CLIP_BYTES
    for number in range(3):
        assert_same(cache.get(make_key(number)), make_clip(number))


def test_killed_processes_leave_a_sound_cache(tmp_path: Path) -> None:
    code = "import sys; from tests.dataloaders.test_frame_cache import fill; fill(sys.argv[1], int(sys.argv[2]), 2)"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(first)], cwd=ROOT) for first in range(2)
    ]
    watcher = FrameCache(tmp_path)
    deadline = time.monotonic() + 60
    while not all(watcher.get(make_key(100 + first)) for first in range(2)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in processes:
        process.kill()
    for process in processes:
        assert process.wait() == -9
    cache = FrameCache(tmp_path)
    count = len(cache)
    served = {number for number in range(2 * count) if cache.get(make_key(number)) is not None}
    assert len(served) == count >= 101
    for number in range(max(served) + 5):
        cache.put(make_key(number), make_clip(number))
    for number in range(max(served) + 5):
        for reader in (cache, watcher):
            assert_same(reader.get(make_key(number)), make_clip(number))


def cut_segment(segment: Path, index: Path) -> None:
    os.truncate(segment, 2 * CLIP_BYTES - 1)


def flip_in_segment(segment: Path, index: Path) -> None:
    data = bytearray(segment.read_bytes())
    data[CLIP_BYTES + 7] ^= 1
    segment.write_bytes(data)


def remove_segment(segment: Path, index: Path) -> None:
    segment.unlink()


def cut_last_line(segment: Path, index: Path) -> None:
    os.truncate(index, index.stat().st_size - 5)


def garbage_line(segment: Path, index: Path) -> None:
    lines = index.read_bytes().splitlines(keepends=True)
    lines[2] = b"\0\xff[[[[ no entry\n"
    index.write_bytes(b"".join(lines))


def flip_in_index(segment: Path, index: Path) -> None:
    index.write_bytes(index.read_bytes().replace(b'"which": [0, 1, 2, 0]', b'"which": [0, 2, 2, 0]'))


def other_version(segment: Path, index: Path) -> None:
    index.write_bytes(index.read_bytes().replace(b'{"version": 1}', b'{"version": 2}'))


def damaged_header(segment: Path, index: Path) -> None:
    index.write_bytes(b"x" + index.read_bytes()[1:])


DAMAGES: list[tuple[Callable[[Path, Path], None], set[int], str | None]] = [
    (cut_segment, {0}, ".frames"),
    (flip_in_segment, {0, 2}, ".frames"),
    (remove_segment, set(), ".frames"),
    (cut_last_line, {0, 1}, None),
    (garbage_line, {0, 2}, ".index"),
    (flip_in_index, set(), ".index"),
    (other_version, set(), ".index"),
    (damaged_header, set(), ".index"),
]


@pytest.mark.parametrize(("damage", "sound", "blamed"), DAMAGES, ids=lambda value: getattr(value, "__name__", None))
def test_damage_is_a_miss_and_stored_again(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path, Path], None],
    sound: set[int],
    blamed: str | None,
) -> None:
    filled(tmp_path, 3)
    segment, index = only(tmp_path, ".frames"), only(tmp_path, ".index")
    damage(segment, index)
    cache = FrameCache(tmp_path)
    for _ in range(2):
        assert {number for number in range(3) if cache.get(make_key(number)) is not None} == sound
    said = warnings(caplog)
    assert len(said) == (blamed is not None)
    assert blamed is None or (segment if blamed == ".frames" else index).name in said[0]
    for number in range(3):
        cache.put(make_key(number), make_clip(number))
    for reader in (cache, FrameCache(tmp_path)):
        for number in range(3):
            assert_same(reader.get(make_key(number)), make_clip(number))
    written = sum(path.stat().st_size for path in tmp_path.glob("*.frames") if path != segment)
    assert written == (3 - len(sound)) * CLIP_BYTES


def test_the_sound_one_of_two_copies_is_found(tmp_path: Path) -> None:
    """Otherwise each new process that meets the damaged copy last would store the clip once more."""
    first, second = FrameCache(tmp_path), FrameCache(tmp_path)
    first.open()
    second.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame_cache, "RESCAN_SECONDS", 1000)
        first.put(make_key(0), make_clip(0))
        second.put(make_key(0), make_clip(0))
    for damaged in sorted(tmp_path.glob("*.frames")):
        content = damaged.read_bytes()
        damaged.write_bytes(content[:-1])
        assert_same(FrameCache(tmp_path).get(make_key(0)), make_clip(0))
        damaged.write_bytes(content)


def test_a_line_that_is_not_complete_is_read_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, 2)
    index = only(tmp_path, ".index")
    content = index.read_bytes()
    cache = FrameCache(tmp_path)
    for length in (0, 5, len(content) - 1):
        index.write_bytes(content[:length])
        assert cache.get(make_key(1)) is None
    assert_same(cache.get(make_key(0)), make_clip(0))
    index.write_bytes(content)
    assert_same(cache.get(make_key(1)), make_clip(1))
    assert not warnings(caplog)


def test_an_index_is_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, 5)
    longest = max(map(len, only(tmp_path, ".index").read_bytes().splitlines(keepends=True)))
    monkeypatch.setattr(frame_cache, "READ_BYTES", longest)
    assert len(FrameCache(tmp_path)) == 5 and not warnings(caplog)
    monkeypatch.setattr(frame_cache, "READ_BYTES", longest - 1)
    assert len(FrameCache(tmp_path)) < 5
    assert len(warnings(caplog)) == 1 and "does not end" in warnings(caplog)[0]


ABSURD = [
    {"length": 2**60},
    {"length": 2**60, "shape": [2**20, 2**20, 2**20, 3]},
    {"length": 192 * 5000, "shape": [5000, 8, 8, 3]},
    {"length": 3 * 5000**2, "shape": [1, 5000, 5000, 3], "which": [0]},
    {"shape": [-3, -8, 8, 3]},
    {"shape": [3, 8, 8, 3.0]},
    {"shape": [3, 8, 8]},
    {"shape": [3, 4, 16, 3]},
    {"shape": [4, 8, 8, 3]},
    {"shape": "3883"},
    {"offset": -1},
    {"offset": 2**70},
    {"offset": None},
    {"crc": True},
    {"which": []},
    {"which": [0, 1, 3]},
    {"which": [0] * 5000},
    {"which": [-1]},
    {"size": [640]},
    {"indices": [0]},
    {"notes": [1]},
    {"notes": None},
    {"key": 7},
    {"reason": 5},
]


@pytest.mark.parametrize("absurd", ABSURD, ids=str)
def test_absurd_entries_take_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, absurd: dict[str, Any]
) -> None:
    filled(tmp_path, 1)
    index = only(tmp_path, ".index")
    header, line = index.read_bytes().splitlines(keepends=True)
    record = json.loads(line)
    del record["check"]
    assert index_line(record) == line
    index.write_bytes(header + index_line({**record, **absurd}))
    cache = FrameCache(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", None)
        assert cache.get(make_key(0)) is None
    assert len(warnings(caplog)) == 1
    cache.put(make_key(0), make_clip(0))
    assert_same(FrameCache(tmp_path).get(make_key(0)), make_clip(0))


@pytest.mark.parametrize("lengths", [[], [10], [0, 10, 10], [10**30] * 3, [-1, 1, 1], None], ids=str)
def test_absurd_jpegs_are_refused(tmp_path: Path, lengths: list[int] | None) -> None:
    FrameCache(tmp_path, "jpeg").put(make_key(0), make_clip(0))
    index = only(tmp_path, ".index")
    header, line = index.read_bytes().splitlines(keepends=True)
    record = json.loads(line)
    del record["check"]
    for length in (record["length"], sum(lengths or [])):
        index.write_bytes(header + index_line({**record, "lengths": lengths, "length": length}))
        assert FrameCache(tmp_path, "jpeg").get(make_key(0)) is None


def test_a_jpeg_of_another_shape_is_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    FrameCache(tmp_path, "jpeg").put(make_key(0), make_clip(0))
    index = only(tmp_path, ".index")
    header, line = index.read_bytes().splitlines(keepends=True)
    record = json.loads(line)
    del record["check"]
    lengths = record["lengths"]
    moved = [lengths[0] - 200, lengths[1] + 200, lengths[2]]
    for change in ({"shape": [3, 16, 16, 3]}, {"lengths": moved}):
        index.write_bytes(header + index_line({**record, **change}))
        assert FrameCache(tmp_path, "jpeg").get(make_key(0)) is None
    assert len(warnings(caplog)) == 2 and "JPEG" in warnings(caplog)[0]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("full", [".frames", ".index"])
@pytest.mark.parametrize("before", [0, 2])
def test_a_full_disk_stops_storing_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int, full: str, before: int
) -> None:
    cache = filled(tmp_path, before)
    size, index_size = (sum(path.stat().st_size for path in tmp_path.glob(f"*{end}")) for end in (".frames", ".index"))
    write = os.write

    def write_part(descriptor: int, data: bytes | memoryview) -> int:
        if not os.readlink(f"/proc/self/fd/{descriptor}").endswith(full):
            return write(descriptor, data)
        if len(data) > 50:
            return write(descriptor, data[:50])
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_part)
        cache.put(make_key(7), make_clip(7))
        cache.put(make_key(8), make_clip(8))
        cache.put_unreadable(make_key(9), "no")
    cache.put(make_key(8), make_clip(8))
    said = warnings(caplog)
    assert len(said) == 1 and str(tmp_path) in said[0]
    assert full == ".index" or os.strerror(code) in said[0]
    assert cache.size() == size and sum(path.stat().st_size for path in tmp_path.glob("*.index")) == index_size
    assert before or not list(tmp_path.iterdir())
    for reader in (cache, FrameCache(tmp_path)):
        assert len(reader) == before
        for number in range(before):
            assert_same(reader.get(make_key(number)), make_clip(number))
    FrameCache(tmp_path).put(make_key(8), make_clip(8))
    assert_same(cache.get(make_key(8)), make_clip(8))


def test_a_limit_of_the_system_on_files_is_a_full_disk(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from tests.dataloaders.test_frame_cache import CLIP_BYTES, filled
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * CLIP_BYTES + 9, resource.RLIM_INFINITY))
filled(sys.argv[1], 5)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.count("without storing") == 1 and os.strerror(errno.EFBIG) in done.stderr
    cache = FrameCache(tmp_path)
    assert len(cache) == 2 and cache.size() == 2 * CLIP_BYTES
    for number in range(2):
        assert_same(cache.get(make_key(number)), make_clip(number))


def test_an_interrupt_while_writing_leaves_no_half_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = filled(tmp_path, 1)
    write = os.write

    def interrupted(descriptor: int, data: memoryview) -> int:
        write(descriptor, data[:50])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.put(make_key(1), make_clip(1))
    assert cache.size() == CLIP_BYTES
    for number in (1, 2):
        cache.put(make_key(number), make_clip(number))
    for number in range(3):
        assert_same(FrameCache(tmp_path).get(make_key(number)), make_clip(number))


def test_the_limit_counts_all_segments(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, 2)
    cache = FrameCache(tmp_path, limit_gb=3.5 * CLIP_BYTES / 1e9)
    for number in range(6):
        cache.put(make_key(number), make_clip(number))
    cache.put_unreadable(make_key(6), "no")
    assert cache.size() == 3 * CLIP_BYTES and len(cache) == 3
    said = warnings(caplog)
    assert len(said) == 1 and "limit" in said[0] and str(tmp_path) in said[0]
    for number in range(3):
        assert_same(cache.get(make_key(number)), make_clip(number))
    assert cache.get(make_key(3)) is None


def test_the_limit_counts_what_was_written_since_the_last_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(frame_cache, "RESCAN_SECONDS", 1000)
    cache = FrameCache(tmp_path, limit_gb=3 * CLIP_BYTES / 1e9)
    for number in range(6):
        cache.put(make_key(number), make_clip(number))
    assert cache.size() == 3 * CLIP_BYTES and len(warnings(caplog)) == 1


@pytest.mark.parametrize("use", [FrameCache.open, len, FrameCache.size, lambda cache: cache.get(make_key(0))])
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, use: Callable[[FrameCache], object]) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        cache = FrameCache(folder)
        with pytest.raises(OSError, match=f"--frame_cache {folder}"):
            use(cache)


def test_a_folder_that_goes_away_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = FrameCache(tmp_path / "cache")
    cache.open()
    (tmp_path / "cache").rmdir()
    for number in range(2):
        assert cache.get(make_key(number)) is None
        cache.put(make_key(number), make_clip(number))
    said = warnings(caplog)
    assert len(said) == 2 and "cannot be listed" in said[0] and "without storing" in said[1]


def test_few_segments_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_cache, "MAX_OPEN_SEGMENTS", 2)
    for number in range(5):
        FrameCache(tmp_path).put(make_key(number), make_clip(number))
    reader = FrameCache(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for number in (0, 1, 2, 3, 4, 0, 2):
        assert_same(reader.get(make_key(number)), make_clip(number))
    assert len(os.listdir("/proc/self/fd")) <= before + 2
