"""The explanation of a video: boxes, attention, and which words its tokens match."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloaders.label_map import class_names, load_label_map
from dataloaders.samples import collate, text_part
from modules.config import MATCHING_LOSSES, Behaviour
from modules.objectives.word_contrast import cosines
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from modules.tokenizer import ClipTokenizer
from tests.utils.checkpoints import save_tiny
from tests.utils.pictures.pictured import TEXT
from tests.world import FRAMES, World
from utils.pictures.box_video import write_box_video
from utils.pictures.contact_sheet import GAP, MARGIN, SIDE, contact_sheet
from utils.pictures.explain import NOTHING, Action, Explanation, explain
from utils.predictor import Predictor
from utils.runtime.checkpoint import CheckpointError


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


@pytest.mark.parametrize("form", MATCHING_LOSSES)
def test_matching_is_the_best_assignment_of_the_model_s_tokens_to_words(
    world: World, video: Path, tmp_path: Path, form: str
):
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map)}
    checkpoint = save_tiny(tmp_path, behaviour=Behaviour(matching_loss=form))
    predictor = Predictor(checkpoint, device="cpu", precision="fp32", **objects)
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
        places = [place for place, word in enumerate(index) if whole[word] in tagged.split()]
        if form == "contrastive":  # the last piece stands for its word
            places = [place for place in places if index[place + 1 : place + 2] != [index[place]]]
        positions = [place + 1 for place in places] + [len(index) + 1]
        names = [whole[index[place - 1]] if place <= len(index) else NOTHING for place in positions]
        end = len(positions) - 1
        if form == "contrastive":  # words first, and the end token for all other rows
            scores = cosines(rows[None], words[None, positions])[0].softmax(-1).tolist()
            columns = [*range(end), *[None] * max(0, len(rows) - end)]
        else:
            scores = (rows @ words[positions].T).softmax(-1).tolist()
            columns = [*range(len(positions)), *[None] * max(0, len(rows) - len(positions))]
        best = max(
            permutations(columns, len(rows)),
            key=lambda order: sum(row[column] for row, column in zip(scores, order, strict=True) if column is not None),
        )
        if form == "contrastive":
            best = [end if column is None else column for column in best]
        assert [entry.word if entry else None for entry in found] == [None if c is None else names[c] for c in best]
        for entry, row, column in zip(found, scores, best, strict=True):
            assert entry is None or entry.score == pytest.approx(row[column], rel=1e-4)


def test_the_text_is_by_default_the_caption_of_the_checkpoint(world: World, video: Path, tmp_path: Path):
    path = save_tiny(tmp_path)
    predictor = Predictor(path, labelmap_path=str(world.label_map), device="cpu")
    shown = explain(predictor, video)
    assert shown.text == predictor.caption([video])[str(video)] and not shown.trajectories
    untrained = Predictor(save_tiny(tmp_path, RetrievalModel), device="cpu")
    with pytest.raises(CheckpointError, match=r"vocabulary head has not been trained.*--text"):
        explain(untrained, video)
    assert len(explain(untrained, video, TEXT).actions) == 3


def test_reversed_frames_are_shown_as_the_model_saw_them(world: World, video: Path, tmp_path: Path):
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map)}
    forward, backward = (
        explain(Predictor(save_tiny(tmp_path), device="cpu", eval_frame_order=order, **objects), video, TEXT)
        for order in (0, 1)
    )
    np.testing.assert_array_equal(backward.boxes, forward.boxes[::-1])
    np.testing.assert_array_equal(backward.frame_indices, forward.frame_indices[::-1])
    assert all((a == b).all() for a, b in zip(backward.frames, forward.frames[::-1], strict=True))
    assert backward.actions[0].patches[0] == pytest.approx(forward.actions[0].patches[-1], abs=0.05)


def test_models_without_actions_or_objects(world: World, video: Path, tmp_path: Path):
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map)}
    plain = Predictor(save_tiny(tmp_path, use_action=False), device="cpu", **objects)
    shown = explain(plain, video, TEXT)
    assert not shown.actions and any(entry.match for entry in shown.trajectories)
    inside = Predictor(save_tiny(tmp_path, use_action=False, object_fuse="attention"), device="cpu", **objects)
    shown = explain(inside, video, TEXT)
    assert not shown.actions and shown.trajectories and not any(entry.match for entry in shown.trajectories)
    assert contact_sheet(shown).shape[2] == 3
    without = Predictor(save_tiny(tmp_path, use_action=False, need_object=False), device="cpu")
    with pytest.raises(CheckpointError, match="without objects .* --need_object"):
        explain(without, video, TEXT)


def test_tracked_trajectories_have_the_class_of_their_boxes(world: World, video: Path, tmp_path: Path):
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map), "device": "cpu"}
    model = save_tiny(tmp_path)
    by_class, by_track = (
        explain(Predictor(model, trajectory=rule, **objects), video, TEXT) for rule in ("class", "track")
    )
    names = {entry.id: entry.class_name for entry in by_class.trajectories}
    tracked = {entry.id: entry.class_name for entry in by_track.trajectories}
    assert len(tracked) >= len(names) and set(tracked) != set(names)
    np.testing.assert_array_equal(by_class.boxes, by_track.boxes)
    for index, track in zip(by_class.box_trajectory.flat, by_track.box_trajectory.flat, strict=True):
        assert track not in tracked or tracked[track] == names[index]


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
    path = save_tiny(tmp_path, object_count=2, max_frames=4)
    objects = {"object_path": str(tmp_path), "labelmap_path": str(world.label_map)}
    shown = explain(Predictor(path, device="cpu", **objects), video, TEXT)
    assert [entry.class_name for entry in shown.trajectories if entry.match is None][-4:] == names[4:8]
    assert len(shown.trajectories) == 8 and len(set(shown.box_trajectory.flatten().tolist()) - {0}) == 8
    assert contact_sheet(shown).size and write_box_video(shown, tmp_path / "out.mp4") == 32


def test_a_real_clip_with_many_frames(shared: Path, tmp_path: Path):
    real = shared / "realdata"
    model = save_tiny(tmp_path, image_resolution=64, patch_size=16)
    objects = {"object_path": str(real / "objects/msrvtt"), "labelmap_path": str(real / "vinvl/label_map.json")}
    shown = explain(Predictor(model, device="cpu", **objects), real / "msrvtt/videos/video7012.mp4", "a man is talking")
    assert "man" in {entry.class_name for entry in shown.trajectories}
    assert isinstance(shown.actions[0], Action) and torch.tensor(shown.boxes).max() <= 64
    assert contact_sheet(shown).shape[1] == 6 * (SIDE + GAP) - GAP + 2 * MARGIN
