"""Detections of demo clips err as a detector does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.label_map import check_label_map
from tests.utils.demo.small_world import read_json
from utils.demo.detections import (
    BAR_FOUND,
    CLUTTER,
    JITTER,
    MIN_VISIBLE,
    MISSED,
    SPURIOUS_PER_FRAME,
    WRONG_CLASS,
    WRONG_COLOR,
    class_names,
    detect,
    label_map,
)
from utils.demo.render import Rendering
from utils.demo.world import COLORS, SHAPES, Thing, make_scene

SCENE = make_scene([Thing("blue", "circle", "resting"), Thing("red", "star", "resting")])
FRAMES = 400


def test_detections_follow_the_truth_with_a_detectors_errors(demo_world: Path):
    label_map = read_json(demo_world / "label_map.json")
    truths = read_json(demo_world / "webvid/truth.json")["videos"]
    found, shown, spurious, frames = 0, 0, 0, 0
    for name, truth in truths.items():
        for boxes, detected in zip(truth["boxes"], read_json(demo_world / f"webvid/objects/{name}.json"), strict=True):
            frames += 1
            for item in detected["objects"]:
                x1, y1, x2, y2 = item["rect"]
                assert 0 <= x1 < x2 <= truth["size"][0] and 0 <= y1 < y2 <= truth["size"][1]
                assert item["class"] in label_map["label_to_idx"] and 0 < item["conf"] < 1
                assert item["attributes"][0] in label_map["attribute_to_idx"]
            for thing, box in zip(truth["objects"], boxes, strict=True):
                matches = [item for item in detected["objects"] if item["class"] == thing["shape"]]
                shown += box is not None
                found += box is not None and any(np.abs(np.subtract(item["rect"], box)).max() < 8 for item in matches)
            spurious += sum(
                item["conf"] < 0.46 and item["class"] not in ("pole", *SHAPES) for item in detected["objects"]
            )
    assert 0.75 < found / shown < 0.97
    assert 0.1 < spurious / frames < 0.5
    assert min(label_map["label_to_idx"].values()) == 1


def still(visible: float = 1.0, bar: tuple[int, int, int, int] | None = None) -> Rendering:
    """A clip of two things that do not move, of which the first is seen to this share."""
    boxes = np.tile(np.array([[10, 10, 30, 30], [50, 20, 70, 40]], np.float32), (FRAMES, 1, 1))
    shares = np.tile(np.array([visible, 1.0], np.float32), (FRAMES, 1))
    return Rendering(np.zeros((FRAMES, 60, 80, 3), np.uint8), boxes, shares, bar)


def detected(rendering: Rendering, frames: int = FRAMES, seed: int = 0) -> list[list[dict[str, Any]]]:
    """Objects of each frame."""
    found = detect(SCENE, rendering, np.arange(frames), np.random.default_rng(seed))
    assert all(entry["relations"] is None for entry in found)
    return [entry["objects"] for entry in found]


def near(item: dict[str, Any], box: tuple[int, int, int, int]) -> bool:
    return item["conf"] > 0.45 and bool(np.abs(np.subtract(item["rect"], box)).max() < 6)


def test_each_error_comes_about_as_often_as_stated():
    circles = [[item for item in objects if near(item, (10, 10, 30, 30))] for objects in detected(still())]
    found = [items[0] for items in circles if items]
    assert abs(1 - len(found) / FRAMES - MISSED) < 0.05
    assert abs(np.mean([item["class"] != "circle" for item in found]) - WRONG_CLASS) < 0.03
    assert abs(np.mean([item["attributes"] != ["blue"] for item in found]) - WRONG_COLOR) < 0.03
    spread = np.std([item["rect"] for item in found], axis=0) / 20
    assert (np.abs(spread - JITTER) < 0.01).all()


def test_what_is_hardly_seen_is_not_found_and_what_is_half_seen_less_surely():
    assert not any(near(item, (10, 10, 30, 30)) for objects in detected(still(MIN_VISIBLE / 2)) for item in objects)
    sure, unsure = (
        np.mean([item["conf"] for objects in detected(still(share)) for item in objects if item["class"] == "circle"])
        for share in (1.0, 0.5)
    )
    assert unsure < sure - 0.05


def test_the_bar_is_found_as_it_is_in_about_half_of_the_frames():
    poles = [[item for item in objects if item["class"] == "pole"] for objects in detected(still(bar=(0, 25, 80, 29)))]
    assert abs(np.mean([len(items) for items in poles]) - BAR_FOUND) < 0.1
    assert {tuple(item["rect"]) for items in poles for item in items} == {(0.0, 25.0, 80.0, 29.0)}
    assert not any(item["class"] == "pole" for objects in detected(still()) for item in objects)


def test_things_that_are_not_there_are_mostly_clutter_and_never_sure():
    extra = [item for objects in detected(still()) for item in objects if item["attributes"] == ["gray"]]
    assert abs(len(extra) / FRAMES - SPURIOUS_PER_FRAME) < 0.1
    assert 0.6 < np.mean([item["class"] in CLUTTER for item in extra]) < 0.95
    assert max(item["conf"] for item in extra) < 0.46


def test_objects_are_as_an_object_file_has_them():
    for item in (item for objects in detected(still()) for item in objects):
        x1, y1, x2, y2 = item["rect"]
        assert 0 <= x1 < x2 <= 80 and 0 <= y1 < y2 <= 60 and min(x2 - x1, y2 - y1) >= 3
        assert item["class"] in class_names() and 0 < item["conf"] < 1
        assert len(item["attributes"]) == len(item["attr_scores"]) == 1
    assert json.loads(json.dumps(detected(still(), 5))) == detected(still(), 5)


def test_the_order_of_objects_says_nothing():
    firsts = {objects[0]["class"] for objects in detected(still()) if len(objects) >= 2}
    assert {"circle", "star"} <= firsts


def test_the_same_numbers_give_the_same_detections():
    assert detected(still(), 20, seed=1) == detected(still(), 20, seed=1) != detected(still(), 20, seed=2)


def test_the_label_map_has_every_class_and_colour_whether_found_or_not():
    made = label_map({"circle": 3}, {"red": 2})
    check_label_map(made, "made")
    assert list(made["label_to_idx"]) == class_names() == sorted(class_names())
    assert set(made["label_to_idx"]) >= {*SHAPES, *CLUTTER} and set(made["attribute_to_idx"]) == {*COLORS, "gray"}
    assert all(made["idx_to_label"][str(index)] == name for name, index in made["label_to_idx"].items())
