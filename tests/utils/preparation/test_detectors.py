"""Where boxes come from: VinVL's output and files made before, by frame, and whose class names they have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders.frames import Clip
from utils.preparation.detectors import Frame, PrecomputedDetections, VinVLDetections, class_mapper

# Three frames are sampled of 25.
CLIP = Clip([np.zeros((48, 64, 3), np.uint8)] * 3, 64, 48, 10.0, np.array([0, 10, 20]), 25, 25)


def frame(name: str) -> Frame:
    """A frame with one box."""
    return [{"class": name, "rect": [1.0, 2.0, 3.0, 4.0], "conf": 0.9}]


def write_tsv(path: Path, **frames: Frame) -> Path:
    """VinVL's predictions.tsv."""
    lines = [f"{key}\t{json.dumps({'objects': objects, 'relations': []})}\n" for key, objects in frames.items()]
    path.write_text("".join(lines))
    return path


def names(frames: list[Frame]) -> list[list[str]]:
    return [[entry["class"] for entry in objects] for objects in frames]


def test_class_names_are_found_but_for_case_signs_and_plural():
    find = class_mapper(["dog", "street sign", "glasses"], {"Hund": "dog"})
    assert [find(name) for name in ("dog", "Dogs", "street_sign", "glass", "Hund", "cat", "Glasses")] == [
        "dog", "dog", "street sign", None, "dog", None, "glasses",
    ]  # fmt: skip


def test_a_name_as_it_is_comes_before_those_that_only_look_alike():
    find = class_mapper(["T-shirt", "t shirt", "dogs"], {"cat": "t shirt", "shirt": "trousers"})
    assert [find(name) for name in ("t shirt", "T-shirt", "t_shirt", "cat", "shirt", "dog")] == [
        "t shirt", "T-shirt", "T-shirt", "t shirt", None, "dogs",
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".tsv", ".json"])
def test_vinvls_rows_are_the_sampled_frames_in_the_order_of_their_numbers(tmp_path: Path, suffix: str):
    frames = {f"v_1_{number}": frame(name) for number, name in ((10, "b"), (9, "a"), (11, "c"))} | {"w/1.jpg": []}
    path = write_tsv(tmp_path / "p.tsv", **frames)
    if suffix == ".json":
        path = tmp_path / "p.json"
        path.write_text(json.dumps({key: {"objects": objects} for key, objects in frames.items()}))
    found = VinVLDetections(path)
    assert names(found.detect("v_1", CLIP)) == [["a"], ["b"], ["c"]]
    with pytest.raises(ValueError, match="w: 1 frames, but 3 are sampled"):
        found.detect("w", CLIP)
    with pytest.raises(ValueError, match=r"p\..* has no frame of x"):
        found.detect("x", CLIP)


def test_vinvls_numbers_may_be_those_of_the_frames_in_the_video(tmp_path: Path):
    every = {f"v_{number}": frame(f"at {number}") for number in range(25)}
    path = write_tsv(tmp_path / "p.tsv", **every)
    assert names(VinVLDetections(path, frame_numbers="index").detect("v", CLIP)) == [["at 0"], ["at 10"], ["at 20"]]
    del every["v_10"]
    with pytest.raises(ValueError, match=r"24 frames, without \[10\], which the frame rule picks"):
        VinVLDetections(write_tsv(path, **every), frame_numbers="index").detect("v", CLIP)


def test_keys_may_have_another_form(tmp_path: Path):
    path = write_tsv(tmp_path / "p.tsv", **{f"{number}-of-v_1": frame(str(number)) for number in (1, 2, 3)})
    found = VinVLDetections(path, r"(?P<frame>\d+)-of-(?P<video>.+)")
    assert names(found.detect("v_1", CLIP)) == [["1"], ["2"], ["3"]]
    with pytest.raises(ValueError, match=r"--key_pattern .* has no groups \(\?P<video>...\) and"):
        VinVLDetections(path, r"(?P<video>.+)")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.tsv", "v_1\t{", r"p\.tsv, line 1 is not JSON"),
        ("p.tsv", 'v_0\t{"objects": []}\nv_1\t{"boxes": []}', r"p\.tsv, key 'v_1': no list 'objects'"),
        ("p.json", "{", r"p\.json is not JSON"),
        ("p.json", "[1]", r"p\.json is not an object of frames by key"),
        ("p.json", '{"v": []}', "key 'v' does not match --key_pattern"),
    ],
)
def test_damaged_output_is_named_with_its_place(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        VinVLDetections(tmp_path / name)


def test_output_that_is_not_there_is_named_by_its_flag(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.tsv: no such file \(--detections\)"):
        VinVLDetections(tmp_path / "none.tsv")
    with pytest.raises(FileNotFoundError, match=r"none: no such folder \(--detections\)"):
        PrecomputedDetections(tmp_path / "none")


def test_the_report_of_vinvls_output_says_all_that_its_boxes_depend_on(tmp_path: Path):
    path = write_tsv(tmp_path / "p.tsv", v_1=[])
    one, other = VinVLDetections(path), VinVLDetections(path, frame_numbers="index")
    assert one.name == "VinVL output, p.tsv" and one.settings != other.settings
    assert VinVLDetections(path).settings == one.settings
    assert VinVLDetections(write_tsv(path, v_1=frame("dog"))).settings != one.settings


def precomputed(folder: Path, content: Any) -> list[list[str]]:
    (folder / "v.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return names(PrecomputedDetections(folder).detect("v", CLIP))


def test_files_made_before_are_of_numbered_frames_of_all_or_of_the_sampled_ones(tmp_path: Path):
    numbered = [{"frame": number, "objects": frame(str(number))} for number in (20, 10, 5, 0)]
    assert precomputed(tmp_path, numbered) == [["0"], ["10"], ["20"]]
    every = [{"objects": frame(str(number))} for number in range(25)]
    assert precomputed(tmp_path, every) == [["0"], ["10"], ["20"]]
    assert precomputed(tmp_path, every[:3]) == [["0"], ["1"], ["2"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"objects": []}] * 24, r"24 frames, but 3 are sampled: \[0, 10, 20\]"),
        ([{"frame": 0, "objects": []}, {"frame": 20, "objects": []}], r"2 frames, without \[10\]"),
        ([{"frame": 0, "objects": []}, {"objects": []}], '"frame" is to be a number in every entry, or in none'),
        ([[]] * 3, "is not a list with an entry per frame"),
        ({"objects": []}, "is not a list with an entry per frame"),
        ([{"frame": True, "objects": []}] * 3, '"frame" is to be a number in every entry'),
        ([{"frame": 0, "objects": []}, {"frame": 0, "objects": []}], 'two entries have the same "frame"'),
        ([{"boxes": []}] * 3, "entry 0: no list 'objects'"),
        ([{"objects": [7]}] * 3, 'entry 0: object 0 is 7, without a "class" that is a name'),
        ([{"objects": [{"class": None}]}] * 3, 'entry 0: object 0 is .*, without a "class" that is a name'),
        ("[", "is not JSON"),
    ],
)
def test_files_that_do_not_fit_the_clip_are_never_guessed_at(tmp_path: Path, content: Any, message: str):
    with pytest.raises(ValueError, match=message):
        precomputed(tmp_path, content)


def test_a_clip_without_a_file_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"w\.json: no such file"):
        PrecomputedDetections(tmp_path).detect("w", CLIP)
