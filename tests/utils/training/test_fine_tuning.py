"""Fine-tuning around the real Trainer: the best model is kept, and the test split is scored once, with that model."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tests.utils.toy_run import ToyData, ToyModel, make_settings
from utils.runtime.checkpoint import CheckpointError, load
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog, read_metrics
from utils.settings.arguments import Arguments
from utils.training.fine_tuning import Evaluation, FineTuning

ONE = Runtime(0, 1, 0, torch.device("cpu"))
EVALUATED = (5, 6, 10, 12)  # steps: 6 an epoch, twice, and every 5
TEST_SCORE = 0.5


class Model(ToyModel):
    """The toy model with what fine-tuning asks of a task's model; it can break off in a forward pass."""

    available_losses = ("vtm", "contrastive")
    pair_losses = frozenset(("vtm", "contrastive"))
    crash_at: int | None = None

    def set_grad_checkpoint(self, is_on: bool) -> None:
        self.grad_checkpoint = is_on

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        if self.forwards + 1 == self.crash_at:
            raise InterruptedError
        return super().forward(batch)


class Toy(FineTuning):
    """Validation scores are given, in the order in which they are asked for; `calls` has the splits and parameters."""

    selection_metric = "R1"
    signal_in: int | None = None  # evaluation in which SIGTERM comes

    def __init__(self, args: Arguments, scores: Sequence[float] = (), has_validation: bool = True) -> None:
        super().__init__(args, ONE, RunLog(args.output_dir, ONE), Model(dropout=0.5))
        self.open_splits(str, has_validation=has_validation)
        self.scores, self.calls = list(scores), list[tuple[str, dict[str, Tensor]]]()
        self.data = ToyData()

    def train_dataset(self) -> Dataset:
        return self.data

    def evaluate(self, split: str) -> Evaluation:
        self.calls.append((split, {name: value.clone() for name, value in self.model.state_dict().items()}))
        if len(self.calls) == self.signal_in:
            os.kill(os.getpid(), signal.SIGTERM)
        score = self.scores.pop(0) if self.scores else TEST_SCORE
        return Evaluation({"R1": score, "texts": 4}, {"ranks": [0, 2]}, {"notes.txt": f"{split}\n"})

    @property
    def scored(self) -> list[str]:
        return [split for split, _ in self.calls]


def arguments(folder: Path, **changes: Any) -> Arguments:
    base = {**dataclasses.asdict(make_settings(folder)), "do_train": True, "num_thread_reader": 0}
    return Arguments(**{**base, "device": "cpu", "contrastive_weight": 0.01, **changes})


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_bytes())


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("scores", "best"), [([1, 3, 2, 2], 6), ([1, 3, 3, 2], 10), ([4, 3, 2, 1], 5), ([1, 2, 3, 4], 12), ([0] * 4, 12)]
)
def test_the_best_model_is_kept_and_tested_once_at_the_end(tmp_path: Path, scores: list[float], best: int):
    task = Toy(arguments(tmp_path), scores)
    task.run()
    assert task.scored == ["val"] * 4 + ["test"]
    kept = torch.load(tmp_path / "best.bin", weights_only=True)
    chosen = EVALUATED.index(best)
    assert kept["global_step"] == best and kept["score"] == {"R1": scores[chosen]}
    assert_equal(kept["model"], task.calls[chosen][1])
    assert_equal(kept["model"], task.calls[-1][1])
    assert results(tmp_path)["model"] == f"the best model on the val split, step {best}"


def test_results_and_further_files_are_written(tmp_path: Path):
    Toy(arguments(tmp_path, datatype="msvd_retrieval"), [1, 3, 2, 2]).run()
    assert results(tmp_path) == {
        "split": "test",
        "datatype": "msvd_retrieval",
        "model": "the best model on the val split, step 6",
        "init_model": None,
        "metrics": {"R1": TEST_SCORE, "texts": 4},
        "ranks": [0, 2],
    }
    assert (tmp_path / "notes.txt").read_text() == "test\n"
    config = json.loads((tmp_path / "config.json").read_bytes())
    assert config["arguments"]["epochs"] == 2 and config["behaviour"] == {"preset": "intended"}
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "evaluation"]
    assert [(line["step"], line["split"], line["R1"]) for line in lines] == [
        (step, "val", score) for step, score in zip(EVALUATED, [1, 3, 2, 2], strict=True)
    ]


@pytest.mark.parametrize("is_trained", [True, False])
def test_scores_of_a_head_that_was_never_trained_are_warned_of(tmp_path: Path, monkeypatch, is_trained: bool):
    task = Toy(arguments(tmp_path, do_train=False, do_eval=True))
    monkeypatch.setattr(Toy, "heads", ("answer", "vocabulary"))
    monkeypatch.setattr(Model, "is_trained", lambda self, part: is_trained and part == "vocabulary", raising=False)
    task.run()
    warned = "no trained answer or vocabulary head: the scores are those of random weights"
    assert (warned in (tmp_path / "log.txt").read_text()) != is_trained


