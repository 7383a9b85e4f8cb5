"""What is drawn is what the model computed: attention, boxes, matched words; and the files of the command."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dataloaders.frames import all_frames
from modules.boxes import map_boxes_to_crop
from modules.pretrain import PretrainModel
from tests import tiny
from tests.world import FRAMES, World
from utils import visualize
from utils.checkpoint import model_content, save_atomically
from utils.drawing import match_text
from utils.explain import NOTHING, Explanation, WordMatch, explain
from utils.predictor import Predictor
from utils.weights import setup_model

TEXT = "a red circle is spinning while a blue star is bouncing"


def test_attention_weights_reproduce_what_the_queries_pool():
    model = tiny.model()
    batch = tiny.batch(3, model.config)
    with torch.no_grad():
        visual = model.visual_tokens(batch)
        encoder = model.action_encoder
        sources, visible = encoder._sources(visual.early_tokens, visual.objects)
        weights = encoder.source_weights(visual.early_tokens, visual.objects)
        torch.testing.assert_close(weights @ sources, encoder._pool(sources, visible))
        over_time = encoder.frame_weights(visual.early_tokens, visual.objects)
    assert weights.sum(-1).allclose(torch.ones(())) and over_time.sum(-1).allclose(torch.ones(()))
    assert (weights.transpose(1, 2)[~visible] == 0).all()
    assert over_time.shape == (3, model.config.num_actions, 1 + model.config.max_frames)


@pytest.fixture(scope="module")
def checkpoint(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training model with drawn weights."""
    path = tmp_path_factory.mktemp("visualize") / "model.bin"
    flags = {"need_object": True, "use_action": True, "object_count": 4, "fusion_layers": 1, "max_words": 16}
    args = Predictor(world.clip, **flags, max_frames=FRAMES, labelmap_path=str(world.label_map)).args
    save_atomically(model_content(setup_model(PretrainModel, args, lambda line: None), 0, 0), path)
    return path


@pytest.fixture(scope="module")
def explanation(world: World, checkpoint: Path) -> Explanation:
    predictor = Predictor(checkpoint, object_path=world.webvid / "objects", labelmap_path=str(world.label_map))
    return explain(predictor, world.video("1000000"), TEXT)


def test_boxes_are_those_of_the_object_file_in_the_crop(world: World, checkpoint: Path, explanation: Explanation):
    predictor = Predictor(checkpoint, object_path=world.webvid / "objects", labelmap_path=str(world.label_map))
    record = predictor.object_files(predictor.model(PretrainModel).config).get("1000000")
    size = explanation.size
    expected = map_boxes_to_crop(record.boxes, size, size, explanation.resolution)
    np.testing.assert_array_equal(explanation.boxes, expected)
    shown = {entry.id for entry in explanation.trajectories}
    assert shown == set(explanation.box_trajectory[expected[..., 0] != -1].tolist()) & set(
        record.trajectory_ids.tolist()
    )
    assert all(entry.class_name for entry in explanation.trajectories) and len(explanation.frames) == FRAMES


def test_attention_sums_to_one_and_words_are_the_texts_own(explanation: Explanation):
    assert len(explanation.actions) == 4
    for action in explanation.actions:
        total = action.patches.sum((1, 2)) + action.objects.sum(1)
        np.testing.assert_allclose(total, 1, atol=1e-5)
        assert action.frames.sum() + action.clip == pytest.approx(1, abs=1e-5)
    nouns = {entry.match.word for entry in explanation.trajectories if entry.match}
    verbs = {entry.match.word for entry in explanation.actions if entry.match}
    assert nouns <= {*TEXT.split(), NOTHING} and verbs <= {"spinning", "bouncing", NOTHING}
    assert [entry.match.word for entry in explanation.actions if entry.match].count(NOTHING) <= 1


def test_tracked_trajectories_have_the_class_of_their_boxes(world: World, checkpoint: Path):
    flags = {"object_path": world.webvid / "objects", "labelmap_path": str(world.label_map)}
    by_rule = {rule: Predictor(checkpoint, trajectory=rule, **flags) for rule in ("class", "track")}
    names = {rule: explain(predictor, world.video("1000000"), TEXT) for rule, predictor in by_rule.items()}
    classes = {rule: {entry.class_name for entry in shown.trajectories} for rule, shown in names.items()}
    assert classes["track"] <= classes["class"]  # more trajectories, of the same classes; the list is cut at 2 * O
    assert len(names["track"].trajectories) >= len(names["class"].trajectories)


def test_matches_are_written_for_people():
    assert match_text(WordMatch("dog", 0.837)) == "dog 0.84" and match_text(None) == "no word left"


def test_the_command_writes_sheet_video_and_text(world: World, checkpoint: Path, tmp_path: Path, capsys):
    video = world.video("1000000")
    flags = ["--checkpoint", str(checkpoint), "--object_path", str(world.webvid / "objects")]
    flags += ["--labelmap_path", str(world.label_map), "--output", str(tmp_path), "--device", "cpu"]
    (tmp_path / "texts.csv").write_text(f"video_id,sentence\n1000000,{TEXT}\n")
    assert visualize.main([str(video), *flags, "--texts", str(tmp_path / "texts.csv")]) == 0
    sheet = cv2.imread(str(tmp_path / "1000000.png"))
    assert sheet is not None and min(sheet.shape[:2]) > 400
    assert (tmp_path / "1000000.txt").read_text() == f"{TEXT}\n"
    counts = [len(list(all_frames(path))) for path in (tmp_path / "1000000.mp4", video)]
    assert counts[0] == counts[1] > 0
    assert "action 4: " in capsys.readouterr().out
    assert visualize.main([str(video), *flags, "--text", "a dog", "--no_video", "--output", str(tmp_path / "b")]) == 0
    assert not (tmp_path / "b" / "1000000.mp4").exists()
    again = cv2.imread(str(tmp_path / "b" / "1000000.png"))
    assert again.shape != sheet.shape or (again != sheet).any()


def test_what_cannot_be_drawn_is_said(world: World, checkpoint: Path, tmp_path: Path, capsys):
    assert visualize.main([str(tmp_path / "none.mp4"), "--checkpoint", str(checkpoint)]) == 1
    assert "none.mp4: no such video" in capsys.readouterr().err
    args = Predictor(world.clip, max_frames=FRAMES, fusion_layers=1, max_words=16).args
    save_atomically(model_content(setup_model(PretrainModel, args, lambda line: None), 0, 0), tmp_path / "bare.bin")
    video = str(world.video("1000000"))
    assert visualize.main([video, "--checkpoint", str(tmp_path / "bare.bin"), "--text", "a dog"]) == 1
    assert "a model without objects has no boxes" in capsys.readouterr().err
