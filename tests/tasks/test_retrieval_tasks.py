"""Retrieval and multiple choice as a user runs them: the scripts on every data set, evaluation alone, bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dataloaders import video_files
from dataloaders.frames import Clip
from tasks import eval_captioning, eval_mc, eval_retrieval
from tests.processes import run_ranks
from tests.world import ROOT, Downstream
from utils.evaluation.result import Evaluation
from utils.runtime.run_log import read_metrics
from utils.training import fine_tuning

QUICK = ["--device", "cpu", "--num_thread_reader", "0", "--n_display", "1", "--batch_size", "4", "--fusion_layers", "2"]
WITH_OBJECTS = ["--need_object", "--use_action", "--object_count", "4"]


def run_script(name: str, paths: dict[str, str], folder: Path, *flags: str) -> dict[str, Any]:
    """Run a script to a good end; the content of metrics.json."""
    own = {"OUTPUT_DIR": str(folder), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **paths, **own}
    command = ["bash", str(ROOT / "scripts" / f"{name}.sh"), *QUICK, *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "metrics.json").read_bytes())


def flags_for(world: Downstream, folder: Path, *more: str) -> list[str]:
    """tasks/eval_retrieval.py on MSR-VTT's test list."""
    paths = world.paths("msrvtt")
    return [
        "--output_dir", str(folder), "--clip_archive", paths["CLIP_ARCHIVE"], "--labelmap_path", paths["LABEL_MAP"],
        "--train_csv", paths["TRAIN_CSV"], "--val_csv", paths["TEST_CSV"], "--data_path", paths["CAPTIONS"],
        "--features_path", paths["VIDEOS"], "--object_path", paths["OBJECT_PATH"], "--max_words", "24", *QUICK, *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "texts"), [("msrvtt", 7), ("msvd", 28), ("lsmdc", 7), ("didemo", 7)])
def test_retrieval_scripts_run_to_the_end(downstream: Downstream, tmp_path: Path, dataset: str, texts: int):
    result = run_script(f"retrieval_{dataset}", downstream.paths(dataset), tmp_path, "--max_steps", "2")
    assert result["metrics"]["texts"] == texts and result["metrics"]["videos"] == 7
    assert len(result["ranks"]["t2v"]) == texts and len(result["ranks"]["v2t"]) == 7
    assert result["metrics"]["skipped"] == 0 and result["skipped_videos"] == []
    assert {"t2v_R1", "v2t_MeanR", "first_stage_t2v_R1"} <= set(result["metrics"])
    assert result["model"].startswith("the best model on the val split, step 2")
    assert "own video" in (tmp_path / "best_and_worst.txt").read_text()
    found = json.loads((tmp_path / "retrieved.json").read_bytes())
    assert [entry["rank"] - 1 for entry in found] == result["ranks"]["t2v"]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert {"vtm", "contrastive"} <= set(lines[0]) and lines[-1]["split"] == "val"
    assert torch.load(tmp_path / "best.bin", weights_only=True)["global_step"] == 2


def test_didemo_reads_a_folder_of_videos_as_it_reads_the_lmdb(downstream: Downstream, tmp_path: Path):
    paths = downstream.paths("didemo")
    flags = ["--do_eval", "--datatype", "didemo_retrieval", "--data_path", paths["ANNOTATIONS"], "--max_words", "64"]
    results = []
    for name in ("videos", "videos.lmdb"):
        videos = ["--features_path", str(downstream.folder / "didemo" / name)]
        assert eval_retrieval.main(flags_for(downstream, tmp_path / name, *flags, *videos)) == 0
        results.append(json.loads((tmp_path / name / "metrics.json").read_bytes()))
    assert results[0] == results[1] and results[0]["metrics"]["videos"] == 7


