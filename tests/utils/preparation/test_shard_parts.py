"""Parts of a set in one folder: which belong together, and when they can be merged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from dataloaders.files import file_lock
from tests.utils.conversion import SETTINGS, write_companion
from utils.preparation.shard_files import CannotConvert
from utils.preparation.shard_parts import WHOLE, Part, begin, merge

PARTS = [Part(index, 3) for index in range(3)]
ROWS = 20  # seven shards


@pytest.mark.parametrize(("num_shards", "count"), [(7, 3), (2, 3), (0, 2), (9, 1), (1000, 7)])
def test_every_shard_belongs_to_one_part(num_shards: int, count: int):
    runs = [Part(index, count).numbers(num_shards) for index in range(count)]
    assert [number for run in runs for number in run] == list(range(num_shards))
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


def finish(folder: Path, part: Part) -> None:
    begin(folder, SETTINGS, part, ROWS)
    for number in part.numbers(7):
        write_companion(folder, number, [f"v{number}"])


def test_a_folder_that_was_begun_with_other_settings_or_by_others_is_refused(tmp_path: Path):
    begin(tmp_path, SETTINGS, WHOLE, 5)
    begin(tmp_path, SETTINGS, WHOLE, 5)
    with pytest.raises(CannotConvert, match="frame_format jpeg there, raw now; jpeg_quality 90 there, None now"):
        begin(tmp_path, dataclasses.replace(SETTINGS, frame_format="raw", jpeg_quality=None), WHOLE, 5)
    write_companion(tmp_path / "others", 0, ["a"])
    with pytest.raises(CannotConvert, match="holds shards that this command did not write"):
        begin(tmp_path / "others", SETTINGS, WHOLE, 5)


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path):
    begin(tmp_path, SETTINGS, WHOLE, ROWS)
    path = tmp_path / "parts" / "settings.json"
    earlier = json.loads(path.read_bytes())
    del earlier["tar_sha256"]  # which it did not know
    path.write_text(json.dumps(earlier))
    begin(tmp_path, SETTINGS, WHOLE, ROWS)
    with pytest.raises(CannotConvert, match="tar_sha256 None there, 0f now"):
        begin(tmp_path, dataclasses.replace(SETTINGS, tar_sha256="0f"), WHOLE, ROWS)


def test_parts_of_a_folder_have_the_same_settings_and_number(tmp_path: Path):
    begin(tmp_path, SETTINGS, PARTS[0], ROWS)
    other = dataclasses.replace(SETTINGS, size=128)
    with pytest.raises(CannotConvert, match=r"other settings by part 0/3 \(size 256 there, 128 now\): run with those"):
        begin(tmp_path, other, PARTS[1], ROWS)
    with pytest.raises(CannotConvert, match="was begun in 3 parts, and this is part 1/2"):
        begin(tmp_path, SETTINGS, Part(1, 2), ROWS)
    with pytest.raises(CannotConvert, match="was begun in 3 parts, and this is the whole"):
        begin(tmp_path, SETTINGS, WHOLE, ROWS)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["settings-0-of-3.json"], (
        "refused parts leave none"
    )
    begin(tmp_path, SETTINGS, PARTS[1], ROWS)
    begin(tmp_path / "whole", SETTINGS, WHOLE, ROWS)
    with pytest.raises(CannotConvert, match="was begun as a whole, and this is part 0/3"):
        begin(tmp_path / "whole", SETTINGS, PARTS[0], ROWS)


def test_a_merge_is_of_all_parts(tmp_path: Path):
    with pytest.raises(CannotConvert, match="no parts are here to merge"):
        merge(tmp_path)
    finish(tmp_path, PARTS[1])
    begin(tmp_path, SETTINGS, PARTS[2], ROWS)
    write_companion(tmp_path, 4, ["v4"])
    unfinished = r"part 0/3 is missing; part 2/3 is not finished \(1 of 3 shards\): run with --part of those"
    with pytest.raises(CannotConvert, match=unfinished):
        merge(tmp_path)
    finish(tmp_path, PARTS[0])
    finish(tmp_path, PARTS[2])
    assert not (tmp_path / "path.index").exists()
    assert merge(tmp_path) == (7, 7, 0)
    lines = (tmp_path / "path.index").read_text().splitlines()
    assert lines == [f"v{n}\tpath-{n:05d}.tfrecord\t0" for n in range(7)]
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["settings"] == dataclasses.asdict(SETTINGS), "as one machine's, which knows of no parts"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    (tmp_path / "path.index").unlink()
    assert merge(tmp_path) == (7, 7, 0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_merge_names_the_part_that_was_made_otherwise(tmp_path: Path):
    """Parts may be brought together from several disks."""
    for part in PARTS:
        finish(tmp_path, part)
    path = tmp_path / "parts" / "settings-2-of-3.json"
    sound = json.loads(path.read_bytes())
    path.write_text(json.dumps(sound | {"size": 128, "rows": 21}))
    message = r"part 2/3 was made with other settings than part 0/3 \(size 128, not 256; rows 21, not 20\)"
    with pytest.raises(CannotConvert, match=message):
        merge(tmp_path)
    path.rename(path.with_name("settings-2-of-4.json"))
    with pytest.raises(CannotConvert, match="has parts of 3 and of 4"):
        merge(tmp_path)
    (tmp_path / "parts" / "settings-2-of-4.json").rename(tmp_path / "parts" / "settings.json")
    with pytest.raises(CannotConvert, match="was begun as a whole, so there is nothing to merge"):
        merge(tmp_path)
    assert not (tmp_path / "path.index").exists()


@pytest.mark.parametrize("change", [{"rows": "x"}, {"rows": None}, {"clips_per_shard": 0}, {"clips_per_shard": "3"}])
def test_settings_that_no_part_wrote_are_no_parts(tmp_path: Path, change: dict):
    begin(tmp_path, SETTINGS, Part(0, 2), ROWS)
    begin(tmp_path, SETTINGS, Part(1, 2), ROWS)
    for path in (tmp_path / "parts").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(CannotConvert, match="damaged settings"):
        merge(tmp_path)


def test_merges_do_not_run_at_once(tmp_path: Path):
    finish(tmp_path, Part(0, 2))
    with file_lock(tmp_path / "parts" / "lock"), pytest.raises(TimeoutError, match="lock"):
        merge(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"csv'])
def test_damaged_settings_are_named_with_the_remedy(tmp_path: Path, content: bytes):
    (tmp_path / "out" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "parts" / "settings.json").write_bytes(content)
    with pytest.raises(CannotConvert, match=r"settings\.json: damaged .*delete it to go on"):
        begin(tmp_path / "out", SETTINGS, WHOLE, 5)
