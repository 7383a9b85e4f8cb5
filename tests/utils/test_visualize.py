"""The explanation of a video, its contact sheet and its copy with boxes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dataloaders.frames import UnreadableVideo, all_frames
from dataloaders.label_map import class_names, load_label_map
from dataloaders.samples import collate, text_part
from dataloaders.transforms import frames_to_tensor
from modules.boxes import map_boxes_from_crop, map_boxes_to_crop
from modules.pretrain import PretrainModel
from modules.retrieval import RetrievalModel
from modules.tokenizer import ClipTokenizer
from tests import tiny
from tests.utils.models.test_weights import released_state
from tests.videos import write_video
from tests.world import FRAMES, World
from utils import visualize
from utils.pictures.box_video import box_spans, boxes_at, write_box_video
from utils.pictures.contact_sheet import GAP, MARGIN, SIDE, TITLE, contact_sheet
from utils.pictures.drawing import PALETTE, crop_picture, draw_boxes, heat_overlay, match_text, score_text
from utils.pictures.explain import NOTHING, Action, Explanation, Trajectory, WordMatch, explain
from utils.predictor import Predictor
from utils.runtime.checkpoint import CheckpointError, model_content, save_atomically

TEXT = "a triangle is spinning and a square is bouncing"
SIZES = {"vocab_size": 2000, "context_length": 32, "max_words": 24, "max_frames": FRAMES, "num_actions": 3}


def checkpoint(folder: Path, model_class: type = PretrainModel, **choices: Any) -> Path:
    """A checkpoint of a small model with drawn weights."""
    model = tiny.model(model_class, **{**SIZES, **choices})
    path = folder / f"{model_class.__name__}.bin"
    save_atomically(model_content(model, 0, 0), path)
    return path


@pytest.fixture(scope="module")
def video(world: World) -> Path:
    """A test clip of 86x64 pixels and 32 frames, with an object file."""
    return next(path for path in sorted(world.msrvtt.glob("videos/*.mp4")) if world.truth("msrvtt")[path.stem]["boxes"])


@pytest.fixture(scope="module")
def explanation(world: World, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    path = checkpoint(tmp_path_factory.mktemp("model"))
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map)}
    return explain(Predictor(path, device="cpu", **objects), video, TEXT)


def flags(world: World, model: Path, output: Path, *more: str) -> list[str]:
    labels = ["--labelmap_path", str(world.label_map), "--device", "cpu"]
    return ["--checkpoint", str(model), "--output", str(output), *labels, *more]


def test_boxes_are_those_of_the_object_file_in_the_crop(explanation: Explanation, world: World):
    """86x64 becomes 43x32, of which the crop takes the columns from 6 on (5.5 is rounded to even)."""
    stem = Path(explanation.video).stem
    listed = json.loads((world.msrvtt / "objects" / f"{stem}.json").read_bytes())
    assert explanation.size == (86, 64) and explanation.resolution == 32
    names = {entry.id: entry.class_name for entry in explanation.trajectories}
    assert set(names) == set(explanation.box_trajectory.flatten().tolist()) - {0}
    assert all(class_names(load_label_map(world.label_map))[index] == name for index, name in names.items())
    shown = 0
    for frame, boxes, ids in zip(listed, explanation.boxes, explanation.box_trajectory, strict=True):
        expected = [
            (entry["class"], np.clip(np.array(entry["rect"]) / 2 - [6, 0, 6, 0], 0, 32)) for entry in frame["objects"]
        ]
        for box, index in zip(boxes, ids.tolist(), strict=True):
            assert (box == -1).all() == (index == 0)
            if index:
                shown += 1
                assert any(name == names[index] and np.abs(box - rect).max() < 0.01 for name, rect in expected)
    assert shown >= FRAMES


def test_attention_sums_to_one_in_each_frame_and_over_time(explanation: Explanation):
    assert len(explanation.actions) == 3 and len(explanation.frames) == FRAMES
    for action in explanation.actions:
        assert action.patches.shape == (FRAMES, 4, 4) and action.objects.shape == (FRAMES, 4)
        np.testing.assert_allclose(action.patches.sum((1, 2)) + action.objects.sum(1), 1, rtol=1e-5)
        assert action.frames.shape == (FRAMES,) and action.frames.sum() + action.clip == pytest.approx(1)
        assert (action.objects[explanation.box_trajectory == 0] == 0).all()


def test_words_are_whole_distinct_and_of_the_right_kind(explanation: Explanation):
    """With 2000 tokens "triangle" and "spinning" have several pieces, each of which may be matched."""
    nouns = [entry.match.word for entry in explanation.trajectories if entry.match]
    verbs = [entry.match.word for entry in explanation.actions if entry.match]
    assert nouns and set(nouns) <= {"triangle", "square", NOTHING} and nouns.count(NOTHING) <= 1
    assert len(verbs) == 3 and set(verbs) <= {"spinning", "bouncing", NOTHING} and verbs.count(NOTHING) <= 1
    assert all(0 <= entry.match.score <= 1 for entry in explanation.actions if entry.match)


def test_matching_is_the_best_assignment_of_the_model_s_tokens_to_words(world: World, video: Path, tmp_path: Path):
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map)}
    predictor = Predictor(checkpoint(tmp_path), device="cpu", **objects)
    model, text = predictor.model(PretrainModel), "a square is spinning and bouncing"
    shown = explain(predictor, video, text)
    tokenizer = ClipTokenizer(2000)
    clip = predictor.reader(model.config, [str(video)]).read(str(video), 0)
    batch = collate([{**clip, **text_part(tokenizer.encode(text), tokenizer, 24)}])
    with torch.no_grad():
        tokens, words = model.encode_video(batch), model.encode_text(batch["text_ids"])[0]
    np.testing.assert_array_equal(batch["boxes"][0], shown.boxes)  # of the object file with the video's stem
    whole, index = text.split(), tokenizer.encode_words(text)[1]
    cases = (
        ([entry.match for entry in shown.trajectories], tokens.trajectories[0, : len(shown.trajectories)], "square"),
        ([entry.match for entry in shown.actions], tokens.actions[0], "spinning bouncing"),
    )
    for found, rows, tagged in cases:
        positions = [place + 1 for place, word in enumerate(index) if whole[word] in tagged.split()] + [len(index) + 1]
        names = [whole[index[place - 1]] if place <= len(index) else NOTHING for place in positions]
        scores = (rows @ words[positions].T).softmax(-1).tolist()
        columns = [*range(len(positions)), *[None] * max(0, len(rows) - len(positions))]
        best = max(
            permutations(columns, len(rows)),
            key=lambda order: sum(row[column] for row, column in zip(scores, order, strict=True) if column is not None),
        )
        assert [entry.word if entry else None for entry in found] == [None if c is None else names[c] for c in best]
        for entry, row, column in zip(found, scores, best, strict=True):
            assert entry is None or entry.score == pytest.approx(row[column], rel=1e-4)


def test_the_text_is_by_default_the_caption_of_the_checkpoint(world: World, video: Path, tmp_path: Path):
    path = checkpoint(tmp_path)
    predictor = Predictor(path, labelmap_path=str(world.label_map), device="cpu")
    shown = explain(predictor, video)
    assert shown.text == predictor.caption([video])[str(video)] and not shown.trajectories
    untrained = Predictor(checkpoint(tmp_path, RetrievalModel), device="cpu")
    with pytest.raises(CheckpointError, match=r"vocabulary head has not been trained.*--text"):
        explain(untrained, video)
    assert len(explain(untrained, video, TEXT).actions) == 3


def test_reversed_frames_are_shown_as_the_model_saw_them(world: World, video: Path, tmp_path: Path):
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map)}
    forward, backward = (
        explain(Predictor(checkpoint(tmp_path), device="cpu", eval_frame_order=order, **objects), video, TEXT)
        for order in (0, 1)
    )
    np.testing.assert_array_equal(backward.boxes, forward.boxes[::-1])
    np.testing.assert_array_equal(backward.frame_indices, forward.frame_indices[::-1])
    assert all((a == b).all() for a, b in zip(backward.frames, forward.frames[::-1], strict=True))
    assert backward.actions[0].patches[0] == pytest.approx(forward.actions[0].patches[-1], abs=0.05)


def test_models_without_actions_or_objects(world: World, video: Path, tmp_path: Path):
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map)}
    plain = Predictor(checkpoint(tmp_path, use_action=False), device="cpu", **objects)
    shown = explain(plain, video, TEXT)
    assert not shown.actions and any(entry.match for entry in shown.trajectories)
    inside = Predictor(checkpoint(tmp_path, use_action=False, object_fuse="attention"), device="cpu", **objects)
    shown = explain(inside, video, TEXT)
    assert not shown.actions and shown.trajectories and not any(entry.match for entry in shown.trajectories)
    assert contact_sheet(shown).shape[2] == 3
    without = Predictor(checkpoint(tmp_path, use_action=False, need_object=False), device="cpu")
    with pytest.raises(CheckpointError, match="without objects .* --need_object"):
        explain(without, video, TEXT)


def test_tracked_trajectories_have_the_class_of_their_boxes(world: World, video: Path, tmp_path: Path):
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map), "device": "cpu"}
    model = checkpoint(tmp_path)
    by_class, by_track = (
        explain(Predictor(model, trajectory=rule, **objects), video, TEXT) for rule in ("class", "track")
    )
    names = {entry.id: entry.class_name for entry in by_class.trajectories}
    tracked = {entry.id: entry.class_name for entry in by_track.trajectories}
    assert len(tracked) >= len(names) and set(tracked) != set(names)
    np.testing.assert_array_equal(by_class.boxes, by_track.boxes)
    for index, track in zip(by_class.box_trajectory.flat, by_track.box_trajectory.flat, strict=True):
        assert track not in tracked or tracked[track] == names[index]


def test_the_way_back_from_the_crop():
    boxes = np.array([[40.0, 10, 80, 60], [55, 20, 60, 90]])
    there = map_boxes_to_crop(boxes, (160, 96), (160, 96), 64)
    np.testing.assert_allclose(map_boxes_from_crop(there, (160, 96), 64), boxes, atol=1e-4)


@pytest.mark.parametrize("size", [(86, 64), (64, 150), (640, 360)])
def test_a_picture_shows_what_the_model_sees(size: tuple[int, int]):
    """At the model's own size it is the model's picture, up to the kernel of the resizing."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    frame = np.rint(255 * np.stack([x, y, (x + y) / 2], axis=-1)).astype(np.uint8)
    seen = frames_to_tensor([frame], 32)[0].permute(1, 2, 0).numpy().astype(int)
    np.testing.assert_allclose(crop_picture(frame, 32, 32).astype(int), seen, atol=4)
    large = cv2.resize(crop_picture(frame, 32, 256), (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(large.astype(int), seen, atol=4)


def test_the_sheet_holds_the_frames_with_boxes_in_the_trajectories_colors(explanation: Explanation, tmp_path: Path):
    picture = crop_picture(explanation.frames[0], explanation.resolution, SIDE)
    draw_boxes(explanation, 0, picture, 15)
    sheet = contact_sheet(explanation)
    top = MARGIN + TITLE + GAP + MARGIN
    np.testing.assert_array_equal(sheet[top : top + SIDE, MARGIN : MARGIN + SIDE], picture)
    slot = int(np.flatnonzero(explanation.box_trajectory[0])[-1])  # drawn last: no other box lies over it
    place = [entry.id for entry in explanation.trajectories].index(int(explanation.box_trajectory[0, slot]))
    x1, y1, x2, y2 = np.rint(explanation.boxes[0, slot] * SIDE / explanation.resolution).astype(int)
    border = np.concatenate(
        [picture[y1 + 1, x1:x2], picture[y2 - 2, x1:x2], picture[y1:y2, x1 + 1], picture[y1:y2, x2 - 2]]
    )
    assert (border == PALETTE[place]).all(-1).mean() > 0.5  # labels lie over the rest
    for place in range(len(explanation.trajectories)):
        assert (sheet == PALETTE[place]).all(-1).sum() > 100


def test_heat_is_where_the_attention_is():
    weights = np.full((4, 4), 0.01, np.float32)
    weights[1, 2] = 0.8
    picture = np.full((64, 64, 3), 128, np.uint8)
    changed = np.abs(heat_overlay(picture, weights, 0.8).astype(int) - 128).sum(-1)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert 16 <= row < 32 and 32 <= column < 48
    assert changed[48:, :16].max() < changed.max() / 4
    assert [score_text(score) for score in (0.831, 0.005, 0.004)] == ["0.83", "0.01", "<0.01"]


def synthetic(video: Path, boxes: list[list[list[float]]], ids: list[list[int]], indices: list[int]) -> Explanation:
    """Frames of 64x64 seen whole by a model of R = 64, so that crop pixels are original pixels."""
    trajectories = [
        Trajectory(index, f"class {index}", None) for index in sorted({i for row in ids for i in row} - {0})
    ]
    return Explanation(
        str(video), "text", [np.zeros((64, 64, 3), np.uint8)] * len(indices), np.array(indices), 8.0, 64,
        np.array(boxes, np.float32), np.array(ids), trajectories, [],
    )  # fmt: skip


def test_boxes_move_evenly_between_frames_that_both_have_them_and_else_stay_near():
    empty = [-1.0] * 4
    boxes = [
        [[0, 0, 10, 10], [50, 50, 60, 60], [20, 0, 30, 10]],
        [[50, 50, 60, 60], [20, 0, 30, 10], empty],
        [empty, [10, 40, 20, 50], empty],
    ]
    shown = synthetic(Path("none"), boxes, [[3, 3, 7], [3, 7, 0], [0, 7, 0]], [0, 8, 24])
    spans = box_spans(shown)

    def at(frame: int) -> list[tuple[int, list[float]]]:
        return sorted((place, box.tolist()) for place, box in boxes_at(spans, frame))

    assert at(0) == [(0, [0, 0, 10, 10]), (0, [50, 50, 60, 60]), (1, [20, 0, 30, 10])]
    assert at(2) == at(0)  # a quarter of a second at 8 frames per second
    assert at(4) == [(0, [50, 50, 60, 60]), (1, [20, 0, 30, 10])]  # the near one of the two stayed, the other has gone
    assert at(16) == [(1, [15, 20, 25, 30])]
    assert at(24) == at(26) == [(1, [10, 40, 20, 50])] and at(27) == []


def test_the_video_has_every_frame_and_boxes_in_color(tmp_path: Path):
    clip = write_video(tmp_path / "clip.mp4", 20, fps=8, size=(64, 64), step=5)
    shown = synthetic(clip, [[[10, 20, 40, 50]]] * 2, [[5], [5]], [0, 8])
    path = tmp_path / "out" / "clip.mp4"
    assert write_box_video(shown, path) == 20 and [file.name for file in path.parent.iterdir()] == ["clip.mp4"]
    frames = list(all_frames(path))
    capture = cv2.VideoCapture(str(path))
    assert len(frames) == 20 and capture.get(cv2.CAP_PROP_FPS) == 8
    assert {frame.shape for frame in frames} == {(320, 320, 3)}
    for number in (0, 8):
        border = frames[number][150:240, 51]
        assert np.abs(border.astype(int) - PALETTE[0]).mean() < 40
    assert np.ptp(frames[19][:, :, 0].astype(int)) < 30  # long after the last sampled frame, nothing is drawn
    with pytest.raises(UnreadableVideo):
        write_box_video(replace(shown, video=str(tmp_path / "gone.mp4")), path)
    assert len(list(all_frames(path))) == 20 and len(list(path.parent.iterdir())) == 1


def test_what_the_model_does_not_see_is_darker(tmp_path: Path):
    clip = write_video(tmp_path / "clip.mp4", 5, fps=8, size=(128, 64), step=50)
    wide = synthetic(clip, [[[-1.0] * 4]], [[0]], [0])
    shown = replace(wide, frames=[np.zeros((64, 128, 3), np.uint8)])
    write_box_video(shown, tmp_path / "out.mp4")
    last = list(all_frames(tmp_path / "out.mp4"))[4]
    assert last[160, 80].mean() < 0.6 * last[160, 320].mean() and last[160, 320].mean() > 180


def test_the_command_writes_picture_video_and_text(
    world: World, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model, output = checkpoint(tmp_path), tmp_path / "out"
    objects = ["--object_path", str(world.msrvtt / "objects")]
    assert visualize.main([str(video), *flags(world, model, output, *objects, "--text", TEXT)]) == 0
    stem = video.stem
    assert {path.name for path in output.iterdir()} == {f"{stem}.png", f"{stem}.mp4", f"{stem}.txt"}
    assert (output / f"{stem}.txt").read_text() == TEXT + "\n"
    assert cv2.imread(str(output / f"{stem}.png")).shape[1] == 6 * (SIDE + GAP) - GAP + 2 * MARGIN
    assert sum(1 for _ in all_frames(output / f"{stem}.mp4")) == sum(1 for _ in all_frames(video))
    said = capsys.readouterr().out
    assert "action 3: " in said and "32 frames" in said
    other = shutil.copy(video, tmp_path / "other.mp4")
    more = flags(world, model, tmp_path / "two", *objects, "--text", TEXT, "--no_video")
    assert visualize.main([str(video), str(other), *more]) == 0
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        f"{stem}.png", f"{stem}.txt", "other.png", "other.txt",
    }  # fmt: skip
    assert "no other.json" in capsys.readouterr().err
    texts = tmp_path / "texts.csv"
    texts.write_text(f"video_id,sentence\nother,a square\n{stem},a circle\n")
    assert visualize.main([str(video), str(other), *more, "--texts", str(texts)]) == 0
    assert (tmp_path / "two" / f"{stem}.txt").read_text() == "a circle\n"
    assert (tmp_path / "two" / "other.txt").read_text() == "a square\n"
    sheets = [cv2.imread(str(folder / f"{stem}.png")) for folder in (output, tmp_path / "two")]
    assert sheets[0].shape != sheets[1].shape or (sheets[0] != sheets[1]).any()
    assert match_text(WordMatch("dog", 0.837)) == "dog 0.84" and match_text(None) == "not matched"


def test_boxes_beyond_the_model_s_list_of_trajectories_are_drawn_too(world: World, video: Path, tmp_path: Path):
    names = list(json.loads(world.label_map.read_bytes())["label_to_idx"])
    frames = [
        {
            "objects": [
                {"class": names[2 * frame + n], "rect": [2 + 40 * n, 5, 38 + 40 * n, 60], "conf": 0.9} for n in (0, 1)
            ]
        }
        for frame in range(4)
    ]
    (tmp_path / f"{video.stem}.json").write_text(json.dumps(frames))
    path = checkpoint(tmp_path, object_count=2, max_frames=4)
    objects = {"object_path": str(tmp_path), "labelmap_path": str(world.label_map)}
    shown = explain(Predictor(path, device="cpu", **objects), video, TEXT)
    assert [entry.class_name for entry in shown.trajectories if entry.match is None][-4:] == names[4:8]
    assert len(shown.trajectories) == 8 and len(set(shown.box_trajectory.flatten().tolist()) - {0}) == 8
    assert contact_sheet(shown).size and write_box_video(shown, tmp_path / "out.mp4") == 32


def test_a_released_checkpoint_is_drawn_with_its_own_sizes(world: World, video: Path, tmp_path: Path, capsys):
    torch.save({"model_state_dict": released_state()}, tmp_path / "stoa.bin")
    more = flags(world, tmp_path / "stoa.bin", tmp_path / "out", "--no_video", "--text", "a dog is running")
    assert visualize.main([str(video), *more]) == 1
    assert "a model without objects" in capsys.readouterr().err
    assert visualize.main([str(video), *more, "--need_object", "--use_action"]) == 0
    assert "action 1: " in capsys.readouterr().out


def test_errors_name_the_file_and_the_remedy(
    world: World, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = checkpoint(tmp_path)
    again = Path(shutil.copy(video, tmp_path / video.name))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    cases: list[tuple[list[str], str]] = [
        ([str(tmp_path / "gone.mp4")], "gone.mp4: no such video"),
        ([str(video), str(again)], "would have the same output"),
        ([str(bad)], "bad.mp4: not a video"),
        ([str(video), "--object_path", str(tmp_path / "nothing")], "no such folder of object files (--object_path)"),
    ]
    for arguments, message in cases:
        assert visualize.main([*flags(world, model, tmp_path / "out", "--text", TEXT), *arguments]) == 1
        assert message in capsys.readouterr().err
    assert visualize.main([str(video), "--checkpoint", str(tmp_path / "no.bin")]) == 1
    assert "no.bin: no such checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_real_clip_with_many_frames(shared: Path, tmp_path: Path):
    real = shared / "realdata"
    model = checkpoint(tmp_path, image_resolution=64, patch_size=16)
    objects = {"object_path": str(real / "objects/msrvtt"), "labelmap_path": str(real / "vinvl/label_map.json")}
    shown = explain(Predictor(model, device="cpu", **objects), real / "msrvtt/videos/video7012.mp4", "a man is talking")
    assert "man" in {entry.class_name for entry in shown.trajectories}
    assert isinstance(shown.actions[0], Action) and torch.tensor(shown.boxes).max() <= 64
    assert contact_sheet(shown).shape[1] == 6 * (SIDE + GAP) - GAP + 2 * MARGIN
