"""Boxes that others found: VinVL's output, COCO results and a file of records per video, by frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloaders.frames import Clip
from utils.preparation.detection_files import (
    FROM_FILES,
    KEY_PATTERN,
    CocoDetections,
    PrecomputedDetections,
    VinVLDetections,
    detections_from_files,
)
from utils.preparation.detectors import Frame

# Three frames are sampled of 25.
CLIP = Clip([np.zeros((48, 64, 3), np.uint8)] * 3, 64, 48, 10.0, np.array([0, 10, 20]), 25, 25)
THING = {"class": "dog", "rect": [10, 20, 30, 40], "conf": 0.9}
EDGES = {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 40}
PIPELINE = {"label": "dog", "score": 0.9, "box": EDGES}


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
    with pytest.raises(ValueError, match=r"--key_pattern '\(' is no regular expression: "):
        VinVLDetections(path, "(")
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
        ("p.json", '{"v_1": [], "v_1": []}', r"p\.json is not JSON: a dictionary has 'v_1' twice"),
        ("p.tsv", "v_1\t[]\nv_1\t[]", "key 'v_1': frame 1 of 'v' is there twice"),
        ("p.tsv", "v_1\t[]\nv_01\t[]", "key 'v_01': frame 1 of 'v' is there twice"),
        ("p.tsv", f"v_{'9' * 5000}\t[]", r"p\.tsv: key 'v_999.* does not match --key_pattern"),
        ("p.tsv", "v_\u0663\t[]", "does not match --key_pattern"),
        ("p.tsv", 'v_1\t[{"conf": NaN}]', r"p\.tsv, line 1 is not JSON: NaN is no value of JSON"),
        ("p.tsv", 'v_1\t[{"rect": [0, 0, 1, 1]}]', "key 'v_1': object 0 is .*, without \"class\"; records have"),
        ("p.tsv", "v_1\t[]\nv_2\t\0[]", r"p\.tsv, line 2: a NUL character"),
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
        ([3] * 3, "is not a list with an entry per frame"),
        ({"objects": []}, "is not a list with an entry per frame"),
        ([{"frame": True, "objects": []}] * 3, '"frame" is to be a number in every entry'),
        ([{"frame": 0, "objects": []}, {"frame": 0, "objects": []}], 'two entries have the same "frame"'),
        ([{"boxes": []}] * 3, "entry 0: no list 'objects'"),
        ([{"objects": [7]}] * 3, 'entry 0: object 0 is 7, not a record with "class", "rect", "conf"'),
        ([{"objects": [{**THING, "class": None}]}] * 3, 'entry 0: object 0: "class" is None, not a name'),
        ([[], [{**THING, "class": "None"}], []], "entry 1: object 0: \"class\" is 'None', not a name"),
        ([[{**THING, "conf": 1.5}], [], []], 'entry 0: object 0: "conf" is 1.5, not a number from 0 to 1'),
        ([[{**PIPELINE, "label": "null"}], [], []], "object 0: \"label\" is 'null', not a name"),
        ('[[{"label": "dog", "score": NaN, "box": [1, 2, 3, 4]}]]', "NaN is no value of JSON"),
        ([[], {"objects": []}, []], "is not a list with an entry per frame"),
        ("[", "is not JSON"),
    ],
)
def test_files_that_do_not_fit_the_clip_are_never_guessed_at(tmp_path: Path, content: Any, message: str):
    with pytest.raises(ValueError, match=message):
        precomputed(tmp_path, content)


def test_a_clip_without_a_file_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"w\.json: no such file"):
        PrecomputedDetections(tmp_path).detect("w", CLIP)


@pytest.mark.parametrize("box", [EDGES, [10, 20, 30, 40]], ids=["edges", "list"])
@pytest.mark.parametrize("is_plain", [False, True])
def test_records_of_pipelines_become_those_of_object_files(tmp_path: Path, box: Any, is_plain: bool):
    entries = [[{**PIPELINE, "box": box, "attributes": ["brown"]}], [], [THING]]
    (tmp_path / "v.json").write_text(json.dumps(entries if is_plain else [{"objects": own} for own in entries]))
    found = PrecomputedDetections(tmp_path).detect("v", CLIP)
    assert found == [[{**THING, "attributes": ["brown"]}], [], [THING]]


def test_a_changed_file_of_a_folder_is_told_by_the_settings(tmp_path: Path):
    before = PrecomputedDetections(tmp_path).settings
    (tmp_path / "v.json").write_text("[]")
    assert PrecomputedDetections(tmp_path).settings != before


IMAGES = [{"id": 7 - n, "file_name": f"v/{n:05d}.jpg", "width": 64, "height": 48} for n in range(3)]
CATEGORIES = [{"id": 18, "name": "dog", "supercategory": "animal"}, {"id": 1, "name": "person"}]
RESULTS = [
    {"image_id": 7, "category_id": 18, "bbox": [10, 20, 20, 20], "score": 0.9, "segmentation": [[1, 2, 3, 4]]},
    {"image_id": 5, "category_id": 1, "bbox": [0, 0, 64, 48], "score": 0.5},
    {"image_id": 7, "category_id": 1, "bbox": [40.5, 4.5, 20, 40], "score": 1},
]


def coco(folder: Path, results: Any = RESULTS, **named: Any) -> CocoDetections:
    """Results and the file that describes their images, read."""
    described = {"images": named.pop("images", IMAGES), "categories": named.pop("categories", CATEGORIES)}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "images.json").write_text(json.dumps({**described, "annotations": []}))
    return CocoDetections(folder / "results.json", folder / "images.json", **named)


def test_coco_results_are_boxes_of_their_images_frames(tmp_path: Path):
    expected = [
        [THING, {"class": "person", "rect": [40.5, 4.5, 60.5, 44.5], "conf": 1}],
        [],
        [{"class": "person", "rect": [0, 0, 64, 48], "conf": 0.5}],
    ]
    found = coco(tmp_path)
    assert found.detect("v", CLIP) == expected and found.name == "COCO results, results.json"
    whole = {"images": IMAGES, "categories": CATEGORIES, "annotations": RESULTS}
    (tmp_path / "whole.json").write_text(json.dumps(whole))
    assert CocoDetections(tmp_path / "whole.json").detect("v", CLIP) == expected
    numbered = [{**image, "file_name": f"v_{10 * n}"} for n, image in enumerate(IMAGES)]
    more = [*numbered, {"id": "x", "file_name": "v_3"}]
    assert coco(tmp_path, images=more, frame_numbers="index").detect("v", CLIP) == expected
    with pytest.raises(ValueError, match=r"has no frame of w; by --key_pattern its videos are v"):
        found.detect("w", CLIP)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": None}, 'result 1: "score" is None, not a number from 0 to 1'),
        ({"score": 1.5}, 'result 1: "score" is 1.5'),
        ({"bbox": [1, 2, 3]}, r'result 1: "bbox" is \[1, 2, 3\], not four finite numbers'),
        ({"bbox": EDGES}, 'result 1: "bbox" names its edges, so it is not xywh'),
        ({"category_id": 2}, 'result 1: "category_id" is 2, which is no id of the categories of'),
        ({"category_id": "18"}, "result 1: \"category_id\" is '18', which is no id of the categories of"),
        ({"image_id": 3}, 'result 1: "image_id" is 3, which is no id of the images of'),
        ({"image_id": True}, 'result 1: "image_id" is True, which is no id'),
        ({"image_id": [7]}, r'result 1: "image_id" is \[7\], which is no id'),
    ],
)
def test_a_result_that_is_none_is_named_with_its_field(tmp_path: Path, change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=rf"results\.json, {message}"):
        coco(tmp_path, [RESULTS[0], {**RESULTS[1], **change}])


@pytest.mark.parametrize("field", ["image_id", "category_id", "bbox", "score"])
def test_a_result_without_a_field_is_named(tmp_path: Path, field: str):
    with pytest.raises(ValueError, match=rf'results\.json, result 0 is .*, without "{field}"'):
        coco(tmp_path, [{name: value for name, value in RESULTS[0].items() if name != field}])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"images": 3}, r"images\.json has no list 'images'; give a COCO file"),
        ({"categories": None}, r"images\.json has no list 'categories'"),
        ({"images": [{"id": 7}]}, r'images\.json: images 0 is .*, without an "id" or a "file_name" that is text'),
        ({"images": [*IMAGES, IMAGES[0]]}, r'images\.json: images 3: "id" 7 is there twice'),
        ({"images": [*IMAGES, {**IMAGES[0], "id": 9}]}, "frame 0 of 'v' is there twice"),
        ({"images": [{**IMAGES[0], "file_name": "v.jpg"}]}, "key 'v.jpg' does not match --key_pattern"),
        ({"categories": [{"id": 18, "name": "None"}]}, "category 18: 'None' is no class name"),
        ({"results": {"images": []}}, r"results\.json is neither a list of results nor a COCO file"),
        ({"results": 5}, r"results\.json is neither a list of results nor a COCO file"),
        ({"results": [5]}, r'results\.json, result 0 is 5, without "image_id"'),
    ],
)
def test_coco_files_of_another_form_are_named(tmp_path: Path, parts: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        coco(tmp_path, **{"results": [], **parts})


def test_coco_results_alone_say_what_is_missing(tmp_path: Path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    with pytest.raises(ValueError, match=r'results\.json has no "images" and "categories"; give .*--coco_annotations'):
        CocoDetections(tmp_path / "results.json")
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file \(--coco_annotations\)"):
        CocoDetections(tmp_path / "results.json", tmp_path / "none.json")


def test_images_of_another_size_than_the_video_are_an_error(tmp_path: Path):
    small = [{**image, "width": 32, "height": 24} for image in IMAGES]
    with pytest.raises(ValueError, match="v: its images are 32x24, the video is 64x48; scale the boxes"):
        coco(tmp_path, images=small).detect("v", CLIP)
    shares = [{**result, "bbox": [0.25, 0.25, 0.5, 0.5]} for result in RESULTS]
    found = coco(tmp_path, shares, images=small, box_format="relative_xywh").detect("v", CLIP)
    assert found[0][0]["rect"] == [16, 12, 48, 36]


def test_a_format_that_there_is_not_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="--box_format xy: it is one of xyxy, "):
        PrecomputedDetections(tmp_path, "xy")


def test_each_kind_is_made_by_its_name(tmp_path: Path):
    coco(tmp_path)
    tsv, described = write_tsv(tmp_path / "p.tsv", v_1=[]), tmp_path / "images.json"
    made = {
        "vinvl": detections_from_files("vinvl", tsv, None, KEY_PATTERN, "index", "xywh"),
        "coco": detections_from_files("coco", tmp_path / "results.json", described, KEY_PATTERN, "index"),
        "precomputed": detections_from_files("precomputed", tmp_path, box_format="xywh"),
    }
    kinds = [VinVLDetections, CocoDetections, PrecomputedDetections]
    assert tuple(made) == FROM_FILES and [type(one) for one in made.values()] == kinds
    assert [one.box_format for one in made.values()] == ["xywh"] * 3
    assert made["vinvl"].settings["frame_numbers"] == made["coco"].settings["frame_numbers"] == "index"
