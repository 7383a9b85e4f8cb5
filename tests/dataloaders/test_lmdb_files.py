"""LMDB environments that processes share, and their values as files."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmdb
import pytest

from dataloaders.lmdb_files import forget_environment, read_environment, value_as_file
from dataloaders.samples import SampleSettings
from dataloaders.video_files import VideoLmdb
from tests.videos import write_video

SETTINGS = SampleSettings(resolution=32, max_frames=3)


def write_lmdb(folder: Path, values: Mapping[str, bytes]) -> Path:
    """An LMDB with these values, in a folder that is made."""
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as writing:
        for key, value in values.items():
            writing.put(key.encode(), value)
    return folder


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An LMDB with videos "1@N00_5_ab" and "b"; temporary files go to tmp/."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    values = {
        "1@N00_5_ab": write_video(tmp_path / "a.mp4", 30).read_bytes(),
        "b": write_video(tmp_path / "b.mp4", 20, size=(48, 64)).read_bytes(),
    }
    return write_lmdb(tmp_path / "lmdb", values)


def test_a_folder_is_opened_once_whatever_its_name(tmp_path: Path):
    folder = write_lmdb(tmp_path / "lmdb", {"a": b"1"})
    (tmp_path / "link").symlink_to(folder)
    first = read_environment(folder, readahead=False)
    assert read_environment(tmp_path / "link", readahead=True) is first
    with first.begin() as transaction:
        assert transaction.get(b"a") == b"1"
    with pytest.raises(lmdb.ReadonlyError):
        first.begin(write=True)


def test_a_forgotten_folder_is_opened_anew(tmp_path: Path):
    folder = write_lmdb(tmp_path / "lmdb", {"a": b"old"})
    first = read_environment(folder, readahead=False)
    forget_environment(folder)
    folder.rename(tmp_path / "retired")
    write_lmdb(folder, {"a": b"new"})
    second = read_environment(folder, readahead=False)
    assert second is not first
    with second.begin() as transaction:
        assert transaction.get(b"a") == b"new"
    forget_environment(tmp_path / "never opened")


def test_a_folder_that_is_none_is_an_error_every_time(tmp_path: Path):
    for _ in range(2):
        with pytest.raises(lmdb.Error):
            read_environment(tmp_path / "gone", readahead=False)


def test_an_lmdb_that_is_cut_short_is_an_error_and_no_signal(videos: Path):
    content = (videos / "data.mdb").read_bytes()
    (videos / "data.mdb").write_bytes(content[: len(content) // 2])
    for _ in range(2):
        with pytest.raises(lmdb.CorruptedError, match=r"data\.mdb has \d+ bytes, not the \d+ of the whole LMDB"):
            read_environment(videos, readahead=False)


def test_a_value_is_a_file_for_the_block_alone(videos: Path, tmp_path: Path):
    with value_as_file(videos, "b") as file:
        assert file.parent == tmp_path / "tmp"
        assert file.read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert not file.exists()
    with pytest.raises(ZeroDivisionError), value_as_file(videos, "b"):
        _ = 1 / 0
    assert not list((tmp_path / "tmp").iterdir())


def test_a_key_that_is_not_there_is_named_and_leaves_no_file(videos: Path, tmp_path: Path):
    with pytest.raises(KeyError, match="lmdb, key 'gone': there is no such key"), value_as_file(videos, "gone"):
        pass
    assert not list((tmp_path / "tmp").iterdir())


def test_two_sources_of_one_lmdb_share_it(videos: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(videos)
    train, test = VideoLmdb(videos, ["b"]), VideoLmdb(tmp_path / "link", ["1@N00_5_ab"])
    assert len(train.read("b", SETTINGS).frames) == len(test.read("1@N00_5_ab", SETTINGS).frames) == 3


def _read(source: VideoLmdb, results: Any) -> None:
    results.put(source.read("b", SETTINGS).original_size)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_an_lmdb_that_is_already_open(videos: Path, method: str):
    source = VideoLmdb(videos, ["b"])
    context: Any = multiprocessing.get_context(method)
    results = context.Queue()
    process = context.Process(target=_read, args=(source, results))
    process.start()
    assert results.get(timeout=60) == (48, 64)
    process.join()
    assert source.read("b", SETTINGS).original_size == (48, 64)


def test_a_copy_opens_the_lmdb_when_it_first_reads(videos: Path):
    stored = pickle.dumps(VideoLmdb(videos, ["b"]))
    forget_environment(videos)
    assert len(stored) < 1000
    assert pickle.loads(stored).read("b", SETTINGS).original_size == (48, 64)


def test_a_full_disk_is_named_with_its_remedy(videos: Path, monkeypatch: pytest.MonkeyPatch):
    source = VideoLmdb(videos, ["b"])
    full = SimpleNamespace(name="/dev/full")
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: contextlib.nullcontext(full))
    with pytest.raises(OSError, match=r"/dev/full: .*No space left.*TMPDIR"):
        source.read("b", SETTINGS)
