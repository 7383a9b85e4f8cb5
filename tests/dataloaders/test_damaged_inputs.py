"""Records and object files damaged at random: nothing but the documented errors, and little memory."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dataloaders.object_records import ObjectRules, ObjectSettings, pack_record, read_record, unpack_record
from dataloaders.stored_clips import ShardReader
from dataloaders.stored_frames import stored_candidates
from dataloaders.tfrecord import DamagedRecord, iterate_records
from modules.utils_object_tractor import ObjectFileError, ObjectReport
from tests.tfrecords import encode, record

MEMORY = 150 << 20
NAN, INF = float("nan"), float("inf")
NASTY: list[Any] = [
    None, True, 0, -1, 5, 0.5, 1e308, -1e308, NAN, INF, 2**31, 2**62, 10**300, "", "man", "\ud800", [], {}, [[1]],
    {"a": []},
]  # fmt: skip
LABELS = {"label_to_idx": {"man": 1, "dog": 2}}


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails if the process has grown by more than MEMORY."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """One to four of: a byte flipped or set, a piece cut out, repeated or overwritten, the end cut off."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(data) or 1)
        end = start + draw.randint(1, 12)
        piece = [bytes(end - start), b"\xff" * (end - start), data[start:end] * 2, b"", draw.randbytes(end - start)]
        kind = draw.randrange(7)
        if kind < 5:
            data[start:end] = piece[kind]
        elif kind == 5 and data:
            data[start % len(data)] ^= 1 << draw.randrange(8)
        else:
            del data[max(start, 1) :]
    return bytes(data)


FEATURES: dict[str, list] = {
    "image": [cv2.imencode(".jpg", np.full((24, 32, 3), 90, np.uint8))[1].tobytes()] * 4, "format": [b"jpeg"],
    "video_id": [b"v"], "width": [640], "height": [480], "stored_width": [32], "stored_height": [24], "fps": [30.0],
    "frame_indices": [0, 30, 60, 90], "frame_rule": [2], "feature_framerate": [1.0],
}  # fmt: skip
BAD_VALUES: list[list] = [
    [b""], [b"\xff\xfe"], [b"raw"], [0], [-1], [1], [2**31], [2**62], [2**64 - 1], [0.0], [-1.0], [NAN], [INF], [1e30],
    [1e-30], [1, 2, 3, 4], [4, 3, 2, 1], [0, 1, 2, 2**31 + 5], [0, 1, 2, 2_000_000_000], [NAN] * 4, [b"x"] * 4,
]  # fmt: skip


def read_shard(path: Path) -> bool:
    """Read the record at 0 as training does; False if it is damaged, or its frames are said to be of another rate."""
    reader = ShardReader(path.parent)
    try:
        clip = reader.read(path.name, 0, "v")
        positions = stored_candidates(clip, 1, "v")
        clip.decode(positions[:4])
    except DamagedRecord as error:
        assert path.name in str(error) and "offset 0" in str(error)
        return False
    except ValueError as error:
        assert "the shard lacks frames for --feature_framerate" in str(error)
        return False
    finally:
        reader.close()
    return True


@pytest.mark.filterwarnings("error")
def test_damaged_records(tmp_path: Path):
    draw = random.Random(1)
    shard = tmp_path / "a.tfrecord"
    payload = encode(FEATURES)
    shard.write_bytes(record(payload))
    assert read_shard(shard)
    with little_memory():
        for number in range(400):
            if number % 3 == 0:
                shard.write_bytes(damaged_bytes(record(payload), draw))
            elif number % 3 == 1:
                shard.write_bytes(record(damaged_bytes(payload, draw)))  # the checksum is right
            else:
                names = draw.sample(sorted(FEATURES), draw.randint(1, 2))
                bad = {**FEATURES, **{name: draw.choice(BAD_VALUES) for name in names}}
                without = draw.choice(["", "frame_rule", "video_id", "format"])
                shard.write_bytes(record(encode({name: bad[name] for name in bad if name != without})))
            read_shard(shard)


def object_file() -> list[dict[str, Any]]:
    man = {
        "class": "man",
        "rect": [10, 20, 50, 90.5],
        "conf": 0.5,
        "attributes": ["red", "tall"],
        "attr_scores": [0.9, 0.1],
    }
    dog = {"class": "dog", "rect": [200, 20, 220, 40], "conf": 0.9, "attributes": ["red"], "attr_scores": [0.4]}
    return [{"objects": [dict(man), dict(dog)], "relations": None} for _ in range(3)]


def places(value: Any) -> Iterator[Callable[[Any], None]]:
    """A function for each place in nested lists and dictionaries, which puts another value there."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield lambda new, key=key: value.__setitem__(key, new)
        yield from places(value[key])


def read_objects(path: Path, trajectory: str) -> bool:
    report = ObjectReport(max_examples=1)
    try:
        found = read_record(path, LABELS, ObjectSettings(2, 3, ObjectRules(trajectory=trajectory)), report)
    except ObjectFileError as error:
        assert str(error)
        return False
    assert np.isfinite(found.boxes).all() and not isinstance(unpack_record(pack_record(found)), str)
    assert max(map(len, report.summary())) < 1000
    return True


@pytest.mark.filterwarnings("error")
def test_damaged_object_files(tmp_path: Path):
    draw = random.Random(2)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(object_file()))
    assert read_objects(path, "class") and read_objects(path, "track")
    with little_memory():
        for number in range(300):
            content = object_file()
            if number % 3 == 0:
                path.write_bytes(damaged_bytes(json.dumps(content).encode(), draw))
            else:
                for _ in range(draw.randint(1, 3)):
                    draw.choice(list(places(content)))(draw.choice(NASTY))
                path.write_text(json.dumps(content))
            read_objects(path, ("class", "track")[number % 2])


def test_the_shards_among_the_shared_cases(shared: Path):
    folder = shared / "cases" / "shards"
    if not folder.is_dir():
        pytest.skip("no shared cases")
    assert next(iterate_records(folder / "rec_ok/path-0.tfrecord"))[0] == 0
    for shard in sorted(folder.glob("*/path-0.tfrecord")):
        try:
            clip = ShardReader(shard.parent).read(shard.name, 0, "vid1")
            clip.decode(stored_candidates(clip, 1, "vid1"))
        except DamagedRecord as error:
            assert shard.parent.name != "rec_ok", error
        except ValueError as error:
            assert shard.parent.name == "rec_ok" and "lacks frames" in str(error)
        else:
            assert shard.parent.name == "rec_ok"


def test_the_object_files_among_the_shared_cases(shared: Path):
    folder = shared / "cases" / "objects"
    if not folder.is_dir():
        pytest.skip("no shared cases")
    labels = {"label_to_idx": {"star": 1, "cross": 2}}
    for path in sorted(folder.glob("*.json")):
        report = ObjectReport()
        try:
            read_record(path, labels, ObjectSettings(3, None, ObjectRules(trajectory="track")), report)
        except ObjectFileError as error:
            assert "normalised" in path.name and "relative" in str(error)
        else:
            assert report.malformed_objects, path
