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
from utils.preparation.detectors import PrecomputedDetections, VinVLDetections

CPU = torch.device("cpu")
LABELS = {"label_to_idx": {"dog": 1, "street sign": 2}}


def test_files_are_opened_as_the_flags_say(tmp_path: Path):
    (tmp_path / "p.tsv").write_text("v:1\t[]\n")
    flags = {"detections": str(tmp_path / "p.tsv"), "key_pattern": r"(?P<video>.+):(?P<frame>\d+)"}
    found = make_detector(DetectorSettings(detector="vinvl", frame_numbers="index", **flags), CPU)
    assert isinstance(found, VinVLDetections) and found.frame_numbers == "index"
    found = make_detector(DetectorSettings(detector="precomputed", detections=str(tmp_path)), CPU)
    assert isinstance(found, PrecomputedDetections)


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
    make_detector(
        DetectorSettings(detector="hf", weights="w", prompts=names, nms_threshold=0.6, **limits), CPU, precision
    )
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
        make_detector(DetectorSettings(**flags), CPU)


def test_prompts_are_lines_or_the_classes_of_a_label_map(tmp_path: Path):
    (tmp_path / "p.txt").write_text("red dog\n\n  street sign \nred dog\n", encoding="utf-8")
    (tmp_path / "map.json").write_text(json.dumps(LABELS))
    assert read_prompts(tmp_path / "p.txt") == ["red dog", "street sign"]
    assert read_prompts(tmp_path / "map.json") == ["dog", "street sign"]
    (tmp_path / "p.txt").write_text("\n \n")
    with pytest.raises(ValueError, match=r"p\.txt: no line with a name"):
        read_prompts(tmp_path / "p.txt")


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
