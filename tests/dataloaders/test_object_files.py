"""Objects of a few clips straight from their files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dataloaders.object_files import ObjectFiles
from dataloaders.object_records import ObjectRules, ObjectSettings, record_of_frames
from dataloaders.object_store import ObjectStore, build_object_store
from modules.utils_object_tractor import ObjectFileError, ObjectReport

LABELS = {"label_to_idx": {"man": 1, "dog": 2}}
SETTINGS = ObjectSettings(object_count=2, frames=2)


def write_clip(path: Path, left: int = 10, frames: int = 2) -> None:
    """A man and a dog, both moving to the right, and a second dog that stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = []
    for time in range(frames):
        start = left + 5 * time
        objects = [
            {"class": "man", "rect": [start, 20, start + 40, 90], "conf": 0.5},
            {"class": "dog", "rect": [200 + 5 * time, 20, 220 + 5 * time, 40], "conf": 0.9},
            {"class": "dog", "rect": [100, 50, 110, 60], "conf": 0.2},
        ]
        content.append({"objects": objects})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("trajectory", ["class", "track"])
def test_records_are_those_of_a_store(tmp_path: Path, trajectory: str):
    write_clip(tmp_path / "a.json")
    settings = ObjectSettings(3, 2, ObjectRules(trajectory=trajectory))
    found = ObjectFiles(tmp_path, LABELS, settings).get("a")
    expected = ObjectStore(build_object_store(tmp_path, LABELS, settings)).get("a")
    assert found is not None and expected is not None
    for part, stored in zip(found, expected, strict=True):
        np.testing.assert_array_equal(part, stored)
    assert len(np.unique(found.tracks)) == (3 if trajectory == "track" else 2)
    frames = json.loads((tmp_path / "a.json").read_bytes())
    own = record_of_frames(frames, "a", LABELS, settings, ObjectReport(), np.array([0, 5]))
    for part, stored in zip(own[:4], expected, strict=False):
        np.testing.assert_array_equal(part, stored)
    assert own.frame_indices is not None and own.frame_indices.tolist() == [0, 5]
    with pytest.raises(ObjectFileError, match="has objects for 1 frames, 2 frames are sampled"):
        record_of_frames(frames[:1], "a", LABELS, settings, ObjectReport(), np.array([0]))


def test_files_are_found_in_both_folders_and_absent_ones_are_none(tmp_path: Path):
    write_clip(tmp_path / "a.json", left=10)
    write_clip(tmp_path / "tsv_files/a.json", left=30)
    write_clip(tmp_path / "tsv_files/b.json", left=50)
    files = ObjectFiles(tmp_path, LABELS, SETTINGS)
    assert files.path("a") == tmp_path / "a.json" and files.path("b") == tmp_path / "tsv_files/b.json"
    lefts = {name: record.boxes[0, 0, 0] for name in "ab" if (record := files.get(name))}
    assert lefts == {"a": 10, "b": 50}
    assert files.path("c") is None and files.get("c") is None


def test_a_file_is_read_when_it_is_asked_for(tmp_path: Path):
    files = ObjectFiles(tmp_path, LABELS, SETTINGS)
    assert files.get("a") is None
    write_clip(tmp_path / "a.json")
    assert files.get("a") is not None


def test_unusable_files_are_named_with_the_remedy(tmp_path: Path):
    write_clip(tmp_path / "short.json", frames=1)
    (tmp_path / "broken.json").write_text("[{")
    files = ObjectFiles(tmp_path, LABELS, SETTINGS)
    for name, reason in (("short", "1 frames, 2 frames"), ("broken", "JSON")):
        with pytest.raises(ValueError, match=rf"{name}\.json: .*{reason}.*utils/extract_objects\.py with the same"):
            files.get(name)


def test_no_folder_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"gone: no such folder of object files \(--object_path\)"):
        ObjectFiles(tmp_path / "gone", LABELS, SETTINGS)
