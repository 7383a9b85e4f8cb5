"""Shards that are written again go on from what is there, and what cannot be gone on with is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tqdm import tqdm

from dataloaders.files import file_lock
from dataloaders.tfrecord import iterate_records, record_length
from tests.utils.conversion import Converted
from tests.videos import write_video
from utils.preparation import shards
from utils.preparation.clip_encoding import EncodedClip
from utils.preparation.shards import CannotConvert, Settings, convert, convert_row, is_finished, sha256_of
from utils.preparation.webvid_rows import Row

SETTINGS = Settings("", "jpeg", 256, 1.0, 90, 3)


def test_records_of_an_unfinished_shard_are_used_again(converted: Converted, tmp_path: Path):
    whole = converted[0] / "raw/path-00000.tfrecord"
    records = list(iterate_records(whole))
    (tmp_path / "parts").mkdir()
    temporary = tmp_path / "path-00000.tfrecord.tmp"
    temporary.write_bytes(whole.read_bytes()[: records[3][0] - 5])  # killed while the third was written
    shards._save_beginnings(tmp_path)
    temporary.write_bytes(b"a shorter beginning, of a run that was killed sooner")
    shards._save_beginnings(tmp_path)
    assert not temporary.exists()
    saved = shards._saved_offsets(tmp_path, 0)
    assert saved == {"a1": records[0][0], "a2": records[1][0]}
    settings = Settings("", "raw", 32, 1, None, 1000)
    row = Row(0, "a2", "caption", "", None, saved["a2"])
    assert convert_row(row, tmp_path / "no videos", tmp_path, settings) == records[1][1]


def test_a_link_where_a_shard_is_written_is_not_followed(tmp_path: Path):
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "out/parts").mkdir(parents=True)
    planted = tmp_path / "out/path-00000.tfrecord.tmp"
    planted.symlink_to(tmp_path / "theirs")
    shards._save_beginnings(tmp_path / "out")
    assert not planted.is_symlink() and not list((tmp_path / "out/parts").iterdir()), "no beginning of a shard of ours"
    planted.symlink_to(tmp_path / "theirs")

    @contextmanager
    def opened(path: str) -> Iterator[SimpleNamespace]:  # as TensorFlow's writer, which opens what it is given
        with open(path, "wb") as file:
            yield SimpleNamespace(write=lambda record: file.write(bytes(record_length(len(record)))))

    tf = SimpleNamespace(io=SimpleNamespace(TFRecordWriter=opened), errors=SimpleNamespace(OpError=ZeroDivisionError))
    row = Row(0, "a", "caption", "", None, None)
    shards.write_shard(tf, tmp_path / "out", 0, iter([(row, b"a record")]), "jpeg", tqdm(disable=True))
    assert (tmp_path / "theirs").read_text() == "precious" and is_finished(tmp_path / "out", 0)


def write_companion(folder: Path, number: int, written: list[str], skipped: tuple[str, ...] = ()) -> None:
    """What is noted of a shard of so many bytes as it has clips."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    content = {
        "bytes": len(written),
        "written": [{"video_id": i, "caption": f"a {i}", "offset": place} for place, i in enumerate(written)],
        "skipped": [{"video_id": i, "reason": "gone"} for i in skipped],
    }
    (folder / "parts" / f"{number:05d}.json").write_text(json.dumps(content))
    (folder / f"path-{number:05d}.tfrecord").write_bytes(bytes(len(written)))


def test_a_shard_is_finished_when_it_has_the_size_that_was_noted(tmp_path: Path):
    write_companion(tmp_path, 1, ["a", "b"])
    assert is_finished(tmp_path, 1) and not is_finished(tmp_path, 0)
    shard = tmp_path / "path-00001.tfrecord"
    shard.write_bytes(b"x")
    assert not is_finished(tmp_path, 1)
    shard.unlink()
    assert not is_finished(tmp_path, 1)


def test_lists_are_of_all_shards_in_order(tmp_path: Path):
    write_companion(tmp_path, 0, ["a", "b"], ("x",))
    write_companion(tmp_path, 1, [], ("y", "z"))
    write_companion(tmp_path, 2, ["c"])
    assert shards._write_lists(tmp_path, 3, SETTINGS) == (3, 3)
    assert (tmp_path / "path.index").read_text() == (
        "a\tpath-00000.tfrecord\t0\nb\tpath-00000.tfrecord\t1\nc\tpath-00002.tfrecord\t0\n"
    )
    labels = json.loads((tmp_path / "frozen_train_labels.json").read_bytes())
    assert labels == [{"video_id": i, "caption": f"a {i}"} for i in "abc"]
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["written"] == 3 and [clip["video_id"] for clip in report["skipped"]] == ["x", "y", "z"]
    assert report["settings"] == dataclasses.asdict(SETTINGS)


