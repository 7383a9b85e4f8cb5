"""The choice of objects in both rules, and what is said about bad object files."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.utils_object_tractor import (
    ObjectFileError,
    ObjectReport,
    choose_objects,
    load_object_file,
    object_loader_confident,
    trajectory_ids,
)

LABELS = {"label_to_idx": {"man": 1, "dog": 2, "ball": 3, "tree": 4, "car": 5}}


def thing(name: str, rect: Sequence[float], conf: float = 0.9, **more: Any) -> dict[str, Any]:
    return {"class": name, "rect": list(rect), "conf": conf, **more}


def load(folder: Path, *frames: list[dict[str, Any]], count: int = 3, **settings: Any) -> tuple[Any, ObjectReport]:
    path = folder / "clip.json"
    path.write_text(json.dumps([{"objects": frame} for frame in frames]))
    report = ObjectReport()
    return object_loader_confident([("clip", path)], count, LABELS, report=report, **settings).get("clip"), report


MAN, SECOND_MAN = thing("man", [0, 0, 50, 100]), thing("man", [200, 0, 240, 100], 0.8)


def test_second_instance_of_a_class_is_kept_when_intended_and_dropped_as_released(tmp_path: Path) -> None:
    intended, report = load(tmp_path, [MAN, SECOND_MAN])
    assert intended["obj_cls"].tolist() == [[1, 1, 0]]
    assert intended["obj_cls"].dtype == np.int64
    assert intended["objects"].dtype == np.float32
    assert intended["objects"].tolist() == [[[0, 0, 50, 100], [200, 0, 240, 100], [-1, -1, -1, -1]]]
    assert intended["conf_set"] == {1: pytest.approx(1.7)}
    assert report.problems() == {}
    released, _ = load(tmp_path, [MAN, SECOND_MAN], rule="released")
    assert released["obj_cls"].tolist() == [[1, 0, 0]]


def test_overlap_is_won_by_confidence_when_intended_and_by_file_order_as_released(tmp_path: Path) -> None:
    frame = [thing("dog", [0, 0, 100, 100], 0.3), thing("man", [0, 0, 100, 90], 0.95)]
    assert load(tmp_path, frame)[0]["obj_cls"].tolist() == [[1, 0, 0]]
    assert load(tmp_path, frame, rule="released")[0]["obj_cls"].tolist() == [[2, 0, 0]]


def test_the_most_confident_are_kept_and_listed_by_area(tmp_path: Path) -> None:
    frame = [
        thing("man", [0, 0, 10, 10], 0.9),
        thing("dog", [100, 0, 130, 30], 0.8),
        thing("ball", [200, 0, 220, 20], 0.7),
        thing("tree", [300, 0, 400, 100], 0.1),
    ]
    for rule in ("intended", "released"):
        assert load(tmp_path, frame, count=1, rule=rule)[0]["obj_cls"].tolist() == [[2]]
        assert load(tmp_path, frame, count=2, rule=rule)[0]["obj_cls"].tolist() == [[4, 2]]


def test_released_stops_at_twice_the_object_count_in_file_order(tmp_path: Path) -> None:
    frame = [
        thing("man", [0, 0, 10, 10], 0.1),
        thing("dog", [50, 0, 60, 10], 0.2),
        thing("tree", [90, 0, 190, 90], 0.9),
    ]
    assert load(tmp_path, frame, count=1, rule="released")[0]["obj_cls"][0, 0] != 4
    assert load(tmp_path, frame, count=1)[0]["obj_cls"].tolist() == [[4]]


def test_trajectories_are_cut_by_confidence_when_intended_and_by_appearance_as_released() -> None:
    conf_set = {3: 0.2, 1: 0.9, 2: 1.5}
    assert trajectory_ids(conf_set, 1).tolist() == [2, 1]
    assert trajectory_ids(conf_set, 1, "released").tolist() == [3, 1]
    assert trajectory_ids(conf_set, 2).tolist() == [2, 1, 3, 0]
    assert trajectory_ids({}, 2).dtype == np.int64


def test_attribute_sentence_has_two_attributes_and_one_colour(tmp_path: Path) -> None:
    man = thing("man", [0, 0, 50, 100], attributes=["red", "blue", "young", "tall"], attr_scores=[0.9, 0.8, 0.7, 0.1])
    clip, _ = load(tmp_path, [man, thing("dog", [100, 0, 120, 20])])
    assert clip["attr_sentence"] == "red young man, dog"


def test_every_bad_box_is_counted_with_its_file_and_the_rest_is_used(tmp_path: Path) -> None:
    frame = [
        MAN,
        thing("dog", [10, 10, 10, 40]),
        thing("dog", [float("nan"), 0, 10, 10]),
        thing("dog", [-50, 0, -10, 10]),
        thing("ball", [400, 0, 420, 20]),
        thing("tree", [300, 200, 350, 250]),
        thing("unicorn", [0, 0, 9, 9]),
        {"class": "dog", "conf": 0.5},
        thing("dog", [1, 2, 3, 4], conf=None),  # type: ignore[arg-type]
        thing("dog", [10**400, 2, 3, 4]),
    ]
    clip, report = load(tmp_path, frame, frame_sizes={"clip": (320, 240)})
    assert clip["obj_cls"].tolist() == [[1, 4, 0]]
    assert clip["objects"][0, 1].tolist() == [300, 200, 320, 240]
    expected = {"malformed_objects": 4, "unknown_classes": 1, "degenerate_boxes": 1, "outside_boxes": 2}
    assert report.problems() == {**expected, "clipped_boxes": 1}
    assert report.boxes == len(frame)
    assert report.kept_boxes == 2
    assert all("clip.json" in line for line in report.summary()[1:])


def test_without_frame_size_only_negative_coordinates_are_outside(tmp_path: Path) -> None:
    clip, report = load(tmp_path, [thing("dog", [-50, 0, -10, 10]), thing("ball", [4000, 0, 4200, 20])])
    assert clip["obj_cls"].tolist() == [[3, 0, 0]]
    assert report.problems() == {"outside_boxes": 1}


def test_unusable_files_are_reported_and_left_out(tmp_path: Path) -> None:
    contents = {"broken": "[{", "no_list": "{}", "binary": "\x00\x01", "short": json.dumps([{"objects": []}] * 3)}
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    good = json.dumps([{"objects": [MAN]}] * 2)
    (tmp_path / "good").write_text(good)
    report = ObjectReport()
    names = [*contents, "absent", "good"]
    paths = [(name, tmp_path / name) for name in names]
    clips = object_loader_confident(paths, 2, LABELS, expected_frames=2, report=report)
    assert list(clips) == ["good"]
    assert report.problems() == {"missing_files": 1, "broken_files": 3, "wrong_frame_counts": 1}
    assert "3 frames, 2 frames" in "\n".join(report.summary())


def test_boxes_with_sides_are_named_with_how_to_convert_them(tmp_path: Path) -> None:
    frame = [thing("man", [100, 200, 300, 50]), thing("dog", [400, 300, 60, 90]), thing("dog", [50, 200, 20, 80])]
    clip, report = load(tmp_path, frame)
    assert clip is None and report.problems() == {"rect_order_files": 1}
    assert "make sense as xywh, not as xyxy; make the files anew with utils/extract_" in report.summary()[1]
    assert "--box_format xywh" in report.summary()[1] and "--rect_order" not in report.summary()[1]


@pytest.mark.parametrize("name", ["None", "null", "nan", " ", None, 5])
def test_what_stands_for_a_missing_name_is_no_class(tmp_path: Path, name: object) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"objects": [{**MAN, "class": name}]}]))
    report = ObjectReport()
    clip = load_object_file(path, 1, {"label_to_idx": {"man": 1, "None": 2, "null": 3, "nan": 4, " ": 5}}, report)
    assert not clip["conf_set"] and report.malformed_objects == 1 and "class" in "\n".join(report.summary())


def test_the_other_rect_order_is_named(tmp_path: Path) -> None:
    rects = [[10, 60, 150, 200], [100, 180, 20, 90]]  # x1, x2, y1, y2
    frame = [thing("man", rects[0]), thing("dog", rects[1])]
    clip, report = load(tmp_path, frame)
    assert clip is None
    assert report.problems() == {"rect_order_files": 1}
    assert report.summary()[1].endswith("make sense as xxyy, not as xyxy; try --rect_order xxyy")
    clip, report = load(tmp_path, frame, rect_order="xxyy")
    assert clip["objects"][0, 0].tolist() == [100, 20, 180, 90]
    assert not report.problems()


def test_without_a_report_problems_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert object_loader_confident([("a", tmp_path / "a.json")], 2, LABELS) == {}
    assert "a.json" in caplog.text


def test_frames_without_objects_and_null_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "clip.json"
    path.write_text(json.dumps([{"objects": None, "relations": None}, {"objects": []}]))
    report = ObjectReport()
    clip = object_loader_confident([("clip", path)], 2, LABELS, report=report)["clip"]
    assert (clip["objects"] == -1).all()
    assert clip["attr_sentence"] == ""
    assert report.problems() == {"clips_without_objects": 1}


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="intended, released"):
        object_loader_confident([], 10, LABELS, rule="best")
    with pytest.raises(ValueError, match="at least 1"):
        object_loader_confident([], 0, LABELS)


def test_reports_merge() -> None:
    first, second = ObjectReport(), ObjectReport(files=2, boxes=5)
    for number in range(4):
        first.note("broken_files", f"a{number}")
        second.note("broken_files", f"b{number}")
    first.merge(second)
    assert first.broken_files == 8
    assert first.examples["broken_files"] == ["a0", "a1", "a2", "a3", "b0"]
    assert first.summary()[1].endswith("and 3 more")
    assert ObjectReport(**json.loads(json.dumps(first.as_dict()))) == first


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("part", "values", "problem"),
    [
        ("class", [5, ["man"], {}, None], "malformed_objects"),
        ("rect", [["1"] * 4, [True] * 4, [1] * 3, [1] * 5, [[1]] * 4, "1234", 5, {}, None], "malformed_objects"),
        ("rect", [[1e308] * 4, [-1e308, -1e308, 1e308, 1e308]], "degenerate_boxes"),
        ("rect", [[0, 0, INF, 9], [NAN] * 4], "malformed_objects"),
        ("conf", [NAN, INF, -3, 900, 1.1, "0.9", True, None, [0.9], {}, 10**300], "malformed_objects"),
        ("attributes", [5, 0.5, "red", {"red": 1}, [["red"]], [None], True, ["a"] * 2000], "malformed_objects"),
        ("attr_scores", [5, 0.5, "red", {"red": 1}, [[0.5]], ["0.5"], True], "malformed_objects"),
    ],
)
def test_an_object_with_a_part_of_the_wrong_kind_is_left_out(
    tmp_path: Path, part: str, values: list[Any], problem: str
) -> None:
    dog = thing("dog", [100, 0, 130, 30], attributes=["red"], attr_scores=[0.9])
    for value in values:
        clip, report = load(tmp_path, [{**dog, part: value}, MAN])
        assert clip["obj_cls"].tolist() == [[1, 0, 0]], value
        assert report.problems() == {problem: 1}, value
        assert len(report.examples[problem][0]) < 400


def test_the_value_of_a_wrong_confidence_is_in_the_example_and_rounding_is_none(tmp_path: Path) -> None:
    _, report = load(tmp_path, [thing("dog", [100, 0, 130, 30], -3.5), MAN])
    assert "conf of 'dog' is -3.5, not a number from 0 to 1" in report.examples["malformed_objects"][0]
    rounded = float(np.nextafter(np.float32(1), np.float32(2)))
    clip, report = load(tmp_path, [thing("dog", [100, 0, 130, 30], rounded)])
    assert clip["confidences"][0, 0] == rounded and not report.problems()


@pytest.mark.parametrize("scores", [[NAN], [INF], [1e308], None, []])
def test_attributes_without_usable_scores_do_not_cost_the_box(tmp_path: Path, scores: list[float] | None) -> None:
    clip, report = load(tmp_path, [thing("dog", [100, 0, 130, 30], attributes=["red"], attr_scores=scores)])
    assert clip["attr_sentence"] == ("dog" if scores else "red dog") and not report.problems()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 2500 + b"]" * 2500, "deep"),
        (b"[" * 100_000, "deep"),
        (b'{"a":' * 100_000, "deep"),
        (b"\xff\xfe\xff", "UTF-16"),
        (b'[{"objects": "\xe9"}]', "line 1: not UTF-8"),
        (b"\x00" * 64, "NUL"),
        (b'[{"objects": []}]\x00', "NUL"),
        (b"", "JSON"),
        (b'[{"objects": [5%s]}]' % (b"0" * 9000), "digits"),
        (b"5", "not a list"),
        (b"null", "not a list"),
        (b"[" + b"{}," * 70_000 + b"{}]", "70001 frames"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    report = ObjectReport()
    assert object_loader_confident([("a", path)], 2, LABELS, report=report) == {}
    assert report.problems() == {"broken_files": 1} and reason in report.examples["broken_files"][0]


def test_what_is_no_file_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to("gone.json")
    (tmp_path / "loop.json").symlink_to("loop.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**40)
    for name in ("folder", "pipe", "link", "loop", "large"):
        with pytest.raises(ObjectFileError, match=r"a folder|a pipe|link to gone|symbolic links|bytes") as caught:
            load_object_file(tmp_path / f"{name}.json", 2, LABELS, ObjectReport())
        assert caught.value.problem == "broken_files"

    def refuse(path: Path, *_: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "secret.json").write_text("[]")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ObjectFileError, match="Permission denied"):
        load_object_file(tmp_path / "secret.json", 2, LABELS, ObjectReport())


def test_a_byte_order_mark_and_long_numbers_do_not_cost_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    good = json.dumps([{"objects": [MAN]}])
    path.write_bytes(b"\xef\xbb\xbf" + good.encode())
    assert load_object_file(path, 1, LABELS, ObjectReport())["obj_cls"].tolist() == [[1]]
    for digits in ("9" * 4000, "9" * 9000 + ".5"):
        path.write_text(json.dumps([{"objects": [MAN, thing("dog", [0, 0, 77, 9])]}]).replace("77", digits))
        report = ObjectReport()
        assert load_object_file(path, 1, LABELS, report)["obj_cls"].tolist() == [[1]]
        assert report.problems() == {"malformed_objects": 1}


def test_frames_of_the_wrong_kind_are_without_objects_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([5, None, "x", [MAN], {"objects": 5}, {"objects": {"a": MAN}}, {"objects": [5, MAN]}]))
    report = ObjectReport()
    clip = load_object_file(path, 1, LABELS, report)
    assert clip["obj_cls"].ravel().tolist() == [0] * 6 + [1] and report.problems() == {"malformed_objects": 7}


def test_relative_boxes_are_told_from_boxes_in_pixels(tmp_path: Path) -> None:
    relative = [thing("man", [0.1, 0.2, 0.5, 1.01]), thing("dog", [0, 0, 1, 1])]
    for order in ("xyxy", "xxyy"):
        clip, report = load(tmp_path, relative, rect_order=order)
        assert clip is None and report.problems() == {"broken_files": 1}
        assert "its boxes look relative (0 to 1, as x1, y1, x2, y2); boxes in pixels are exp" in report.summary()[1]
    clip, report = load(tmp_path, [*relative, MAN])
    assert clip is not None and report.kept_boxes == 1 and report.problems() == {"degenerate_boxes": 2}
    assert load(tmp_path, [thing("dog", [0, 0, 0, 0])])[0] is not None
    assert load(tmp_path, [])[0] is not None


@pytest.mark.parametrize(
    ("rects", "names"),
    [
        ([[0.2, 0.5, 0.6, 0.9], [0.7, 0.7, 0.9, 0.8]], "x1, y1, x2, y2"),
        ([[0.5, 0.6, 0.1, 0.2], [0.3, 0.1, 0.3, 0.9]], "x, y, width, height"),
        ([[0.9, 0.5, 0.2, 0.3], [0.5, 0.8, 0.1, 0.4]], "centre x, centre y, width, height"),
        ([[0.1, 0.9, 0.5, 0.6], [0.0, 0.3, 0.8, 0.9]], "x1, x2, y1, y2"),
        ([[0.3, 0.3, 0.4, 0.4]], "x1, y1, x2, y2 or x, y, width, height or centre x, centre y, width, height"),
    ],
)
def test_relative_boxes_are_named_by_the_convention_that_they_look_like(
    tmp_path: Path, rects: list[list[float]], names: str
) -> None:
    _, report = load(tmp_path, [thing("man", rect) for rect in rects])
    assert f"(0 to 1, as {names});" in report.summary()[1]


def test_a_frame_of_thousands_of_objects_takes_little_memory(tmp_path: Path) -> None:
    """Overlaps are the same whether they are worked out for all objects or for those that are kept."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 900, (4000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 90, (4000, 2))], axis=1)
    classes, scores = rng.integers(1, 6, 4000), rng.uniform(0, 1, 4000)
    tracemalloc.start()
    chosen = choose_objects(boxes, classes, scores, 10, "intended")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    few = np.argsort(-scores)[:500]
    again = choose_objects(boxes[few], classes[few], scores[few], 10, "intended")
    np.testing.assert_array_equal(few[again], chosen)


