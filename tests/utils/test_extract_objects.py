"""Object files made with a detector that is trained here, from VinVL's output, and from files of more frames."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from dataloaders.frames import Clip, read_clip
from dataloaders.label_map import load_label_map
from dataloaders.object_records import ObjectSettings
from dataloaders.object_store import ObjectStore, build_object_store
from modules.boxes import iou_matrix
from tests.utils.preparation import tiny_detectors
from tests.world import Downstream
from utils import extract_objects
from utils.preparation.detection_files import VinVLDetections

MODEL = "ssdlite320_mobilenet_v3_large"
FRAMES = ["--max_frames", "4", "--feature_framerate", "1"]
CLIPS = ("video0", "video1", "video2")
STEPS = 35


@pytest.fixture(scope="module")
def clips(downstream: Downstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three demo clips in a folder."""
    folder = tmp_path_factory.mktemp("clips")
    for video_id in CLIPS:
        shutil.copy(downstream.folder / "msrvtt" / "videos" / f"{video_id}.mp4", folder)
    return folder


def sampled(folder: Path, video_id: str) -> Clip:
    return read_clip(folder / f"{video_id}.mp4", 4)


def true_boxes(world: Downstream, video_id: str, clip: Clip) -> list[np.ndarray]:
    """Boxes of the things that the demo's own detections are sure of, in the sampled frames."""
    every = read_clip(world.folder / "msrvtt" / "videos" / f"{video_id}.mp4", 12).frame_indices.tolist()
    frames = json.loads((world.folder / "msrvtt" / "objects" / f"{video_id}.json").read_bytes())
    chosen = [frames[every.index(index)]["objects"] for index in clip.frame_indices.tolist()]
    return [np.array([e["rect"] for e in own if e["conf"] > 0.5]).reshape(-1, 4) for own in chosen]


def train_detector(world: Downstream, folder: Path, path: Path) -> None:
    """A torchvision model that has learned these clips' frames by heart, as a local state dict."""
    torch.manual_seed(0)
    pictures, targets = [], []
    for video_id in CLIPS:
        clip = sampled(folder, video_id)
        for frame, boxes in zip(clip.frames, true_boxes(world, video_id, clip), strict=True):
            if len(boxes):
                pictures.append(torch.from_numpy(frame).permute(2, 0, 1).float() / 255)
                labels = torch.ones(len(boxes), dtype=torch.int64)
                targets.append({"boxes": torch.from_numpy(boxes).float(), "labels": labels})
    model = torchvision.models.get_model(MODEL, weights=None, weights_backbone=None, num_classes=2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.3  # the running statistics must follow in so few steps
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
    for _ in range(STEPS):
        chosen = torch.randperm(len(pictures))[:6].tolist()
        losses = model([pictures[i] for i in chosen], [targets[i] for i in chosen])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    torch.save(model.state_dict(), path)


@pytest.mark.slow
def test_a_local_torchvision_detector_finds_the_things(downstream: Downstream, clips: Path, tmp_path: Path, capsys):
    train_detector(downstream, clips, tmp_path / "weights.pth")
    (tmp_path / "names.txt").write_text("thing\n")
    output = tmp_path / "objects"
    flags = ["--detector", MODEL, "--weights", str(tmp_path / "weights.pth"), "--classes", str(tmp_path / "names.txt")]
    argv = [str(clips), "--output", str(output), *flags, "--score_threshold", "0.3", *FRAMES]
    assert extract_objects.main(argv) == 0
    label_map = load_label_map(tmp_path / "objects_label_map.json")
    assert list(label_map["label_to_idx"]) == ["thing"]

    store = ObjectStore(build_object_store(output, label_map, ObjectSettings(8, frames=4)))
    assert store.report["files"] == 3 and not store.report["wrong_frame_counts"]
    found = wanted = 0
    for video_id in CLIPS:
        boxes = store.get(video_id).boxes
        for own, truth in zip(boxes, true_boxes(downstream, video_id, sampled(clips, video_id)), strict=True):
            wanted += len(truth)
            found += int((iou_matrix(truth, own).max(axis=1, initial=0) > 0.5).sum())
    assert wanted >= 10 and found / wanted > 0.8

    report = json.loads((output / "extraction" / "video0.json").read_bytes())
    assert report["frame_indices"] == sampled(clips, "video0").frame_indices.tolist()
    assert report["width"] > 0 and MODEL in report["made_from"]["detector"]
    capsys.readouterr()
    assert extract_objects.main(argv) == 0
    assert "0 videos, 0 boxes; 3 were there" in capsys.readouterr().out
    assert extract_objects.main([*argv, "--max_frames", "3"]) == 0
    assert "3 videos" in capsys.readouterr().out and len(json.loads((output / "video0.json").read_bytes())) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--weights is required"),
        (["--weights", "none.pth"], "none.pth: no such weight file"),
        (["--weights", "DAMAGED"], "does not fit ssdlite320_mobilenet_v3_large with 91 classes"),
        (["--weights", "OTHER"], "give --classes FILE|with 91 classes"),
        (["--detector", "vinvl"], "needs --detections"),
        (["--detector", "coco"], "--detector coco needs --detections"),
        (["--detector", "coco", "--detections", "DAMAGED"], "damaged.pth"),
        (["--detector", "no_such_model", "--weights", "DEFAULT"], "torchvision has no detection model"),
    ],
)
def test_what_is_wrong_is_said(clips: Path, tmp_path: Path, capsys, flags: list[str], message: str):
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    places = {"DAMAGED": str(tmp_path / "damaged.pth"), "OTHER": str(tmp_path / "other.pth")}
    flags = [places.get(flag, flag) for flag in flags]
    assert extract_objects.main([str(clips), "--output", str(tmp_path / "o"), "--detector", MODEL, *flags]) == 1
    assert any(part in capsys.readouterr().err for part in message.split("|"))