def test_without_a_validation_split_the_last_model_is_tested_with_a_warning(tmp_path: Path):
    task = Toy(arguments(tmp_path), has_validation=False)
    task.run()
    assert task.scored == ["test"]
    for name in ("restore.bin", "best.bin"):
        assert_equal(task.calls[0][1], load(tmp_path / name)["model"])
    assert results(tmp_path)["model"] == "the last model, step 12"
    assert "WARNING no validation split: the last model" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("has_validation", [True, False])
def test_the_model_can_be_chosen_on_the_test_split_with_a_warning(tmp_path: Path, has_validation: bool):
    task = Toy(arguments(tmp_path, select_on="test"), [1, 3, 2, 2], has_validation)
    task.run()
    assert task.scored == ["test"] * 5
    assert results(tmp_path)["model"] == "the best model on the test split, step 6"
    assert "WARNING --select_on test" in (tmp_path / "log.txt").read_text()


def test_evaluation_alone_scores_the_model_as_given(tmp_path: Path):
    task = Toy(arguments(tmp_path, do_train=False, do_eval=True))
    task.run()
    assert task.scored == ["test"] and results(tmp_path)["model"] == "the model as given"
    assert_equal(task.calls[0][1], ToyModel().state_dict())


@pytest.mark.parametrize("scores", [[1, 3, 2, 2], [1, 3, 3, 2]])
@pytest.mark.parametrize(
    ("interruption", "before", "again"),
    [
        ({"signal_in": 2}, 2, 2),  # finishes step 7 or 8 and saves
        ({"crash_at": 6}, 1, 0),  # goes on from step 4: step 5 is evaluated again
        ({"crash_at": 11}, 3, 2),  # goes on from step 8
        ({}, 4, 3),  # has ended: the last evaluation and the test are repeated
    ],
    ids=str,
)
def test_an_interrupted_run_ends_like_an_undisturbed_one(
    tmp_path: Path, interruption: dict[str, int], before: int, again: int, scores: list[float]
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    Toy(arguments(whole), scores).run()
    task = Toy(arguments(cut), scores[:before])
    task.signal_in, task.model.crash_at = interruption.get("signal_in"), interruption.get("crash_at")
    if task.model.crash_at:
        with pytest.raises(InterruptedError):
            task.run()
    else:
        task.run()
    if interruption:
        assert task.scored == ["val"] * before and not (cut / "metrics.json").exists()
    resumed = Toy(arguments(cut), scores[again:])
    resumed.run()
    assert resumed.scored == ["val"] * len(scores[again:]) + ["test"]
    assert results(cut) == results(whole)
    one, two = load(whole / "best.bin"), load(cut / "best.bin")
    assert (one["global_step"], one["score"]) == (two["global_step"], two["score"])
    assert_equal(one["model"], two["model"])
    one, two = load(whole / "restore.bin"), load(cut / "restore.bin")
    assert_equal(one["model"], two["model"])
    if interruption:
        assert one["extra"] == two["extra"] and set(one["extra"]) == {"best_step", "best_score"}


def test_weights_of_losses(tmp_path: Path):
    assert Toy(arguments(tmp_path, loss_weights={"vtm": 2.0})).loss_weights() == {"vtm": 2.0, "contrastive": 0.01}
    with pytest.raises(ValueError, match="--loss_weights: no loss plm, vtn here; there are vtm, contrastive"):
        Toy(arguments(tmp_path, loss_weights={"vtn": 2.0, "plm": 0.0, "vtm": 1.0})).run()


def test_a_full_disk_stops_the_run_and_keeps_the_best_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    replace, kept = os.replace, []

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "best.bin":
            kept.append(target)
            if len(kept) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match=r"best\.bin: checkpoint not saved \(No space left"):
        Toy(arguments(tmp_path), [1, 3]).run()
    monkeypatch.undo()
    assert load(tmp_path / "best.bin")["global_step"] == 5 and not (tmp_path / "metrics.json").exists()
    task = Toy(arguments(tmp_path), [3, 2, 2])
    task.run()
    assert task.scored == ["val"] * 3 + ["test"] and load(tmp_path / "best.bin")["global_step"] == 6


@pytest.mark.parametrize(("batch", "parts"), [(1, 1), (4, 4)])
def test_a_batch_of_one_clip_teaches_retrieval_nothing_and_is_refused(tmp_path: Path, batch: int, parts: int):
    task = Toy(arguments(tmp_path, batch_size=batch, gradient_accumulation_steps=parts))
    remedy = rf"one clip in a batch.*contrastive and vtm.*--batch_size to at least {2 * parts}"
    with pytest.raises(ValueError, match=remedy):
        task.run()
    assert not (tmp_path / "restore.bin").exists()


def test_where_another_loss_is_trained_a_batch_of_one_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    task = Toy(arguments(tmp_path, batch_size=1, max_steps=2), [1.0] * 9)
    task.model.pair_losses = frozenset(("contrastive",))
    task.run()
    assert "contrastive would compare it with nothing, and stay 0" in caplog.text
    assert results(tmp_path)["metrics"]["texts"] == 4