def test_the_real_object_files_load_without_a_problem(shared: Path) -> None:
    objects = shared / "realdata" / "objects"
    label_map = json.loads((shared / "realdata" / "vinvl" / "label_map.json").read_text())
    sizes = {
        key: (value["width"], value["height"])
        for key, value in json.loads((objects / "frames.json").read_text()).items()
    }
    paths = [(path.stem, path) for folder in ("webvid", "msrvtt") for path in sorted((objects / folder).glob("*.json"))]
    report = ObjectReport()
    clips = object_loader_confident(paths, 10, label_map, frame_sizes=sizes, expected_frames=12, report=report)
    assert len(clips) == 10
    assert report.problems() == {}
    assert report.boxes == 378
    assert all((clip["obj_cls"] > 0).any() for clip in clips.values())


@pytest.mark.parametrize(
    ("counts", "message"),
    [([10_001], "10,001 objects in a frame and 10,001 in all"), ([10_000] * 20 + [1], "200,001 in all")],
)
def test_a_file_of_more_objects_than_a_detector_gives_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: list[int], message: str
):
    path = tmp_path / "v.json"
    path.write_text(json.dumps([{"objects": [0] * count} for count in counts]))
    monkeypatch.setattr("modules.utils_object_tractor._listed_objects", None)
    with pytest.raises(ObjectFileError, match=message) as caught:
        load_object_file(path, 10, {"label_to_idx": {}}, ObjectReport())
    assert caught.value.problem == "broken_files"