def vinvl_line(key: str, *names: str) -> str:
    objects: list[dict[str, Any]] = [
        {"class": name, "rect": [1.0, 2.0, 30.0, 40.0], "conf": 0.9, "attributes": ["red"], "attr_scores": [0.7]}
        for name in names
    ]
    return f"{key}\t{json.dumps({'objects': objects, 'relations': []})}\n"


def test_vinvl_output_is_converted_and_mapped_onto_a_label_map(clips: Path, tmp_path: Path, capsys):
    lines = [vinvl_line(f"video0_{number}", "Street Sign", "dog") for number in range(4)]
    lines += [vinvl_line(f"video1/{number:03d}.jpg", "dogs", "unicorn") for number in range(4)]
    lines += [vinvl_line("video2_0", "dog")]
    (tmp_path / "predictions.tsv").write_text("".join(reversed(lines)))
    label_map = {"label_to_idx": {"dog": 1, "street sign": 2}, "idx_to_label": {"1": "dog", "2": "street sign"}}
    (tmp_path / "map.json").write_text(json.dumps(label_map))
    argv = [str(clips), "--output", str(tmp_path / "o"), "--labelmap_path", str(tmp_path / "map.json"), *FRAMES]
    argv += ["--detector", "vinvl", "--detections", str(tmp_path / "predictions.tsv")]
    assert extract_objects.main(argv) == 3
    captured = capsys.readouterr()
    assert (
        "video2.mp4" in captured.err and "1 frames, but 4 are sampled" in captured.err and "unicorn 4" in captured.err
    )
    first, second = (json.loads((tmp_path / "o" / f"video{n}.json").read_bytes()) for n in (0, 1))
    assert [e["class"] for e in first[0]["objects"]] == ["street sign", "dog"]
    assert [e["class"] for e in second[3]["objects"]] == ["dog"] and second[0]["objects"][0]["attributes"] == ["red"]
    store = ObjectStore(build_object_store(tmp_path / "o", label_map, ObjectSettings(4, frames=4)))
    assert store.report["files"] == 2 and not store.report["unknown_classes"]
    assert not (tmp_path / "o" / "video2.json").exists()


