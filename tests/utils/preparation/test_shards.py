"""Shards that are written again go on from what is there, and what cannot be gone on with is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from dataloaders.files import file_lock
from dataloaders.tfrecord import iterate_records
from tests.utils.conversion import SETTINGS, Converted, files_of, run, stand_in, stored_clips, write_companion
from tests.utils.tars import sample, write_tar
from tests.videos import write_video
from utils.preparation import shards
from utils.preparation.caption_rows import open_table
from utils.preparation.clip_encoding import EncodedClip
from utils.preparation.shard_files import CannotConvert, Settings, is_finished
from utils.preparation.shard_parts import Part, merge
from utils.preparation.shards import Stop, convert, convert_row, sha256_of
from utils.preparation.tar_members import TarVideo
from utils.preparation.tar_rows import TarSource
from utils.preparation.webvid_rows import Row, WebVidSource

# As the command, but without TensorFlow, and killed before it writes so many records.
CONVERT_AND_DIE = """
import itertools, os, signal, sys
from tests.utils.conversion import stand_in
from utils import webvid_to_tfrecord
if __name__ == "__main__":
    left = itertools.count(int(sys.argv[1]), -1)
    tf = stand_in(lambda: next(left) or os.kill(os.getpid(), signal.SIGKILL))
    webvid_to_tfrecord._tensorflow = lambda: tf
    sys.exit(webvid_to_tfrecord.main(sys.argv[2:]))
"""


def test_records_of_an_unfinished_shard_are_used_again(converted: Converted, tmp_path: Path):
    whole = converted[0] / "raw/path-00000.tfrecord"
    records = list(iterate_records(whole))
    (tmp_path / "parts").mkdir()
    temporary = tmp_path / "path-00000.tfrecord.tmp"
    temporary.write_bytes(whole.read_bytes()[: records[3][0] - 5])  # killed while the third was written
    shards._save_beginnings(tmp_path, [0])
    temporary.write_bytes(b"a shorter beginning, of a run that was killed sooner")
    shards._save_beginnings(tmp_path, [0])
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
    shards._save_beginnings(tmp_path / "out", [0])
    assert not planted.is_symlink() and not list((tmp_path / "out/parts").iterdir()), "no beginning of a shard of ours"
    planted.symlink_to(tmp_path / "theirs")
    row = Row(0, "a", "caption", "", None, None)
    shards.write_shard(stand_in(), tmp_path / "out", 0, iter([(row, b"a record")]), "jpeg", tqdm(disable=True))
    assert (tmp_path / "theirs").read_text() == "precious" and is_finished(tmp_path / "out", 0)


def no_tensorflow() -> Any:
    raise AssertionError("nothing is to be written")


def test_a_csv_without_rows_gives_empty_lists(tmp_path: Path):
    (tmp_path / "a.csv").write_text("videoid,name,page_dir\n")
    out = tmp_path / "out"
    assert convert(WebVidSource(tmp_path / "a.csv"), tmp_path, out, 1, SETTINGS, no_tensorflow) == (0, 0, 0)
    assert (out / "path.index").read_text() == "" and json.loads((out / "frozen_train_labels.json").read_bytes()) == []
    assert json.loads((out / "report.json").read_bytes())["skipped"] == []


def test_finished_shards_are_listed_again_and_not_written(tmp_path: Path):
    (tmp_path / "a.csv").write_text("videoid,name,page_dir\n" + "".join(f"{n},a dog,\n" for n in range(4)))
    out = tmp_path / "out"
    write_companion(out, 0, ["0", "1", "2"])
    write_companion(out, 1, [], ("3",))
    (out / "parts" / "settings.json").write_text(json.dumps(dataclasses.asdict(SETTINGS)))
    assert convert(WebVidSource(tmp_path / "a.csv"), tmp_path, out, 1, SETTINGS, no_tensorflow) == (3, 3, 1)
    assert len((out / "path.index").read_text().splitlines()) == 3


def test_a_second_run_beside_the_first_is_refused(tmp_path: Path):
    (tmp_path / "a.csv").write_text("videoid,name,page_dir\n")
    with file_lock(tmp_path / "out" / "parts" / "lock"), pytest.raises(TimeoutError, match="lock"):
        convert(WebVidSource(tmp_path / "a.csv"), tmp_path, tmp_path / "out", 1, SETTINGS, no_tensorflow)
    assert not (tmp_path / "out" / "path.index").exists()


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


def test_a_folder_that_may_not_be_entered_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refused)
    for video in (None, "x/1.mp4"):
        row = Row(0, "1", "a dog", "page", None, video=video)
        assert "Permission denied" in str(convert_row(row, tmp_path, tmp_path, SETTINGS))


def test_the_digest_of_a_csv_is_that_of_its_bytes(tmp_path: Path):
    content = b"videoid,name\n" * 100_000
    (tmp_path / "a.csv").write_bytes(content)
    assert sha256_of(tmp_path / "a.csv") == hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten videos, a table of captions of them, and the same in four tar files."""
    folder = tmp_path_factory.mktemp("clips")
    rows = ["video,caption"]
    members = []
    for number in range(10):
        path = write_video(folder / "videos" / f"v{number}.mp4", 8 + 4 * number)
        rows.append(f"v{number}.mp4,clip {number} of a dog")
        members.append(sample(f"v{number}", path.read_bytes(), f"clip {number} of a dog", has_text=number % 2 == 0))
    rows[5:5] = ["v3.mp4,another caption", "gone.mp4,a lost clip", "gone.mp4,still lost"]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    (folder / "tars").mkdir()
    for number in range(4):
        inside = [member for some in members[3 * number : 3 * number + 3] for member in some]
        write_tar(folder / "tars" / f"{number:05d}.tar", inside)
    return folder