def no_tensorflow() -> Any:
    raise AssertionError("nothing is to be written")


def test_a_csv_without_rows_gives_empty_lists(tmp_path: Path):
    (tmp_path / "a.csv").write_text("videoid,name,page_dir\n")
    out = tmp_path / "out"
    assert convert(tmp_path / "a.csv", tmp_path, out, 1, SETTINGS, no_tensorflow) == (0, 0)
    assert (out / "path.index").read_text() == "" and json.loads((out / "frozen_train_labels.json").read_bytes()) == []
    assert json.loads((out / "report.json").read_bytes())["skipped"] == []


def test_finished_shards_are_listed_again_and_not_written(tmp_path: Path):
    (tmp_path / "a.csv").write_text("videoid,name,page_dir\n" + "".join(f"{n},a dog,\n" for n in range(4)))
    out = tmp_path / "out"
    write_companion(out, 0, ["0", "1", "2"])
    write_companion(out, 1, [], ("3",))
    (out / "parts" / "settings.json").write_text(json.dumps(dataclasses.asdict(SETTINGS)))
    assert convert(tmp_path / "a.csv", tmp_path, out, 1, SETTINGS, no_tensorflow) == (3, 1)
    assert len((out / "path.index").read_text().splitlines()) == 3


def test_a_second_run_beside_the_first_is_refused(tmp_path: Path):
    (tmp_path / "a.csv").write_text("videoid,name,page_dir\n")
    with file_lock(tmp_path / "out" / "parts" / "lock"), pytest.raises(TimeoutError, match="lock"):
        convert(tmp_path / "a.csv", tmp_path, tmp_path / "out", 1, SETTINGS, no_tensorflow)
    assert not (tmp_path / "out" / "path.index").exists()


def test_a_folder_that_was_begun_with_other_settings_or_by_others_is_refused(tmp_path: Path):
    shards._check_settings(tmp_path, SETTINGS)
    shards._check_settings(tmp_path, SETTINGS)
    with pytest.raises(CannotConvert, match="frame_format jpeg there, raw now; jpeg_quality 90 there, None now"):
        shards._check_settings(tmp_path, dataclasses.replace(SETTINGS, frame_format="raw", jpeg_quality=None))
    write_companion(tmp_path / "others", 0, ["a"])
    with pytest.raises(CannotConvert, match="holds shards that this command did not write"):
        shards._check_settings(tmp_path / "others", SETTINGS)


def test_a_row_becomes_a_clip_or_the_reason_why_it_does_not(tmp_path: Path):
    write_video(tmp_path / "page" / "1.mp4", 20)
    (tmp_path / "2.mp4").write_bytes(b"no video")

    def result(video_id: str, fault: str | None = None) -> EncodedClip | bytes | str:
        return convert_row(Row(0, video_id, "a dog", "page", fault), tmp_path, tmp_path, SETTINGS)

    clip = result("1")
    assert isinstance(clip, EncodedClip) and clip.frame_indices == [0, 10]
    assert result("1", "empty caption") == "empty caption"
    assert "2.mp4: not a video" in str(result("2"))
    assert result("3") == f"no video at {tmp_path / 'page' / '3.mp4'} or {tmp_path / '3.mp4'}"


def test_the_digest_of_a_csv_is_that_of_its_bytes(tmp_path: Path):
    content = b"videoid,name\n" * 100_000
    (tmp_path / "a.csv").write_bytes(content)
    assert sha256_of(tmp_path / "a.csv") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [b"", b'{"bytes": 3, "wri', b"[]", b"\xff\xfe", b"{}"])
def test_a_shard_with_a_damaged_companion_is_written_again(tmp_path: Path, content: bytes):
    write_companion(tmp_path, 1, ["a"])
    assert is_finished(tmp_path, 1)
    (tmp_path / "parts" / "00001.json").write_bytes(content)
    assert not is_finished(tmp_path, 1)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"csv'])
def test_damaged_settings_are_named_with_the_remedy(tmp_path: Path, content: bytes):
    (tmp_path / "a.csv").write_text("videoid,name\n")
    (tmp_path / "out" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "parts" / "settings.json").write_bytes(content)
    with pytest.raises(CannotConvert, match=r"settings\.json: damaged .*delete it to go on"):
        convert(tmp_path / "a.csv", tmp_path, tmp_path / "out", 1, SETTINGS, lambda: None)