@pytest.mark.slow
def test_a_frame_cache_changes_no_loss_and_no_score_and_is_read_in_the_second_epoch(
    downstream: Downstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    decoded: list[Path] = []
    read = video_files.read_clip

    def counting(path: Path, *arguments: Any) -> Clip:
        decoded.append(Path(path))
        return read(path, *arguments)

    monkeypatch.setattr(video_files, "read_clip", counting)
    flags = ["--do_train", "--epochs", "2", *WITH_OBJECTS, "--expand_msrvtt_sentences"]
    results, numbers = [], []
    for name, more in (("without", []), ("with", ["--frame_cache", str(tmp_path / "cache")])):
        decoded.clear()
        assert eval_retrieval.main(flags_for(downstream, tmp_path / name, *flags, *more)) == 0
        numbers.append((len(decoded), len(set(decoded))))
        lines = read_metrics(tmp_path / name / "metrics.jsonl")
        kept = [{k: v for k, v in line.items() if k not in ("clips_per_second", "data_wait")} for line in lines]
        results.append((kept, json.loads((tmp_path / name / "metrics.json").read_bytes())["ranks"]))
    assert results[0] == results[1]
    assert numbers[1][0] == numbers[1][1] == numbers[0][1] < numbers[0][0], "each video was decoded once"
    states = [torch.load(tmp_path / name / "best.bin", weights_only=True)["model"] for name in ("without", "with")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_multiple_choice_script_without_and_with_objects(downstream: Downstream, tmp_path: Path):
    plain = run_script("mc_msrvtt", downstream.choices(), tmp_path / "plain", "--max_steps", "2")
    assert plain["metrics"]["questions"] == 7 and len(plain["correct"]) == len(plain["items"]) == 7
    assert plain["metrics"]["accuracy"] == pytest.approx(100 * sum(plain["correct"]) / 7)
    keys = torch.load(tmp_path / "plain" / "best.bin", weights_only=True)["model"]
    assert not any(name.startswith(("fusion.", "matching_head.")) for name in keys)
    objects = [*WITH_OBJECTS, "--object_path", downstream.choices()["OBJECT_PATH"]]
    run_script("mc_msrvtt", downstream.choices(), tmp_path / "objects", "--max_steps", "2", *objects)
    assert {"vtm", "contrastive"} <= set(read_metrics(tmp_path / "objects" / "metrics.jsonl")[0])
    predictions = json.loads((tmp_path / "objects" / "predictions.json").read_bytes())
    assert [sum(entry["scores"]) <= 1 for entry in predictions] == [True] * 7


def test_plain_clip_is_evaluated_without_re_ranking(downstream: Downstream, tmp_path: Path):
    assert eval_retrieval.main(flags_for(downstream, tmp_path, "--do_eval", *WITH_OBJECTS)) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_bytes())["metrics"]
    assert metrics["videos"] == 7 and not any(name.startswith("first_stage") for name in metrics)
    assert "the matching head has not been trained" in (tmp_path / "log.txt").read_text()


def test_what_has_learned_captions_re_ranks_and_training_the_similarity_leaves_it_as_it_is(
    downstream: Downstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    unscored = Evaluation({"CIDEr": 0.0}, {})  # what captions score is not looked at here
    monkeypatch.setattr(eval_captioning.Captioning, "evaluate", lambda task, split: unscored)
    small = ["--max_frames", "2", "--max_words", "8"]
    captions = ["--do_train", "--max_steps", "1", "--select_on", "test", *small]
    assert eval_captioning.main(flags_for(downstream, tmp_path / "captions", *captions)) == 0
    ranking = ["--rerank_by", "caption", "--rerank_top", "3", *small]
    known = [*ranking, "--init_model", str(tmp_path / "captions" / "best.bin")]
    train = ["--do_train", "--max_steps", "2", "--select_on", "test"]

    def log_of(name: str, *flags: str, status: int = 0) -> str:
        assert eval_retrieval.main(flags_for(downstream, tmp_path / name, *flags)) == status
        return (tmp_path / name / "log.txt").read_text()

    assert "--init_model has not learned captions" in log_of("clip", "--do_eval", *ranking, status=1)
    assert "add --loss_weights vtm=0" in log_of("both", *train, *known, status=1)
    log_of("alone", *train, *known, "--loss_weights", "vtm=0")
    heads = ["--init_heads", str(tmp_path / "captions" / "best.bin")]
    plain = ["--init_model", str(tmp_path / "plain" / "best.bin"), *small]
    log_of("plain", *train, *small)
    mixed = log_of("mixed", "--do_eval", *plain, *heads, "--rerank_by", "caption", status=1)
    assert "the vocabulary head is that of --init_heads" in mixed
    log_of("again", "--do_eval", *ranking, "--init_model", str(tmp_path / "alone" / "best.bin"))
    trained, again = (json.loads((tmp_path / name / "metrics.json").read_bytes()) for name in ("alone", "again"))
    assert trained["metrics"] == again["metrics"] and "first_stage_t2v_R1" in again["metrics"]
    start, end = (
        torch.load(tmp_path / name / "best.bin", weights_only=True)["model"] for name in ("captions", "alone")
    )
    fixed = [name for name in start if name.startswith(("vocabulary_head.", "fusion."))]
    assert fixed and all(torch.equal(start[name], end[name]) for name in fixed)
    assert any(not torch.equal(start[name], end[name]) for name in start if name.startswith("clip.visual."))


def test_a_fine_tuned_model_is_evaluated_with_and_without_objects(downstream: Downstream, tmp_path: Path):
    train = ["--do_train", "--max_steps", "2", "--select_on", "test", *WITH_OBJECTS]
    assert eval_retrieval.main(flags_for(downstream, tmp_path / "run", *train)) == 0
    trained = json.loads((tmp_path / "run" / "metrics.json").read_bytes())
    best = ["--do_eval", "--init_model", str(tmp_path / "run" / "best.bin")]
    for name, more in (("again", WITH_OBJECTS), ("without", []), ("first", ["--rerank_top", "0"]), ("dsl", ["--dsl"])):
        assert eval_retrieval.main(flags_for(downstream, tmp_path / name, *best, *more)) == 0
    again, without, first, dsl = (
        json.loads((tmp_path / name / "metrics.json").read_bytes())["metrics"]
        for name in ("again", "without", "first", "dsl")
    )
    assert again == trained["metrics"]
    stage = {name: value for name, value in trained["metrics"].items() if name.startswith("first_stage_")}
    assert stage == {f"first_stage_{name}": value for name, value in first.items() if name[:3] in ("t2v", "v2t")}
    assert stage == {name: value for name, value in without.items() if name.startswith("first_stage_")}
    assert "dsl_t2v_R1" in dsl and "dsl_t2v_R1" not in again


def test_two_processes_score_as_one(downstream: Downstream, tmp_path: Path):
    train = ["--do_train", "--max_steps", "2", "--select_on", "test", *WITH_OBJECTS]
    assert eval_retrieval.main(flags_for(downstream, tmp_path / "run", *train)) == 0
    for processes in (1, 2):
        flags = ["--do_eval", "--init_model", str(tmp_path / "run" / "best.bin"), *WITH_OBJECTS]
        argv = flags_for(downstream, tmp_path / str(processes), *flags)
        run_ranks(eval_retrieval.main, argv, tmp_path / f"logs{processes}", processes)
    one, two = (json.loads((tmp_path / str(n) / "metrics.json").read_bytes()) for n in (1, 2))
    assert one == two


def test_batches_of_similar_captions_are_the_same_for_two_processes(downstream: Downstream, tmp_path: Path):
    losses = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        flags = ["--do_train", "--max_steps", "2", "--similar_batches", "8", "--batch_size", str(4 // processes)]
        argv = flags_for(downstream, folder, *flags)
        run_ranks(eval_retrieval.main, argv, tmp_path / f"logs{processes}", processes)
        losses.append([line["contrastive"] for line in read_metrics(folder / "metrics.jsonl") if "contrastive" in line])
    assert len(losses[0]) == 2 and losses[0] == pytest.approx(losses[1], rel=1e-4)


class Opened(BaseException):
    """Stands in for the training that would begin now."""


@pytest.mark.parametrize("task", [eval_retrieval, eval_mc, eval_captioning])
@pytest.mark.parametrize("among", [0, 8])
def test_every_task_of_pairs_can_train_on_batches_of_similar_captions(
    downstream: Downstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Any, among: int
):
    def opened(args: Any, dataset: Any, *_: Any) -> None:
        raise Opened(dataset.arrange and (dataset.arrange.among, dataset.arrange.group, dataset.arrange.after))

    monkeypatch.setattr(fine_tuning, "train_loader", opened)
    flags = ["--val_csv", downstream.choices()["TEST_CSV"]] if task is eval_mc else []
    flags += ["--similar_batches", "8", "--similar_group", "2", "--similar_after", "1"] if among else []
    with pytest.raises(Opened, match=r"\(8, 2, 1\)" if among else "None"):
        task.main(flags_for(downstream, tmp_path, "--do_train", *flags))


def test_missing_and_unreadable_test_videos(downstream: Downstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    videos = tmp_path / "videos"
    shutil.copytree(downstream.paths("msrvtt")["VIDEOS"], videos)
    (videos / "video7011.mp4").unlink()
    (videos / "video7013.mp4").write_bytes(b"no video")
    flags = ["--do_eval", "--features_path", str(videos)]
    assert eval_retrieval.main(flags_for(downstream, tmp_path / "stop", *flags)) == 1
    log = (tmp_path / "stop" / "log.txt").read_text()
    assert "1 of 7 test videos are not in" in log and "video7011" in log and "--on_bad_video skip" in log
    assert (tmp_path / "stop" / "missing_test_videos.txt").read_text() == "video7011\n"
    skip = flags_for(downstream, tmp_path / "skip", *flags, "--on_bad_video", "skip")
    assert eval_retrieval.main(skip) == 0
    result = json.loads((tmp_path / "skip" / "metrics.json").read_bytes())
    assert result["metrics"]["skipped"] == 2 and result["metrics"]["videos"] == 5
    assert [name for name in ("video7011", "video7013") if any(name in text for text in result["skipped_videos"])]
    shutil.copy(downstream.paths("msrvtt")["VIDEOS"] + "/video7011.mp4", videos)
    assert eval_retrieval.main(flags_for(downstream, tmp_path / "damaged", *flags)) == 1
    assert "video7013.mp4" in (tmp_path / "damaged" / "log.txt").read_text()


def test_missing_training_videos_are_listed_and_left_out(downstream: Downstream, tmp_path: Path):
    videos = tmp_path / "videos"
    shutil.copytree(downstream.paths("msrvtt")["VIDEOS"], videos)
    for number in (0, 5):
        (videos / f"video{number}.mp4").unlink()
    flags = ["--do_train", "--max_steps", "1", "--features_path", str(videos)]
    assert eval_retrieval.main(flags_for(downstream, tmp_path / "run", *flags)) == 0
    assert (tmp_path / "run" / "missing_train_videos.txt").read_text() == "video0\nvideo5\n"
    assert "no validation split" in (tmp_path / "run" / "log.txt").read_text()
    empty = ["--do_eval", "--features_path", str(tmp_path)]
    shutil.rmtree(videos)
    assert eval_retrieval.main(flags_for(downstream, tmp_path / "none", *empty)) == 1
    assert "none of the 7 test videos is in" in (tmp_path / "none" / "log.txt").read_text()


def test_unknown_data_set_is_an_error(downstream: Downstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for main, kind in ((eval_retrieval.main, "youcook_retrieval"), (eval_mc.main, "msvd_mc")):
        with pytest.raises(SystemExit):
            main(flags_for(downstream, tmp_path, "--do_eval", "--datatype", kind))
        assert f"--datatype {kind}: choose one of" in capsys.readouterr().err