@pytest.fixture(scope="module")
def from_table(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one machine makes of the table."""
    out = tmp_path_factory.mktemp("whole") / "out"
    source = open_table(clips / "captions.csv")
    counts = convert(source, clips / "videos", out, 2, settings_of(clips), stand_in)
    assert counts == (10, 11, 2)
    return out


def settings_of(clips: Path) -> Settings:
    return dataclasses.replace(SETTINGS, csv_sha256=sha256_of(clips / "captions.csv"))


def test_captions_of_one_video_share_its_record(from_table: Path):
    assert [video_id for video_id, _ in stored_clips(from_table)] == [f"v{number}" for number in range(10)]
    labels = json.loads((from_table / "frozen_train_labels.json").read_bytes())
    assert [label["caption"] for label in labels if label["video_id"] == "v3"] == [
        "clip 3 of a dog",
        "another caption",
    ]
    report = json.loads((from_table / "report.json").read_bytes())
    reasons = [(clip["video_id"], clip["reason"]) for clip in report["skipped"]]
    assert reasons[0][0] == reasons[1][0] == "gone"
    assert "no video at" in reasons[0][1] and "its video is skipped" in reasons[1][1]


def test_clips_in_tar_files_are_those_of_files_record_for_record(clips: Path, from_table: Path, tmp_path: Path):
    tars = TarSource([str(clips / "tars" / "{00000..00003}.tar")])
    settings = dataclasses.replace(SETTINGS, csv_sha256=None, tar_sha256=tars.sha256)
    assert convert(tars, None, tmp_path, 2, settings, stand_in) == (10, 10, 0)
    found, expected = (
        [payload for path in sorted(folder.glob("path-*")) for _, payload in iterate_records(path)]
        for folder in (tmp_path, from_table)
    )
    assert len(expected) == 10 and found == expected
    assert [video_id for video_id, _ in stored_clips(tmp_path)] == [f"v{number}" for number in range(10)]
    labels = json.loads((tmp_path / "frozen_train_labels.json").read_bytes())
    assert labels == [{"video_id": f"v{n}", "caption": f"clip {n} of a dog"} for n in range(10)]


def test_killed_parts_that_are_run_again_merge_to_what_one_machine_writes(
    clips: Path, from_table: Path, tmp_path: Path
):
    moments = random.Random(0)
    flags = ["--csv", clips / "captions.csv", "--video_dir", clips / "videos", "--output_dir", tmp_path, "--workers", 1]
    flags += ["--clips_per_shard", 3, "--part"]
    for index in (2, 0, 1):
        killed = run(CONVERT_AND_DIE, moments.randrange(3), *flags, f"{index}/3")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert "is not finished" in unmerged(tmp_path, f"part {index}/3")
        table = open_table(clips / "captions.csv")
        convert(table, clips / "videos", tmp_path, 1, settings_of(clips), stand_in, Part(index, 3))
    assert merge(tmp_path) == (10, 11, 2)
    assert files_of(tmp_path) == files_of(from_table)
    assert not list(tmp_path.glob("parts/*.partial"))


def unmerged(folder: Path, part: str) -> str:
    with pytest.raises(CannotConvert) as error:
        merge(folder)
    return next(text for text in str(error.value).split("; ") if part in text)


def test_parts_do_not_touch_the_beginnings_of_others(clips: Path, tmp_path: Path):
    theirs = tmp_path / "path-00000.tfrecord.tmp"
    theirs.write_bytes(b"being written by part 0")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "settings-0-of-5.json").write_text(
        json.dumps(dataclasses.asdict(settings_of(clips)) | {"rows": 13})
    )
    with file_lock(tmp_path / "parts" / "lock-0-of-5"):
        table = open_table(clips / "captions.csv")
        assert convert(table, clips / "videos", tmp_path, 1, settings_of(clips), stand_in, Part(4, 5)) == (1, 1, 0)
    assert theirs.read_bytes() == b"being written by part 0"
    assert sorted(path.name for path in tmp_path.glob("path*")) == ["path-00000.tfrecord.tmp", "path-00004.tfrecord"]


def test_a_video_in_a_tar_that_cannot_be_read_is_named_as_it_lies_there(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", sample("a", b"no video", "a dog"))
    [row] = TarSource([str(tar)]).rows(3, {0})
    assert str(convert_row(row, None, tmp_path, SETTINGS)).startswith(f"{tar}, a.mp4: not a video")


def test_what_ends_every_row_ends_the_run(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", sample("a", b"x" * 5000, "a dog"))
    [row] = TarSource([str(tar)]).rows(3, {0})
    os.truncate(tar, 1000)
    stop = convert_row(row, None, tmp_path, SETTINGS)
    assert isinstance(stop, Stop) and "was changed while it was read" in stop.reason and isinstance(row.video, TarVideo)
    (tmp_path / "parts").mkdir()
    with pytest.raises(CannotConvert, match=r"a\.tar: was changed"):
        shards.write_shard(stand_in(), tmp_path, 0, iter([(row, stop)]), "jpeg", tqdm(disable=True))
    assert not is_finished(tmp_path, 0)


def test_notes_of_a_clip_outlast_a_kill(tmp_path: Path):
    """A run that goes on with a record does not read its video again."""
    (tmp_path / "parts").mkdir()
    rows = [Row(0, name, "a dog", "", None) for name in "ab"]
    clip = EncodedClip([b"jpeg"], (64, 48), (64, 48), 10.0, [0], 1.0, ["no time stamps"])

    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.write_shard(stand_in(killed), tmp_path, 0, iter([(rows[0], clip)]), "jpeg", tqdm(disable=True))
    with (tmp_path / "parts" / "00000.notes").open("ab") as file:
        file.write(b'\n["b", ["no ti')
    results = [(rows[0], b"record"), (rows[1], dataclasses.replace(clip, notes=["cut short"]))]
    shards.write_shard(stand_in(), tmp_path, 0, iter(results), "jpeg", tqdm(disable=True))
    companion = json.loads((tmp_path / "parts" / "00000.json").read_bytes())
    assert companion["notes"] == ["no time stamps", "cut short"]
    assert not (tmp_path / "parts" / "00000.notes").exists()
