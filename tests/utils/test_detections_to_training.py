"""Detections of every source on their way: file, object files, store, the model's picture, a training step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataloaders.label_map import class_names, load_label_map
from dataloaders.object_records import ObjectSettings
from dataloaders.object_store import ObjectStore, build_object_store
from dataloaders.retrieval import ClipReader
from dataloaders.samples import SampleSettings
from dataloaders.video_files import VideoFolder
from tasks import eval_retrieval
from tests.videos import write_video
from tests.world import Downstream
from utils import extract_objects
from utils.runtime.run_log import read_metrics

FRAMES = ["--max_frames", "4", "--feature_framerate", "1"]
# A white dog on black in a clip of 160x120, and a grey box below it that does not move; four frames are sampled.
SIZE, SIDE = (160, 120), 64


def dog_at(index: int) -> list[int]:
    """x1, y1, x2, y2 of the dog in a frame of the video; above row 80."""
    x, y = 30 + 2 * index, 16 + index
    return [x, y, x + 36, y + 28]


def box_at(index: int) -> list[int]:
    """The box, all of it in the frame's centre crop; below row 80."""
    return [60, 84, 120, 112]


def picture(index: int) -> np.ndarray:
    image = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)
    for (x, y, right, bottom), grey in ((box_at(index), 120), (dog_at(index), 255)):
        image[y:bottom, x:right] = grey
    return image


Things = dict[int, list[tuple[str, list[float], float]]]


def as_format(rect: list[float], box_format: str) -> list[float]:
    """x1, y1, x2, y2 in pixels, written in another format."""
    is_relative = box_format.startswith("relative_")
    x, y, right, bottom = (part / side if is_relative else part for part, side in zip(rect, SIZE * 2, strict=True))
    return {
        "xyxy": [x, y, right, bottom],
        "xywh": [x, y, right - x, bottom - y],
        "cxcywh": [(x + right) / 2, (y + bottom) / 2, right - x, bottom - y],
    }[box_format.removeprefix("relative_")]


def write_vinvl(folder: Path, things: Things, box_format: str = "xyxy") -> list[str]:
    lines = []
    for index, found in things.items():
        objects = [{"class": n, "rect": as_format(r, box_format), "conf": c, "attributes": []} for n, r, c in found]
        lines.append(f"v_{index}\t{json.dumps({'objects': objects})}\n")
    (folder / "p.tsv").write_text("".join(lines))
    return ["--detector", "vinvl", "--detections", str(folder / "p.tsv"), "--frame_numbers", "index"]


def write_coco(folder: Path, things: Things, box_format: str = "xywh") -> list[str]:
    numbers = {"dog": 18, "box": 3}
    width, height = SIZE
    images = [
        {"id": 100 + i, "file_name": f"v/{i:06d}.jpg", "width": width, "height": height} for i in reversed(things)
    ]
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    results = [
        {"image_id": 100 + i, "category_id": numbers[n], "bbox": as_format(r, box_format), "score": c}
        for i, found in things.items()
        for n, r, c in found
    ]
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "images.json").write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    flags = ["--detector", "coco", "--detections", str(folder / "results.json"), "--frame_numbers", "index"]
    return [*flags, "--coco_annotations", str(folder / "images.json")]


def write_lists(folder: Path, things: Things, box_format: str = "xyxy") -> list[str]:
    edges = ("xmin", "ymin", "xmax", "ymax")
    frames = []
    for found in things.values():
        boxes = [as_format(r, "xyxy" if box_format == "edges" else box_format) for _, r, _ in found]
        named = [dict(zip(edges, box, strict=True)) if box_format == "edges" else box for box in boxes]
        frames.append([{"score": c, "label": n, "box": b} for (n, _, c), b in zip(found, named, strict=True)])
    (folder / "lists").mkdir()
    (folder / "lists" / "v.json").write_text(json.dumps(frames))
    return ["--detector", "precomputed", "--detections", str(folder / "lists")]


SOURCES = [
    (write_vinvl, "xyxy", False), (write_vinvl, "xywh", True), (write_coco, "xywh", False), (write_coco, "xyxy", True),
    (write_lists, "edges", False), (write_lists, "xyxy", False), (write_lists, "relative_xyxy", True),
    (write_lists, "cxcywh", True),
]  # fmt: skip