def test_vinvl_rows_of_every_frame_are_picked_by_their_number_when_asked(clips: Path, tmp_path: Path, capsys):
    lines = [vinvl_line(f"video0_{index}", f"class{index}") for index in range(sampled(clips, "video0").decoded_frames)]
    (tmp_path / "predictions.tsv").write_text("".join(lines))
    argv = [str(clips / "video0.mp4"), "--output", str(tmp_path / "o"), "--detector", "vinvl", *FRAMES]
    argv += ["--detections", str(tmp_path / "predictions.tsv")]
    assert extract_objects.main(argv) == 3, "more rows than sampled frames: their order says nothing"
    assert extract_objects.main([*argv, "--frame_numbers", "index"]) == 0
    picked = json.loads((tmp_path / "o" / "video0.json").read_bytes())
    names = [frame["objects"][0]["class"] for frame in picked]
    assert names == [f"class{index}" for index in sampled(clips, "video0").frame_indices.tolist()]
    (tmp_path / "predictions.tsv").write_text("".join(lines[:2]))
    assert extract_objects.main([*argv, "--frame_numbers", "index"]) == 3
    assert "which the frame rule picks" in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["detections", "class map", "label map", "pattern"])
def test_a_clip_is_done_again_when_what_it_was_made_from_changed(clips: Path, tmp_path: Path, capsys, changed: str):
    lines = [vinvl_line(f"video0_{number}", "dog") for number in range(4)]
    (tmp_path / "p.tsv").write_text("".join(lines))
    (tmp_path / "map.json").write_text(json.dumps({"label_to_idx": {"dog": 1}, "idx_to_label": {"1": "dog"}}))
    (tmp_path / "names.json").write_text(json.dumps({"dog": "Hund"}))
    argv = [str(clips / "video0.mp4"), "--output", str(tmp_path / "o"), "--detector", "vinvl", *FRAMES]
    argv += ["--detections", str(tmp_path / "p.tsv")]
    assert extract_objects.main(argv) == extract_objects.main(argv) == 0
    assert "1 videos, 4 boxes; 0 were there" in (out := capsys.readouterr().out) and "0 videos, 0 boxes; 1 were" in out
    if changed == "detections":
        (tmp_path / "p.tsv").write_text("".join([vinvl_line("video0_0", "dog", "cat"), *lines[1:]]))
    more = {
        "detections": [],
        "class map": ["--class_map", str(tmp_path / "names.json")],
        "label map": ["--labelmap_path", str(tmp_path / "map.json")],
        "pattern": ["--key_pattern", r"(?P<video>.+)_(?P<frame>\d+)"],
    }[changed]
    assert extract_objects.main([*argv, *more]) == 0
    assert "1 videos" in capsys.readouterr().out


def test_files_without_frame_numbers_are_never_guessed_at(clips: Path, tmp_path: Path, capsys):
    (tmp_path / "all").mkdir()
    argv = [str(clips / "video0.mp4"), "--output", str(tmp_path / "o"), "--detector", "precomputed", *FRAMES]
    argv += ["--detections", str(tmp_path / "all")]
    every = [{"objects": []} for _ in range(sampled(clips, "video0").decoded_frames)]
    for count, status in ((4, 0), (len(every), 0), (len(every) - 1, 3), (3, 3)):
        (tmp_path / "all" / "video0.json").write_text(json.dumps(every[:count]))
        assert extract_objects.main([*argv, "--overwrite"]) == status, count
    assert "3 frames, but 4 are sampled" in capsys.readouterr().err


