"""Captioning and question answering as a user runs them: the scripts on both data sets, evaluation alone, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks import eval_captioning, eval_qa
from tests.processes import run_ranks
from tests.tasks.test_retrieval_tasks import QUICK, WITH_OBJECTS, run_script
from tests.world import Downstream
from utils.runtime.checkpoint import load
from utils.runtime.run_log import read_metrics

pytestmark = pytest.mark.usefixtures("no_java")
NUMBERS = ("Bleu_1", "Bleu_4", "ROUGE_L", "CIDEr")


@pytest.fixture
def no_java(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java's scores are tested elsewhere, and take seconds each."""
    programs = tmp_path_factory.mktemp("programs")
    for name in ("bash", "dirname", "basename"):
        (programs / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(programs))


def read(folder: Path, name: str = "metrics.json") -> Any:
    return json.loads((folder / name).read_bytes())


def caption_flags(world: Downstream, folder: Path, *more: str) -> list[str]:
    """tasks/eval_captioning.py on MSR-VTT's usual split."""
    paths = world.paths("msrvtt")
    return [
        "--output_dir", str(folder), "--clip_archive", paths["CLIP_ARCHIVE"], "--labelmap_path", paths["LABEL_MAP"],
        "--data_path", paths["CAPTIONS"], "--features_path", paths["VIDEOS"], "--object_path", paths["OBJECT_PATH"],
        "--max_words", "16", *QUICK, *more,
    ]  # fmt: skip


def answer_flags(world: Downstream, folder: Path, *more: str) -> list[str]:
    """tasks/eval_qa.py on MSRVTT-QA."""
    paths, questions = world.paths("msrvtt"), world.folder / "msrvtt" / "qa"
    files = [
        part
        for split in ("train", "val", "test")
        for part in (f"--msrvtt_qa_{split}_json", str(questions / f"{split}.jsonl"))
    ]
    return [
        "--output_dir", str(folder), "--clip_archive", paths["CLIP_ARCHIVE"], "--labelmap_path", paths["LABEL_MAP"],
        "--msrvtt_features_path", paths["VIDEOS"], "--object_path", paths["OBJECT_PATH"],
        "--max_words", "16", *files, *QUICK, *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "losses"), [("msrvtt", {"caption", "contrastive"}), ("msvd", {"caption"})])
def test_captioning_scripts_run_to_the_end(downstream: Downstream, tmp_path: Path, dataset: str, losses: set[str]):
    paths = downstream.paths(dataset)
    if dataset == "msrvtt":  # in the usual split, which needs no lists
        paths = {name: value for name, value in paths.items() if not name.endswith("_CSV")}
    result = run_script(f"caption_{dataset}", paths, tmp_path, "--max_steps", "2", "--beam_size", "2")
    assert result["metrics"]["videos"] == 7 and result["metrics"]["skipped"] == 0
    assert {*NUMBERS, *(f"released_{name}" for name in NUMBERS)} <= set(result["metrics"])
    assert result["model"].startswith("the best model on the val split, step 2")
    assert len(result["items"]) == len(result["scores"]["CIDEr"]) == 7 and result["tokenizer"]
    predictions = read(tmp_path, "predictions.json")
    assert [len(entry["references"]) for entry in predictions] == [4] * 7
    assert [entry["image_id"] for entry in read(tmp_path, "predictions_coco.json")] == result["items"]
    line = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert losses <= set(line) and not ({"caption", "contrastive"} - losses) & set(line)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["msrvtt", "msvd"])
def test_question_answering_scripts_run_to_the_end(downstream: Downstream, tmp_path: Path, dataset: str):
    paths = {**downstream.paths(dataset), "QUESTIONS": str(downstream.folder / dataset / "qa")}
    result = run_script(f"qa_{dataset}", paths, tmp_path, "--max_steps", "2")
    metrics = result["metrics"]
    assert {"accuracy", "accuracy_what", "majority", "unanswerable"} <= set(metrics)
    assert metrics["questions"] == len(result["correct"]) == len(result["items"]) > 20
    assert metrics["accuracy"] == pytest.approx(100 * sum(result["correct"]) / metrics["questions"])
    answers = json.loads((Path(paths["QUESTIONS"]) / "train_ans2label.json").read_bytes())
    best = torch.load(tmp_path / "best.bin", weights_only=True)
    assert len(best["config"]["answers"]) == len(answers) == best["model"]["answer_head.weight"].shape[0]
    assert "answer" in read_metrics(tmp_path / "metrics.jsonl")[0]


def test_released_answers_are_tokens_of_the_vocabulary(downstream: Downstream, tmp_path: Path):
    train = ["--do_train", "--max_steps", "1", "--behaviour", "released", *WITH_OBJECTS]
    assert eval_qa.main(answer_flags(downstream, tmp_path / "run", *train)) == 0
    assert "first_token_accuracy" in read(tmp_path / "run")["metrics"]
    keys = torch.load(tmp_path / "run" / "best.bin", weights_only=True)["model"]
    assert "vocabulary_head.bias" in keys and "answer_head.bias" not in keys


