"""Object files of videos: what a detector found in the sampled frames, under which names, and when it is done again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dataloaders.frames import Clip, FrameSettings
from tests.videos import write_video
from utils.preparation import extraction
from utils.preparation.class_names import class_mapper
from utils.preparation.detectors import Frame
from utils.preparation.extraction import Extraction, Outcome, extract_all, renamer, write_label_map


@dataclass
class Fixed:
    """Finds the same boxes in every frame; nothing in the videos that it is told not to know."""

    names: tuple[str, ...] = ("Dogs", "unicorn")
    name: str = "fixed"
    settings: dict[str, Any] = field(default_factory=dict)
    unknown_videos: tuple[str, ...] = ()
    change: dict[str, Any] = field(default_factory=dict)

    def detect(self, video_id: str, clip: Clip) -> list[Frame]:
        if video_id in self.unknown_videos:
            raise ValueError(f"nothing is known of {video_id}")
        entry = {"rect": [1, 1, 9, 9], "conf": 0.9}
        return [[{"class": name, **entry, **self.change} for name in self.names] for _ in clip.frames]


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """Two videos of three seconds."""
    return [write_video(tmp_path / "videos" / f"{name}.mp4", 30) for name in ("a", "b")]


def make(folder: Path, detector: Fixed | None = None, max_frames: int = 3, **naming: Any) -> Extraction:
    find = class_mapper(["dog"], {})
    return Extraction(detector or Fixed(), folder / "objects", max_frames, FrameSettings(), find, naming)


def objects_of(folder: Path, video_id: str) -> list[list[str]]:
    """Class names in each frame of an object file."""
    frames = json.loads((folder / "objects" / f"{video_id}.json").read_bytes())
    return [[entry["class"] for entry in frame["objects"]] for frame in frames]


def test_boxes_are_written_under_the_label_maps_names_and_others_counted(videos: list[Path], tmp_path: Path):
    made = make(tmp_path)
    assert made.extract(videos[0]) == 3, "boxes that are kept"
    assert objects_of(tmp_path, "a") == [["dog"]] * 3 and made.unknown == Counter(unicorn=3)
    entry = json.loads((tmp_path / "objects" / "a.json").read_bytes())[0]["objects"][0]
    assert entry == {"class": "dog", "rect": [1, 1, 9, 9], "conf": 0.9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": None}, "what fixed found: class: None is no class name"),
        ({"class": "None"}, "'None' is no class name"),
        ({"conf": float("nan")}, "what fixed found: objects: conf of 'dog' is nan, not a number from 0 to 1"),
        ({"rect": None}, "what fixed found: objects: rect of 'dog' is None, not four numbers"),
        ({"rect": [0.1, 0.1, 0.9, 0.9]}, "what fixed found: its boxes look relative"),
        ({"rect": [40, 30, 9, 9]}, "what fixed found: its boxes make sense as xywh"),
        ({"attributes": 5}, "attributes of 'dog' are 5, not a list of names"),
    ],
)
def test_what_training_would_not_read_is_never_written(
    videos: list[Path], tmp_path: Path, change: dict[str, Any], message: str
):
    detector = Fixed(("dog",), change=change)
    with pytest.raises(ValueError, match=message):
        make(tmp_path, detector).extract(videos[0])
    assert not (tmp_path / "objects").exists()
    outcome = extract_all(make(tmp_path, detector), videos, overwrite=False)
    assert (outcome.done, outcome.boxes, len(outcome.failed)) == (0, 0, 2)


def test_boxes_that_training_drops_are_counted(videos: list[Path], tmp_path: Path):
    made = make(tmp_path, Fixed(("dog",), change={"rect": [70, 5, 90, 20]}))
    assert made.extract(videos[0]) == 3 and made.dropped == 3


def test_the_report_says_which_frames_and_what_from(videos: list[Path], tmp_path: Path):
    made = make(tmp_path, Fixed(settings={"threshold": 0.5}), class_map={"x": "y"})
    made.extract(videos[0])
    report = json.loads((tmp_path / "objects" / "extraction" / "a.json").read_bytes())
    assert (report["video"], report["width"], report["height"], report["fps"]) == ("a.mp4", 64, 48, 10)
    assert report["frame_indices"] == [0, 10, 20]
    source = report["made_from"]
    assert (source["detector"], source["threshold"], source["class_map"]) == ("fixed", 0.5, {"x": "y"})
    assert (source["max_frames"], source["feature_framerate"]) == (3, 1)


def test_a_clip_is_done_until_something_that_it_was_made_from_changes(videos: list[Path], tmp_path: Path):
    assert not make(tmp_path).is_done(videos[0])
    make(tmp_path).extract(videos[0])
    assert make(tmp_path).is_done(videos[0]) and not make(tmp_path).is_done(videos[1])
    assert not make(tmp_path, max_frames=4).is_done(videos[0])
    assert not make(tmp_path, Fixed(name="other")).is_done(videos[0])
    assert not make(tmp_path, Fixed(settings={"threshold": 0.5})).is_done(videos[0])
    assert not make(tmp_path, class_map={"x": "y"}).is_done(videos[0])
    write_video(videos[0], 40)
    assert not make(tmp_path).is_done(videos[0])


@pytest.mark.parametrize("indices", [[0, 10, 20], [0, 11, 20]], ids=["same frames", "other frames"])
def test_a_file_of_an_earlier_frame_rule_counts_if_it_is_of_the_same_frames(
    videos: list[Path], tmp_path: Path, indices: list[int]
):
    """Its report has no version then; a video whose rate varies has other frames now."""
    make(tmp_path).extract(videos[0])
    path = tmp_path / "objects" / "extraction" / "a.json"
    report = json.loads(path.read_bytes())
    assert report["made_from"].pop("frame_rule") == 2
    path.write_text(json.dumps({**report, "frame_indices": indices}))
    assert make(tmp_path).is_done(videos[0]) == (indices == [0, 10, 20])
    assert ("frame_rule" in json.loads(path.read_bytes())["made_from"]) == (indices == [0, 10, 20])


@pytest.mark.parametrize("lost", ["a.json", "extraction/a.json"])
def test_without_its_file_or_its_report_a_clip_is_not_done(videos: list[Path], tmp_path: Path, lost: str):
    make(tmp_path).extract(videos[0])
    (tmp_path / "objects" / lost).unlink()
    assert not make(tmp_path).is_done(videos[0])


@pytest.mark.parametrize("content", ["", "[1]", '{"made_from": 3}', '{"fps": 1', "{}"])
def test_a_clip_with_a_damaged_report_is_done_again(videos: list[Path], tmp_path: Path, content: str):
    made = make(tmp_path)
    made.extract(videos[0])
    assert made.is_done(videos[0])
    (tmp_path / "objects" / "extraction" / "a.json").write_text(content)
    assert not made.is_done(videos[0])


def test_a_run_that_is_killed_before_its_report_leaves_none_that_vouches_for_its_file(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make(tmp_path).extract(videos[0])
    write = extraction.atomic_write_text

    def killed(path: Path, text: str) -> None:
        if path.parent.name == "extraction":
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(extraction, "atomic_write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, Fixed(("dog", "dog"))).extract(videos[0])
    assert objects_of(tmp_path, "a") == [["dog", "dog"]] * 3
    assert not make(tmp_path).is_done(videos[0]), "the file is another run's"


def test_a_clip_that_fails_keeps_the_file_it_had(videos: list[Path], tmp_path: Path):
    make(tmp_path).extract(videos[0])
    with pytest.raises(ValueError, match="nothing is known of a"):
        make(tmp_path, Fixed(unknown_videos=("a",))).extract(videos[0])
    assert make(tmp_path).is_done(videos[0])


def test_videos_that_are_there_are_left_alone_unless_all_are_to_be_done(videos: list[Path], tmp_path: Path):
    make(tmp_path).extract(videos[0])
    assert extract_all(make(tmp_path), videos, overwrite=False) == Outcome(1, 3, [])
    assert extract_all(make(tmp_path), videos, overwrite=False) == Outcome(2, 0, [])
    assert extract_all(make(tmp_path), videos, overwrite=True) == Outcome(0, 6, [])


def test_videos_that_fail_are_named_and_the_others_done(videos: list[Path], tmp_path: Path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    found = extract_all(make(tmp_path, Fixed(unknown_videos=("a",))), [broken, *videos], overwrite=False)
    assert (found.done, found.boxes, len(found.failed)) == (0, 3, 2)
    assert found.failed[0].startswith(f"{broken}: ") and found.failed[1] == f"{videos[0]}: nothing is known of a"
    assert {path.name for path in (tmp_path / "objects").glob("*.json")} == {"b.json"}


def test_two_videos_that_would_write_one_file_are_an_error_before_any_is_written(videos: list[Path], tmp_path: Path):
    with pytest.raises(ValueError, match=r"several videos would write a\.json"):
        extract_all(make(tmp_path), [*videos, tmp_path / "more" / "a.avi"], overwrite=True)
    assert not (tmp_path / "objects").exists()


def test_a_label_map_is_made_of_all_files_in_the_folder(videos: list[Path], tmp_path: Path):
    folder = tmp_path / "objects"
    folder.mkdir()
    assert write_label_map(folder).startswith("no label map: no object with a class in ")
    names = {"unicorn": "horse"}
    made = Extraction(Fixed(("cat", "unicorn")), folder, 3, FrameSettings(), renamer(names), {})
    assert made.extract(videos[0]) == 6 and not made.unknown
    assert write_label_map(folder) == f"{tmp_path / 'objects_label_map.json'}: 2 classes"
    content = json.loads((tmp_path / "objects_label_map.json").read_bytes())
    assert content["label_to_idx"] == {"cat": 1, "horse": 2} and content["object_count"] == {"cat": 3, "horse": 3}
