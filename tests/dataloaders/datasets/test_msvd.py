"""MSVD's lists and its pickled captions."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from dataloaders.datasets.msvd import CAPTION_FILE, read_captions, read_split

CAPTIONS = {"b_0_3": [["a", "dog"], ["dogs", ",", "two"]], "a_1_2": [["a", "cat"]]}


def write(folder: Path, content: Any = CAPTIONS, ids: str = "a_1_2\nb_0_3\n") -> Path:
    (folder / "train_list.txt").write_text(ids)
    (folder / CAPTION_FILE).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    return folder


def test_videos_of_a_list_get_their_captions_with_words_joined(tmp_path: Path):
    split = read_split(write(tmp_path), "train")
    assert split.video_ids == ["a_1_2", "b_0_3"]
    assert split.captions == ["a cat", "a dog", "dogs , two"]
    assert split.caption_video.tolist() == [0, 1, 1]


def test_videos_without_caption_are_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write(tmp_path, {**CAPTIONS, "b_0_3": []}, "gone\nb_0_3\na_1_2\n")
    with caplog.at_level(logging.WARNING):
        assert read_split(folder, "train").video_ids == ["a_1_2"]
    assert "no caption of 2 of 3 videos: gone, b_0_3; they are left out" in caplog.text


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path):
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "it ran"),)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        content = pickle.dumps({"a_1_2": [["a"]], "x": Malicious()}, protocol)
        with pytest.raises(ValueError, match=r"raw-captions\.pkl cannot be read: it names \w+\.mkdir.*pickle\.dump"):
            read_split(write(tmp_path, content), "train")
    assert not (tmp_path / "it ran").exists()
    content = b"\x80\x02cbuiltins\neval\nX\x06\x00\x00\x001 / 0 \x85R."
    with pytest.raises(ValueError, match=r"it names builtins\.eval"):
        read_split(write(tmp_path, content), "train")


@pytest.mark.parametrize("word", ["café".encode(), "café".encode("latin-1")])
def test_byte_strings_of_python_2_are_text(tmp_path: Path, word: bytes):
    # protocol 2: {"v1": [[word]]}, with Python 2's opcode for short byte strings
    content = b"\x80\x02}U\x02v1]]U" + bytes([len(word)]) + word + b"aas."
    assert read_captions(write(tmp_path, content) / CAPTION_FILE) == {"v1": ["café"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([["a", "dog"]], "holds a list"),
        ({"a_1_2": ["a dog"]}, r"video 'a_1_2': \['a dog'\]"),
        ({"a_1_2": [["a", 3]]}, "video 'a_1_2'"),
        ({1: [["a"]]}, "video 1"),
        (b"", "cannot be read"),
        (b"not a pickle", "cannot be read"),
        (pickle.dumps(CAPTIONS)[:40], "cannot be read"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content: Any, message: str):
    with pytest.raises(ValueError, match=message) as error:
        read_split(write(tmp_path, content), "train")
    assert CAPTION_FILE in str(error.value) and "id -> list of captions" in str(error.value)


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"val_list\.txt.*--data_path"):
        read_split(write(tmp_path), "val")
    (tmp_path / CAPTION_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"raw-captions\.pkl.*--data_path"):
        read_split(tmp_path, "train")


def test_the_real_files_are_read(shared: Path):
    folder = shared / "realdata/msvd"
    for name, videos, captions in (("train", 1200, 48_774), ("val", 100, 4_290), ("test", 670, 27_763)):
        split = read_split(folder, name)
        assert (len(split.video_ids), len(split.captions)) == (videos, captions)
    captions_of_all = read_captions(folder / CAPTION_FILE)
    assert len(captions_of_all) == 1970 and sum(map(len, captions_of_all.values())) == 80_827
