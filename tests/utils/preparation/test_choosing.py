"""Which source of boxes the flags name, and what its classes are called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.world import ROOT
from utils.preparation import choosing
from utils.preparation.choosing import DetectorSettings, Naming, make_detector, read_prompts
from utils.preparation.detection_files import CocoDetections, PrecomputedDetections, VinVLDetections

CPU = torch.device("cpu")
LABELS = {"label_to_idx": {"dog": 1, "street sign": 2}}


def test_files_are_opened_as_the_flags_say(tmp_path: Path):
    (tmp_path / "p.tsv").write_text("v:1\t[]\n")
    flags = {"detections": str(tmp_path / "p.tsv"), "key_pattern": r"(?P<video>.+):(?P<frame>\d+)"}
    found = make_detector(DetectorSettings(detector="vinvl", frame_numbers="index", **flags), CPU)
    assert isinstance(found, VinVLDetections) and found.frame_numbers == "index"
    found = make_detector(DetectorSettings(detector="precomputed", detections=str(tmp_path), box_format="xywh"), CPU)
    assert isinstance(found, PrecomputedDetections) and found.settings["box_format"] == "xywh"
    (tmp_path / "c.json").write_text('{"images": [], "categories": [], "annotations": []}')
    results = {"detections": str(tmp_path / "c.json"), "coco_annotations": str(tmp_path / "c.json")}
    assert isinstance(make_detector(DetectorSettings(detector="coco", **results), CPU), CocoDetections)


@pytest.mark.parametrize(("precision", "computed"), [("auto", "fp32"), ("bf16", "bf16")])
def test_models_get_the_settings_of_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, computed: str
):
    made: list[Any] = []
    for name in ("HuggingFaceDetector", "TorchvisionDetector"):
        monkeypatch.setattr(choosing, name, lambda *args, **flags: made.append((*args, flags)))
    (tmp_path / "names.txt").write_text("dog\n\ncat\ndog\n")
    limits = {"score_threshold": 0.4, "max_boxes": 7, "batch_size": 2}
    names = str(tmp_path / "names.txt")
    make_detector(DetectorSettings(detector="ssd", weights="w", classes=names, **limits), CPU, precision)
    words = DetectorSettings(detector="hf", weights="w", prompts=names, nms_threshold=0.6, **limits)
    make_detector(words, CPU, precision, read_prompts(words))
    assert made == [
        ("ssd", "w", ["dog", "cat", "dog"], CPU, computed, limits),
        ("w", ["dog", "cat"], CPU, computed, {**limits, "nms_threshold": 0.6}),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"prompts": "p.txt"}, "--prompts is for --detector, which is not given"),
        ({"detector": "ssd", "weights": "w", "prompts": "p.txt"}, "--prompts is for --detector hf, not for ssd"),
        ({"detector": "hf", "weights": "w", "classes": "c.txt"}, "--classes is for torchvision's models"),
        ({"detector": "hf"}, "--weights is required: .*hf-hub:OWNER/NAME"),
        ({"detector": "precomputed"}, "--detector precomputed needs --detections"),
        ({"detector": "ssd", "nms_threshold": 1.5}, "--nms_threshold 1.5"),
        ({"detector": "ssd", "max_boxes": 0}, "--max_boxes 0"),
    ],
)
def test_flags_that_do_not_go_together_are_an_error(flags: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        settings = DetectorSettings(**flags)
        make_detector(settings, CPU, prompts=read_prompts(settings))


def prompts(path: str | Path, most: int = 500) -> list[str] | None:
    return read_prompts(DetectorSettings(detector="hf", prompts=str(path), most=most))


def test_prompts_are_lines_classes_of_a_label_map_or_nouns_of_captions(tmp_path: Path):
    (tmp_path / "p.txt").write_text("red dog\n\n  street sign \nred dog\n", encoding="utf-8")
    (tmp_path / "map.json").write_text(json.dumps(LABELS))
    (tmp_path / "captions.txt").write_text("a dog chases two dogs\na cat sleeps near a dog\na cat and a car\n")
    assert read_prompts(DetectorSettings(detector="hf")) is None
    assert prompts(tmp_path / "p.txt") == ["red dog", "street sign"]
    assert prompts(tmp_path / "map.json") == ["dog", "street sign"]
    assert prompts(f"captions:{tmp_path / 'captions.txt'}", most=2) == ["dog", "cat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("\n \n", r"p\.txt: no line with a name"), ("dog\nNone\n", r"p\.txt, line 2: 'None' is no class name")],
)
def test_lines_that_are_no_prompts_are_named(tmp_path: Path, content: str, message: str):
    (tmp_path / "p.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        prompts(tmp_path / "p.txt")


def test_names_become_those_of_the_label_map_or_stay(tmp_path: Path):
    (tmp_path / "names.json").write_text(json.dumps({"hound": "dog"}))
    mapped, kept = Naming(tmp_path / "names.json", LABELS), Naming(tmp_path / "names.json", None)
    assert [mapped.find(name) for name in ("hound", "Dogs", "cat")] == ["dog", "dog", None]
    assert [kept.find(name) for name in ("hound", "cat")] == ["dog", "cat"]
    assert mapped.made_from["class_map"] == kept.made_from["class_map"] == {"hound": "dog"}
    assert kept.made_from["label_map"] is None and mapped.made_from["label_map"]


def test_transformers_is_imported_only_where_it_is_asked_for():
    code = "import sys, utils.extract_objects, tasks.predict; sys.exit('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "transformers was imported"