@pytest.mark.slow
def test_fine_tuned_models_are_evaluated_again_by_two_processes_and_without_objects(
    downstream: Downstream, tmp_path: Path
):
    for main, flags_for in ((eval_captioning.main, caption_flags), (eval_qa.main, answer_flags)):
        folder = tmp_path / flags_for.__name__
        train = ["--do_train", "--max_steps", "2", *WITH_OBJECTS]
        assert main(flags_for(downstream, folder / "run", *train)) == 0
        best = ["--do_eval", "--init_model", str(folder / "run" / "best.bin")]
        for processes in (1, 2):
            argv = flags_for(downstream, folder / str(processes), *best, *WITH_OBJECTS)
            run_ranks(main, argv, folder / f"logs{processes}", processes)
        trained, one, two = (read(folder / name) for name in ("run", "1", "2"))
        assert one == two and one["metrics"] == trained["metrics"]
        assert main(flags_for(downstream, folder / "without", *best)) == 0
        assert read(folder / "without")["items"] == one["items"]


@pytest.mark.slow
def test_an_interrupted_run_ends_like_an_undisturbed_one(
    downstream: Downstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From a restore.bin of the middle of the run, as a killed process leaves it."""
    evaluate, kept = eval_qa.QuestionAnswering.evaluate, tmp_path / "kept.bin"

    def keep(task: eval_qa.QuestionAnswering, split: str):
        restore = Path(task.args.output_dir) / "restore.bin"
        if restore.exists() and not kept.exists():
            shutil.copy(restore, kept)
        return evaluate(task, split)

    monkeypatch.setattr(eval_qa.QuestionAnswering, "evaluate", keep)
    flags = ["--do_train", "--epochs", "3", "--eval_every", "2", "--save_every", "2", *WITH_OBJECTS]
    assert eval_qa.main(answer_flags(downstream, tmp_path / "whole", *flags)) == 0
    (tmp_path / "cut").mkdir()
    shutil.copy(kept, tmp_path / "cut" / "restore.bin")
    assert eval_qa.main(answer_flags(downstream, tmp_path / "cut", *flags)) == 0
    whole, cut, middle = (load(path) for path in (tmp_path / "whole/restore.bin", tmp_path / "cut/restore.bin", kept))
    assert 0 < middle["global_step"] < whole["global_step"] == cut["global_step"]
    assert all(torch.equal(whole["model"][name], cut["model"][name]) for name in whole["model"])
    assert read(tmp_path / "whole")["metrics"] == read(tmp_path / "cut")["metrics"]


def test_the_usual_split_gives_way_to_lists(downstream: Downstream, tmp_path: Path):
    folder = downstream.folder / "msrvtt"
    lists = ["--train_csv", str(folder / "test.csv"), "--val_csv", str(folder / "test.csv")]
    flags = ["--do_train", "--max_steps", "1", *lists]
    assert eval_captioning.main(caption_flags(downstream, tmp_path, *flags)) == 0
    log = (tmp_path / "log.txt").read_text()
    assert "train: 7 videos, 28 captions" in log and "test: 7 videos, 28 captions" in log
    assert "7 of the test videos are training videos too" in log and "no validation split" in log


def test_bad_input_is_named(downstream: Downstream, tmp_path: Path):
    captions = json.loads(Path(downstream.paths("msrvtt")["CAPTIONS"]).read_bytes())
    tests = [entry for entry in captions["sentences"] if int(entry["video_id"][5:]) >= 7010]
    for entry in tests[:4]:
        entry["caption"] = "  "
    tests[4]["caption"] = "a very long caption " * 40
    (tmp_path / "data.json").write_text(json.dumps({"sentences": tests}))
    flags = ["--do_eval", "--data_path", str(tmp_path / "data.json")]
    assert eval_captioning.main(caption_flags(downstream, tmp_path / "empty", *flags)) == 0
    log = (tmp_path / "empty" / "log.txt").read_text()
    assert "test: 4 captions have no word and are left out, and 1 videos that have no other" in log
    assert read(tmp_path / "empty")["metrics"]["videos"] == 6

    asked = [json.loads(line) for line in (downstream.folder / "msrvtt/qa/test.jsonl").read_text().splitlines()]
    asked[0]["answer"] = "an answer of several words"
    more = [{**asked[0], "video_id": "video9999"}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in asked + more))
    flags = ["--do_train", "--max_steps", "1", "--msrvtt_qa_test_json", str(tmp_path / "test.jsonl")]
    assert eval_qa.main(answer_flags(downstream, tmp_path / "stop", *flags)) == 1
    assert "1 of 8 test videos are not in" in (tmp_path / "stop" / "log.txt").read_text()
    assert eval_qa.main(answer_flags(downstream, tmp_path / "skip", *flags, "--on_bad_video", "skip")) == 0
    metrics = read(tmp_path / "skip")["metrics"]
    assert metrics["questions"] == len(asked) and metrics["skipped"] == 1 and metrics["unanswerable"] > 0
    for name in ("--msrvtt_qa_train_json", "--msrvtt_qa_test_json"):
        argv = answer_flags(downstream, tmp_path / "none", "--do_train")
        where = argv.index(name)
        assert eval_qa.main(argv[:where] + argv[where + 2 :]) == 1
        assert f"{name} is required" in (tmp_path / "none" / "log.txt").read_text()