@pytest.mark.parametrize(("write", "box_format", "is_asked"), SOURCES)
def test_boxes_of_every_source_come_to_the_model_where_the_things_are(
    tmp_path: Path, capsys, write: Any, box_format: str, is_asked: bool
):
    clip = write_video(tmp_path / "videos" / "v.mp4", 40, size=SIZE, picture=picture)
    things: Things = {i: [("dog", list(map(float, dog_at(i))), 0.9), ("box", box_at(i), 0.6)] for i in range(40)}
    flags = write(tmp_path, things, box_format)
    argv = [str(clip), "--output", str(tmp_path / "o"), *FRAMES, *flags]
    if is_asked:
        assert extract_objects.main(argv) == 3 and not (tmp_path / "o" / "v.json").exists()
        message = capsys.readouterr().err
        assert box_format in message and "--box_format" in message
        argv += ["--box_format", box_format]
    assert extract_objects.main(argv) == 0
    label_map = load_label_map(tmp_path / "o_label_map.json")
    store = ObjectStore(build_object_store(tmp_path / "o", label_map, ObjectSettings(2, frames=4)))
    assert not {"files", "boxes", "kept_boxes"} & set(store.report["examples"]) and store.report["kept_boxes"] == 8
    reader = ClipReader(VideoFolder(clip.parent, ["v"]), SampleSettings(SIDE, 4, object_count=2), store)
    sample = reader.read("v", 0)
    middle, seen = 43, set()  # row 80
    for image, boxes, ids in zip(sample["video"], sample["boxes"], sample["box_trajectory"].tolist(), strict=True):
        grey = image.float().mean(dim=0)
        for box, index in zip(boxes, ids, strict=True):
            name = class_names(label_map)[index]
            part, above, level = (grey[:middle], 0, 127) if name == "dog" else (grey[middle:], middle, 60)
            rows, columns = (part > level).nonzero(as_tuple=True)
            found = [columns.min(), rows.min() + above, columns.max() + 1, rows.max() + 1 + above]
            assert (box - torch.tensor(found)).abs().max() <= 1, (name, box, found)
            seen.add(name)
    assert seen == {"dog", "box"}


def test_a_model_trains_with_objects_of_coco_results(downstream: Downstream, tmp_path: Path):
    """The demo's own detections as COCO results; one step of retrieval, and the store has what the demo's has."""
    paths, frames = downstream.paths("msrvtt"), []
    names = load_label_map(paths["LABEL_MAP"])["label_to_idx"]
    results = []
    for path in sorted(Path(paths["OBJECT_PATH"]).glob("*.json")):
        for number, frame in enumerate(json.loads(path.read_bytes())):
            frames.append({"id": len(frames), "file_name": f"{path.stem}/{number}.png"})
            for entry in frame["objects"]:
                x, y, right, bottom = entry["rect"]
                box = {"bbox": [x, y, right - x, bottom - y], "score": entry["conf"]}
                results.append({"image_id": len(frames) - 1, "category_id": names[entry["class"]], **box})
    categories = [{"id": index, "name": name} for name, index in names.items()]
    whole = {"images": frames, "categories": categories, "annotations": results}
    (tmp_path / "coco.json").write_text(json.dumps(whole))
    argv = [paths["VIDEOS"], "--output", str(tmp_path / "o"), "--max_frames", "12", "--labelmap_path"]
    argv += [paths["LABEL_MAP"], "--detector", "coco", "--detections", str(tmp_path / "coco.json")]
    assert extract_objects.main(argv) == 0
    flags = [
        "--output_dir", str(tmp_path / "run"), "--clip_archive", paths["CLIP_ARCHIVE"], "--do_train",
        "--max_steps", "1", "--labelmap_path", paths["LABEL_MAP"],
        "--train_csv", paths["TRAIN_CSV"], "--val_csv", paths["TEST_CSV"],
        "--data_path", paths["CAPTIONS"], "--features_path", paths["VIDEOS"], "--object_path", str(tmp_path / "o"),
        "--max_words", "24", "--device", "cpu", "--num_thread_reader", "0", "--n_display", "1", "--batch_size", "4",
        "--fusion_layers", "2", "--need_object", "--use_action", "--object_count", "4", "--max_frames", "12",
    ]  # fmt: skip
    assert eval_retrieval.main(flags) == 0
    assert {"vtm", "contrastive"} <= set(read_metrics(tmp_path / "run" / "metrics.jsonl")[0])
    settings = ObjectSettings(4, frames=12)
    label_map = load_label_map(paths["LABEL_MAP"])
    made = ObjectStore(build_object_store(tmp_path / "o", label_map, settings))
    own = ObjectStore(build_object_store(paths["OBJECT_PATH"], label_map, settings, store_path=tmp_path / "own.lmdb"))
    assert made.report["kept_boxes"] == own.report["kept_boxes"] > 100
    for video_id in ("video0", "video1"):
        found, wanted = made.get(video_id), own.get(video_id)
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.02)
        assert found.trajectory_ids.tolist() == wanted.trajectory_ids.tolist()