def test_sampled_frames_are_picked_from_files_of_more_frames(downstream: Downstream, clips: Path, tmp_path: Path):
    source = downstream.folder / "msrvtt" / "objects"
    every = read_clip(clips / "video0.mp4", 12).frame_indices.tolist()
    frames = json.loads((source / "video0.json").read_bytes())
    by_number = dict(zip(every, frames, strict=True))
    numbered = [{"frame": index, **frame} for index, frame in by_number.items()]
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "video0.json").write_text(json.dumps(numbered))
    argv = [str(clips / "video0.mp4"), "--output", str(tmp_path / "o"), "--detector", "precomputed", *FRAMES]
    assert extract_objects.main([*argv, "--detections", str(tmp_path / "all")]) == 0
    picked = json.loads((tmp_path / "o" / "video0.json").read_bytes())
    indices = sampled(clips, "video0").frame_indices.tolist()
    assert [frame["objects"] for frame in picked] == [by_number[index]["objects"] for index in indices]


def test_damaged_detections_and_doubled_names_are_named(clips: Path, tmp_path: Path, capsys):
    (tmp_path / "p.tsv").write_text("video0_1 no tab\n")
    with pytest.raises(ValueError, match=r"p\.tsv, line 1: no tab"):
        VinVLDetections(tmp_path / "p.tsv")
    (tmp_path / "p.tsv").write_text("video0\t[]\n")
    with pytest.raises(ValueError, match="key 'video0' does not match"):
        VinVLDetections(tmp_path / "p.tsv")
    (tmp_path / "again").mkdir()
    shutil.copy(clips / "video0.mp4", tmp_path / "again")
    argv = [str(clips), str(tmp_path / "again"), "--output", str(tmp_path / "o"), "--detector", "precomputed"]
    assert extract_objects.main([*argv, "--detections", str(tmp_path)]) == 1
    assert "several videos would write video0.json" in capsys.readouterr().err


def test_unreadable_videos_are_left_out_and_counted(downstream: Downstream, clips: Path, tmp_path: Path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    argv = [str(tmp_path / "bad.mp4"), str(clips / "video0.mp4"), "--output", str(tmp_path / "o")]
    source = str(downstream.folder / "msrvtt" / "objects")
    argv += ["--detector", "precomputed", "--detections", source, "--feature_framerate", "1"]
    assert extract_objects.main(argv) == 3
    captured = capsys.readouterr()
    assert "bad.mp4: not a video" in captured.err and "1 videos" in captured.out


def test_a_detector_that_looks_for_words_makes_a_label_map_of_them_and_goes_on_where_it_was(
    clips: Path, tmp_path: Path, capsys
):
    pytest.importorskip("transformers", reason="detectors of transformers: requirements-optional.txt")
    (tmp_path / "captions.txt").write_text("a dog chases two dogs\na man walks a dog near a red car\na man sleeps\n")
    weights = tiny_detectors.save_owl(tmp_path / "owl")
    argv = [str(clips), "--output", str(tmp_path / "o"), "--detector", "hf", "--weights", str(weights), *FRAMES]
    argv += ["--prompts", f"captions:{tmp_path / 'captions.txt'}", "--device", "cpu"]
    assert extract_objects.main([*argv, "--most", "2"]) == 0
    label_map = load_label_map(tmp_path / "o_label_map.json")
    assert label_map["label_to_idx"] == {"dog": 1, "man": 2}
    found = {
        entry["class"]
        for video_id in CLIPS
        for frame in json.loads((tmp_path / "o" / f"{video_id}.json").read_bytes())
        for entry in frame["objects"]
    }
    assert found and found <= {"dog", "man"}
    store = ObjectStore(build_object_store(tmp_path / "o", label_map, ObjectSettings(4, frames=4)))
    assert store.report["files"] == 3 and store.report["kept_boxes"] and not store.report["unknown_classes"]
    (tmp_path / "o" / "video1.json").unlink()
    capsys.readouterr()
    assert extract_objects.main([*argv, "--most", "2"]) == 0
    assert "1 videos" in (out := capsys.readouterr().out) and "2 were there" in out
    assert extract_objects.main([*argv, "--most", "3"]) == 0
    assert "3 videos" in capsys.readouterr().out, "other prompts, other boxes"
    assert len(load_label_map(tmp_path / "o_label_map.json")["label_to_idx"]) == 3
