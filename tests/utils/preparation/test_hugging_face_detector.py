"""Detectors of transformers: their boxes are the library's own, under the names that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataloaders.frames import Clip, read_clip
from modules.boxes import iou_matrix
from tests.utils.preparation import tiny_detectors as tiny
from tests.videos import write_noise
from utils.preparation import hugging_face_detector
from utils.preparation.detectors import Frame
from utils.preparation.hugging_face_detector import HuggingFaceDetector

transformers = pytest.importorskip("transformers", reason="detectors of transformers: requirements-optional.txt")

PROMPTS = ["Dog", "cat", "a red street sign", "a man running"]
GROUNDED = ["Red dogs", "St. Bernard", "cat", "street sign", "a man running"]
CHUNKS = [("red dogs. st bernard. cat. street sign.", GROUNDED[:4]), ("a man running.", GROUNDED[4:])]
ALL = {"score_threshold": 0.3, "nms_threshold": 1.0, "max_boxes": 1000}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of each kind."""
    root = tmp_path_factory.mktemp("detectors")
    made = {"detr": tiny.save_detr, "owl": tiny.save_owl, "grounded": tiny.save_grounding_dino}
    return {name: save(root / name) for name, save in made.items()}


@pytest.fixture(scope="module", params=["made", "real"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Three frames of a video of noise, and of a real one."""
    if request.param == "made":
        path = tmp_path_factory.mktemp("video") / "noise.avi"
        write_noise(path, "MJPG")
        return read_clip(path, 3)
    videos = sorted((request.getfixturevalue("shared") / "realdata/msrvtt/videos").glob("*.mp4"))
    return read_clip(videos[0], 3)


def library(folder: Path, auto: str, processor: str) -> tuple[Any, Any]:
    """A folder's model and processor, as the library's documents load them."""
    kwargs = {"local_files_only": True}
    model = getattr(transformers, auto).from_pretrained(folder, **kwargs).eval()
    return model, getattr(transformers, processor).from_pretrained(folder, **kwargs)


def expected_detr(folder: Path, frames: list[np.ndarray]) -> list[Frame]:
    model, processor = library(folder, "AutoModelForObjectDetection", "AutoImageProcessor")
    with torch.no_grad():
        outputs = model(**processor(images=frames, return_tensors="pt"))
    sizes = [frame.shape[:2] for frame in frames]
    found = processor.post_process_object_detection(outputs, threshold=0.3, target_sizes=sizes)
    named = [entries(one["boxes"], one["scores"], [tiny.CLASSES[i] for i in one["labels"].tolist()]) for one in found]
    return [[entry for entry in frame if entry["class"] != "N/A"] for frame in named]


def expected_owl(folder: Path, frames: list[np.ndarray]) -> list[Frame]:
    model, processor = library(folder, "AutoModelForZeroShotObjectDetection", "AutoProcessor")
    texts = [PROMPTS] * len(frames)
    with torch.no_grad():
        outputs = model(**processor(text=texts, images=frames, return_tensors="pt"))
    found = processor.post_process_grounded_object_detection(
        outputs, threshold=0.3, target_sizes=[frame.shape[:2] for frame in frames], text_labels=texts
    )
    return [entries(one["boxes"], one["scores"], one["text_labels"]) for one in found]


def expected_grounded(folder: Path, frames: list[np.ndarray]) -> list[Frame]:
    """Names are found in another way than the detector's: by the word of the best token, which one prompt has."""
    model, processor = library(folder, "AutoModelForZeroShotObjectDetection", "AutoProcessor")
    parts: list[list[Frame]] = []
    for text, prompts in CHUNKS:
        inputs = processor(images=frames, text=[text] * len(frames), return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        found = processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=0.3, target_sizes=[frame.shape[:2] for frame in frames]
        )
        tokens = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
        words = [place for place, token in enumerate(tokens) if token not in ("[CLS]", ".", "[SEP]")]
        frames_of_part = []
        for one, logits in zip(found, outputs.logits, strict=True):
            kept = logits[logits.sigmoid().amax(-1) > 0.3][:, words]
            best = [tokens[words[place]] for place in kept.argmax(-1).tolist()]
            names = [next(p for p in prompts if word.strip("#") in p.lower().replace(".", "")) for word in best]
            frames_of_part.append(entries(one["boxes"], one["scores"], names))
        parts.append(frames_of_part)
    return [sum(frame, []) for frame in zip(*parts, strict=True)]


def entries(boxes: torch.Tensor, scores: torch.Tensor, names: list[str]) -> Frame:
    rows = zip(boxes.tolist(), scores.tolist(), names, strict=True)
    return [{"class": name, "rect": box, "conf": score} for box, score, name in rows]


def by_place(frame: Frame) -> list[tuple[Any, ...]]:
    return sorted((entry["class"], round(entry["conf"], 3), *entry["rect"]) for entry in frame)


KINDS = [
    ("detr", None, expected_detr),
    ("owl", PROMPTS, expected_owl),
    ("grounded", GROUNDED, expected_grounded),
]


@pytest.mark.parametrize(("kind", "prompts", "expected"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_boxes_are_those_of_the_librarys_own_post_processing(
    folders: dict[str, Path], clip: Clip, kind: str, prompts: list[str] | None, expected: Any
):
    found = HuggingFaceDetector(folders[kind], prompts, **ALL).detect("v", clip)
    wanted = expected(folders[kind], clip.frames)
    assert sum(map(len, wanted)) >= 6 and len({entry["class"] for frame in wanted for entry in frame}) > 1
    for own, theirs in zip(found, wanted, strict=True):
        confidences = [entry["conf"] for entry in own]
        assert confidences == sorted(confidences, reverse=True)
        assert [row[0] for row in by_place(own)] == [row[0] for row in by_place(theirs)]
        np.testing.assert_allclose(
            np.array([row[1:] for row in by_place(own)]), np.array([row[1:] for row in by_place(theirs)]), atol=0.02
        )


@pytest.mark.parametrize(("kind", "prompts"), [case[:2] for case in KINDS], ids=[kind for kind, *_ in KINDS])
def test_frames_are_looked_at_alone_and_overlapping_boxes_of_a_class_merged(
    folders: dict[str, Path], clip: Clip, kind: str, prompts: list[str] | None
):
    every = HuggingFaceDetector(folders[kind], prompts, **ALL).detect("v", clip)
    for size in (1, 2):
        again = HuggingFaceDetector(folders[kind], prompts, **ALL, batch_size=size).detect("v", clip)
        assert [[e["class"] for e in frame] for frame in again] == [[e["class"] for e in frame] for frame in every]
    limits = {**ALL, "nms_threshold": 0.1, "max_boxes": 4}
    merged = HuggingFaceDetector(folders[kind], prompts, **limits).detect("v", clip)
    for own, all_of_frame in zip(merged, every, strict=True):
        assert 0 < len(own) <= 4 and all(entry in all_of_frame for entry in own) and own[0] == all_of_frame[0]
        for name in {entry["class"] for entry in own}:
            boxes = np.array([entry["rect"] for entry in own if entry["class"] == name])
            assert (iou_matrix(boxes, boxes) > 0.1 + 1e-3).sum() == len(boxes), "a box and itself alone"


def test_owls_scores_do_not_depend_on_how_prompts_are_parted(
    folders: dict[str, Path], clip: Clip, monkeypatch: pytest.MonkeyPatch
):
    whole = HuggingFaceDetector(folders["owl"], PROMPTS, **ALL)
    monkeypatch.setattr(hugging_face_detector, "TEXTS_AT_ONCE", 1)
    parted = HuggingFaceDetector(folders["owl"], PROMPTS, **ALL)
    for own, other in zip(whole.detect("v", clip), parted.detect("v", clip), strict=True):
        assert [e["class"] for e in own] == [e["class"] for e in other]
        np.testing.assert_allclose([e["conf"] for e in own], [e["conf"] for e in other], atol=2e-4)


def test_prompts_that_are_read_after_others_do_not_bear_on_them(folders: dict[str, Path], clip: Clip):
    def first(prompts: list[str]) -> list[Frame]:
        found = HuggingFaceDetector(folders["grounded"], prompts, **ALL).detect("v", clip)
        return [[entry for entry in frame if entry["class"] in GROUNDED[:4]] for frame in found]

    alone, among_more = first(GROUNDED[:4]), first([*GROUNDED, "a dog"])
    assert alone == among_more and any(alone)


@pytest.mark.parametrize(
    ("kind", "prompts", "message"),
    [
        ("detr", ["dog"], "detr has classes of its own and looks for no others: leave out --prompts"),
        ("owl", None, "owlv2 looks for words: say which with --prompts"),
        ("grounded", [], "grounding-dino looks for words"),
        ("owl", ["cat", "dog " * 15], r"prompt 'dog dog.* is 17 tokens long, the model reads 16"),
        ("grounded", ["cat", "dog " * 14], r"prompt 'dog dog.* is 17 tokens long, the model reads 16"),
        ("grounded", ["cat", "?."], r"prompt '\?\.': no word in it"),
    ],
)
def test_prompts_that_a_model_cannot_use_are_refused(
    folders: dict[str, Path], kind: str, prompts: list[str] | None, message: str
):
    with pytest.raises(ValueError, match=message):
        HuggingFaceDetector(folders[kind], prompts)


def test_settings_say_all_that_the_boxes_depend_on(folders: dict[str, Path]):
    made = HuggingFaceDetector(folders["owl"], PROMPTS)
    others = [
        HuggingFaceDetector(folders["owl"], PROMPTS[:2]),
        HuggingFaceDetector(folders["owl"], PROMPTS, precision="bf16"),
        HuggingFaceDetector(folders["owl"], PROMPTS, nms_threshold=0.7),
    ]
    assert all(other.settings != made.settings for other in others) and made.name == "transformers owlv2, owl"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(made.settings["weights"])
