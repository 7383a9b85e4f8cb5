"""A trained model on single videos gives what its task's evaluation gives; the search index; what a user sees."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modules.beam_search import SearchSettings
from modules.tasks.retrieval import RetrievalModel
from tasks import eval_captioning, eval_qa, eval_retrieval, predict
from tests.tasks.test_language_tasks import answer_flags, caption_flags, read
from tests.tasks.test_retrieval_tasks import QUICK, WITH_OBJECTS
from tests.utils.checkpoints import released_state
from tests.world import Downstream
from utils.evaluation.bad_videos import BadVideos
from utils.inference.search_index import INDEX_NAME, SearchIndex
from utils.predictor import Predictor
from utils.runtime.checkpoint import CheckpointError
from utils.settings.fields import flat_values

TRAIN = ["--do_train", "--max_steps", "3", "--lr", "1e-3", *WITH_OBJECTS]


def retrieval_flags(world: Downstream, folder: Path, *more: str) -> list[str]:
    paths = world.paths("msrvtt")
    return [
        "--output_dir", str(folder), "--clip_archive", paths["CLIP_ARCHIVE"], "--labelmap_path", paths["LABEL_MAP"],
        "--train_csv", paths["TRAIN_CSV"], "--val_csv", paths["VAL_CSV"], "--test_csv", paths["TEST_CSV"],
        "--data_path", paths["CAPTIONS"], "--features_path", paths["VIDEOS"], "--object_path", paths["OBJECT_PATH"],
        "--max_words", "16", "--rerank_top", "0", *QUICK, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(downstream: Downstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three tasks on the demo world, a few steps each."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # Java's scores take seconds each
        assert eval_captioning.main(caption_flags(downstream, folder / "caption", *TRAIN)) == 0
        assert eval_qa.main(answer_flags(downstream, folder / "qa", *TRAIN)) == 0
        assert eval_retrieval.main(retrieval_flags(downstream, folder / "retrieval", *TRAIN)) == 0
    return folder


@pytest.fixture
def predictor(downstream: Downstream, trained: Path) -> Callable[..., Predictor]:
    def make(task: str, **flags: Any) -> Predictor:
        objects = downstream.paths("msrvtt")["OBJECT_PATH"]
        own = {"object_path": objects, "device": "cpu", "precision": "fp32", **flags}  # fp32 as the evaluation
        return Predictor(trained / task / "best.bin", **own)

    return make


def video(world: Downstream, video_id: str) -> str:
    return str(Path(world.paths("msrvtt")["VIDEOS"], f"{video_id}.mp4"))


def test_captions_are_those_of_the_evaluation(downstream: Downstream, trained: Path, predictor):
    expected = {entry["video_id"]: entry["prediction"] for entry in read(trained / "caption", "predictions.json")}
    paths = [video(downstream, video_id) for video_id in expected]
    captions = predictor("caption", batch_size_val=3).caption(paths, SearchSettings(1, 15, 1.0, 0))
    assert captions == dict(zip(paths, expected.values(), strict=True))
    assert any(expected.values())


def test_answers_are_those_of_the_evaluation_and_probabilities_are_sorted(downstream: Downstream, trained, predictor):
    entries = read(trained / "qa", "predictions.json")
    video_id = entries[0]["video_id"]
    own = [entry for entry in entries if entry["video_id"] == video_id]
    answers = predictor("qa").answer(video(downstream, video_id), [entry["question"] for entry in own])
    assert [a.answer for a in answers] == [entry["prediction"] for entry in own]
    for item in answers:
        values = [item.probability, *(probability for _, probability in item.others)]
        assert values == sorted(values, reverse=True) and 0 < sum(values) <= 1 + 1e-5


def test_objects_change_what_is_seen_and_without_files_none_are(downstream: Downstream, predictor):
    lines: list[str] = []
    path = video(downstream, Path(downstream.paths("msrvtt")["TEST_CSV"]).read_text().splitlines()[1].split(",")[2])
    with_objects = predictor("retrieval").encode([path]).tokens
    without = predictor("retrieval", object_path=None, log=lines.append).encode([path]).tokens
    assert with_objects.trajectory_mask.any() and not without.trajectory_mask.any()
    assert any("no object files" in line for line in lines)


def test_search_ranks_as_the_evaluation_does(downstream: Downstream, trained: Path, predictor, tmp_path: Path):
    result = read(trained / "retrieval")
    rows = [line.split(",") for line in Path(downstream.paths("msrvtt")["TEST_CSV"]).read_text().splitlines()[1:]]
    folder = tmp_path / "videos"
    folder.mkdir()
    for row in rows:
        shutil.copy(video(downstream, row[2]), folder)
    index = SearchIndex(predictor("retrieval"), folder)
    found = index.search([row[3] for row in rows], top=len(rows))
    ranks = [[Path(f.video).stem for f in own].index(row[2]) for own, row in zip(found, rows, strict=True)]
    assert ranks == result["ranks"]["t2v"]
    reranked = index.search([rows[0][3]], top=2, rerank_top=4)[0]
    assert len(reranked) == 2 and all(0 <= f.probability <= 1 for f in reranked)


def test_match_agrees_with_search(downstream: Downstream, predictor, tmp_path: Path):
    rows = [line.split(",") for line in Path(downstream.paths("msrvtt")["TEST_CSV"]).read_text().splitlines()[1:3]]
    paths = [video(downstream, row[2]) for row in rows]
    own = predictor("retrieval")
    matches = own.match(paths, ["a red circle", rows[0][3]])
    assert [m.video for m in matches] == [paths[0]] * 2 + [paths[1]] * 2
    assert matches[0].probability >= matches[1].probability and -1 <= matches[0].similarity <= 1
    (tmp_path / "clip.mp4").symlink_to(paths[0])
    [found] = SearchIndex(predictor("retrieval", object_path=None), tmp_path).search(["a red circle"])[0]
    [alone] = predictor("retrieval", object_path=None).match([paths[0]], ["a red circle"])
    assert found.similarity == pytest.approx(alone.similarity, abs=1e-6)


def test_frames_that_are_kept_are_decoded_once_for_a_search_and_a_caption(
    downstream: Downstream, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    clip = shutil.copy(next(Path(downstream.paths("msrvtt")["VIDEOS"]).iterdir()), tmp_path / "clip.mp4")
    given = ["--checkpoint", str(trained / "caption" / "best.bin"), "--device", "cpu"]
    said = []
    for more in ([], ["--frame_cache", str(tmp_path / "cache")], ["--frame_cache", str(tmp_path / "cache")]):
        assert predict.main(["caption", str(clip), *given, *more]) == 0
        said.append(capsys.readouterr().out)
        assert len(list(tmp_path.glob("cache/*.frames"))) == bool(more), "the second run finds what the first stored"
    assert said[0] == said[1] == said[2]
    (tmp_path / "file").touch()
    assert predict.main(["caption", str(clip), *given, "--frame_cache", str(tmp_path / "file")]) == 1
    assert f"error: --frame_cache {tmp_path / 'file'}: not a folder that can be used" in capsys.readouterr().err


def test_only_what_changed_is_encoded_again(downstream: Downstream, predictor, tmp_path: Path):
    ids = [line.split(",")[2] for line in Path(downstream.paths("msrvtt")["TEST_CSV"]).read_text().splitlines()[1:6]]
    for video_id in ids[:4]:
        shutil.copy(video(downstream, video_id), tmp_path)
    make = lambda **flags: SearchIndex(predictor("retrieval", on_bad_video="skip", **flags), tmp_path)  # noqa: E731
    assert make().last_update.encoded == 4
    again = make()
    assert (again.last_update.encoded, again.last_update.kept) == (0, 4)
    os.utime(tmp_path / f"{ids[0]}.mp4", ns=(1, 1))
    (tmp_path / f"{ids[1]}.mp4").unlink()
    shutil.copy(video(downstream, ids[4]), tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    changed = make()
    update = changed.last_update
    assert (update.encoded, update.kept, update.removed, len(update.unreadable)) == (2, 2, 1, 1)
    assert "broken.mp4" in update.unreadable[0] and len(changed.names) == 4
    found = changed.search(["a red circle"], top=9)[0]
    again = make().last_update  # the broken one is tried again, alone
    assert (again.encoded, again.kept, len(again.unreadable)) == (0, 4, 1) and "broken.mp4" in again.unreadable[0]
    (tmp_path / INDEX_NAME).unlink()
    fresh = make().search(["a red circle"], top=9)[0]
    assert {f.video: f.similarity for f in found} == pytest.approx({f.video: f.similarity for f in fresh}, abs=1e-5)
    (tmp_path / INDEX_NAME).write_bytes(b"no index")
    assert make().last_update.encoded == 4
    assert make(feature_framerate=2.0).last_update.encoded == 4  # the model would see other frames
    with pytest.raises(BadVideos, match=r"broken\.mp4"):
        SearchIndex(predictor("retrieval"), tmp_path)


def test_a_checkpoint_of_another_task_is_refused(trained: Path, downstream: Downstream, predictor):
    path = video(downstream, "video9701")
    with pytest.raises(CheckpointError, match="vocabulary head has not been trained"):
        predictor("retrieval").caption([path])
    with pytest.raises(CheckpointError, match="no answers to choose from; name a checkpoint of this task"):
        predictor("caption").answer(path, ["what is this"])
    assert not predictor("caption").can_rerank and predictor("retrieval").can_rerank
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Predictor(trained / "nothing.bin")
    with pytest.raises(ValueError, match="unknown settings: frames"):
        Predictor(trained / "caption" / "best.bin", frames=3)


def test_object_files_of_other_frames_are_an_error_that_says_what_to_do(downstream, predictor, tmp_path: Path):
    (tmp_path / "clip.json").write_text(json.dumps([{"objects": []}] * 3))
    shutil.copy(video(downstream, _first_test_id(downstream)), tmp_path / "clip.mp4")
    with pytest.raises(BadVideos, match=r"clip\.json: has objects for 3 frames, 12 frames .*extract_objects"):
        predictor("retrieval", object_path=str(tmp_path)).encode([tmp_path / "clip.mp4"])


def test_settings_follow_the_checkpoint_and_its_run(trained: Path):
    settings = flat_values(Predictor(trained / "caption" / "best.bin").settings)
    own = json.loads((trained / "caption" / "config.json").read_bytes())["arguments"]
    for name in ("max_frames", "max_words", "object_count", "need_object", "use_action", "feature_framerate"):
        assert settings[name] == own[name]
    newest = max((trained / "caption" / "ckpt").iterdir())
    assert Predictor(newest).settings.frames.feature_framerate == own["feature_framerate"]


def _first_test_id(world: Downstream) -> str:
    return Path(world.paths("msrvtt")["TEST_CSV"]).read_text().splitlines()[1].split(",")[2]


def test_commands_print_results_as_text_and_json(downstream: Downstream, trained: Path, tmp_path: Path, capsys):
    clip = tmp_path / "videos" / "clip.mp4"
    clip.parent.mkdir()
    shutil.copy(video(downstream, _first_test_id(downstream)), clip)
    common = ["--device", "cpu"]

    def run(task: str, *argv: str) -> str:
        status = predict.main([*argv, "--checkpoint", str(trained / task / "best.bin"), *common])
        assert status == 0
        return capsys.readouterr().out

    assert run("caption", "caption", str(clip)).startswith(f"{clip}: ")
    [entry] = json.loads(run("caption", "caption", str(clip.parent), "--json", "--beam_size", "1"))
    assert entry["video"] == str(clip) and isinstance(entry["caption"], str)
    [entry] = json.loads(run("qa", "answer", str(clip), "--question", "what is moving", "--json"))
    assert entry["question"] == "what is moving" and len(entry["others"]) == 2
    assert "what is moving\n  " in run("qa", "answer", str(clip), "--question", "what is moving")
    assert "P(match)" in run("retrieval", "match", str(clip), "--text", "a red circle")
    found = run("retrieval", "search", str(clip.parent), "--query", "a red circle")
    assert f"1. {clip}" in found


def test_features_are_written_to_a_file(downstream: Downstream, trained: Path, tmp_path: Path, capsys):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(video(downstream, _first_test_id(downstream)), tmp_path / folder / "clip.mp4")
    (tmp_path / "two" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "texts.txt").write_text("a red circle\n\na blue star\n")
    places = [str(tmp_path / folder) for folder in ("one", "two")]
    given = ["--checkpoint", str(trained / "retrieval" / "best.bin"), "--device", "cpu", "--precision", "fp32"]
    output = tmp_path / "features.npz"
    command = ["embed", *places, *given, "--output", str(output)]
    assert predict.main([*command, "--texts", str(tmp_path / "texts.txt")]) == 3
    captured = capsys.readouterr()
    assert captured.out == f"{output}: 2 videos of 12 frames, 2 texts, features of 64 numbers\n"
    assert "left out: " in captured.err and "broken.mp4" in captured.err
    assert f"{tmp_path / 'texts.txt'}: 1 blank lines are left out" in captured.err
    with np.load(output, allow_pickle=False) as file:
        assert file["video_ids"].tolist() == [f"{place}/clip.mp4" for place in places]
        cosines = file["video_features"] @ file["text_features"].T
    texts = ["--text", "a red circle", "--text", "a blue star"]
    assert predict.main(["match", f"{places[1]}/clip.mp4", *texts, *given, "--json"]) == 0
    wanted = {entry["text"]: entry["similarity"] for entry in json.loads(capsys.readouterr().out)}
    assert cosines[1].tolist() == pytest.approx([wanted["a red circle"], wanted["a blue star"]], abs=1e-5)
    clip = ["--checkpoint", str(downstream.clip), "--max_frames", "2", "--device", "cpu"]
    assert predict.main(["embed", places[0], *clip, "--output", str(output), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("logit_scale") > 1
    sizes = {"videos": 1, "frames": 2, "texts": 0, "width": 64, "left_out": 0}
    assert document == {"file": str(output), **sizes}


def test_a_place_for_features_is_looked_at_before_the_videos(trained: Path, tmp_path: Path, capsys):
    command = ["embed", str(tmp_path / "none.mp4"), "--checkpoint", str(trained / "retrieval" / "best.bin")]
    assert predict.main([*command, "--output", str(tmp_path / "none" / "features.npz")]) == 1
    assert f"error: --output {tmp_path / 'none' / 'features.npz'}: there is no folder" in capsys.readouterr().err
    assert predict.main([*command, "--output", str(tmp_path / "features.npz")]) == 1
    assert "none.mp4: no such video" in capsys.readouterr().err and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        predict.main([*command, "--output", str(tmp_path / "features.npz"), "--text", "a", "--texts", "b"])
    assert predict.main([*command, "--output", str(tmp_path / "features.npz"), "--max_frames", "3"]) == 1
    assert (
        "was trained with max_frames 12 and is used so, not with 3; leave out --max_frames" in capsys.readouterr().err
    )


def test_commands_say_what_is_missing(trained: Path, tmp_path: Path, capsys, downstream: Downstream):
    checkpoint = ["--checkpoint", str(trained / "caption" / "best.bin")]
    assert predict.main(["caption", str(tmp_path / "none.mp4"), *checkpoint]) == 1
    assert "none.mp4: no such video" in capsys.readouterr().err
    assert predict.main(["search", str(tmp_path), "--query", "x", *checkpoint]) == 1
    assert "no video in it" in capsys.readouterr().err
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    shutil.copy(video(downstream, _first_test_id(downstream)), tmp_path / "good.mp4")
    assert predict.main(["caption", str(tmp_path), *checkpoint, "--json"]) == 3
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 1 and "broken.mp4" in captured.err


def test_a_reader_that_has_enough_ends_the_command_quietly(trained: Path, downstream: Downstream, monkeypatch):
    clip = next(Path(downstream.paths("msrvtt")["VIDEOS"]).iterdir())
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        checkpoint = ["--checkpoint", str(trained / "retrieval" / "best.bin")]
        assert predict.main(["match", str(clip), "--text", "a red star is spinning", *checkpoint]) == 1


def test_queries_are_read_line_by_line(trained: Path, downstream: Downstream, tmp_path: Path, capsys, monkeypatch):
    shutil.copy(video(downstream, _first_test_id(downstream)), tmp_path / "clip.mp4")
    monkeypatch.setattr("sys.stdin", iter(["a red circle\n", "\n", "a blue star\n"]))
    assert predict.main(["search", str(tmp_path), "--checkpoint", str(trained / "retrieval" / "best.bin")]) == 0
    out = capsys.readouterr().out
    assert "a red circle  (" in out and "a blue star  (" in out and out.count("1. ") == 2


def test_probabilities_sum_to_one(downstream: Downstream, predictor):
    model = predictor("retrieval").model(RetrievalModel)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    answers = predictor("qa").answer(video(downstream, _first_test_id(downstream)), ["what is it"], top=10_000)
    total = answers[0].probability + sum(p for _, p in answers[0].others)
    assert total == pytest.approx(1, abs=1e-4)
    assert torch.is_grad_enabled()


def test_a_released_checkpoint_is_used_with_its_sizes(downstream: Downstream, tmp_path: Path, capsys):
    torch.save({"epoch": 1, "model_state_dict": released_state()}, tmp_path / "stoa.bin")
    clip = video(downstream, _first_test_id(downstream))
    flags = ["--checkpoint", str(tmp_path / "stoa.bin"), "--need_object", "--use_action", "--json"]
    assert predict.main(["match", clip, "--text", "a dog", *flags]) == 0
    captured = capsys.readouterr()
    [entry] = json.loads(captured.out)
    assert 0 <= entry["probability"] <= 1 and "no object files" in captured.err
    settings = Predictor(tmp_path / "stoa.bin", need_object=True, use_action=True).settings
    assert settings.model.need_object and settings.behaviour is None  # a released file implies the released behaviour
