"""Base of the fine-tuning tasks: train, choose the best model on the validation split, score the test split once."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from dataloaders.datasets.csv_files import check_splits
from dataloaders.files import atomic_write_text
from dataloaders.samples import collate
from modules.batch import Batch
from modules.tasks.task_model import TaskModel
from utils.data.clips import SplitClips, train_loader
from utils.evaluation.result import Evaluation
from utils.runtime.checkpoint import CheckpointError, check_own, load, load_parameters, model_content, save_atomically
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.settings.arguments import TaskArguments
from utils.training.loss_weights import chosen_weights
from utils.training.trainer import Trainer

BEST_FILE = "best.bin"


class FineTuning(ABC):
    """A task: model and data are prepared on construction, before the process group starts.

    Attributes:
        selection_metric: of `Evaluation.metrics`; the best model has the largest value.
        model_class: of the model that is trained; a task of one's own is a subclass with another.
        collate: makes a batch of training samples.
        heads: parts of the model of which one gives its answers.
        splits: data of the test split, and in training of the training and validation splits, by name.
    """

    selection_metric: str
    model_class: type[TaskModel]
    collate: Callable[..., Batch] = staticmethod(collate)
    heads: tuple[str, ...] = ()

    def __init__(self, args: TaskArguments, runtime: Runtime, log: RunLog, model: TaskModel) -> None:
        self.args, self.runtime, self.log, self.model = args, runtime, log, model
        self.splits: dict[str, Any] = {}
        model.set_grad_checkpoint(args.grad_checkpoint)

    def open_splits(self, open_split: Callable[[str], Any], *, has_validation: bool) -> None:
        """Fill `splits`; call it at the end of the construction.

        Args:
            open_split: opens the `train`, `val` or `test` split.
            has_validation: there is a validation split; it is opened where the best model is chosen on it.
        """
        names = ["test"]
        if self.args.do_train:
            names += ["train", "val"] if has_validation and self.args.select_on == "val" else ["train"]
        self.splits = {name: open_split(name) for name in names}
        self._compare_splits()

    def _compare_splits(self) -> None:
        """Warn of videos that are in two splits."""
        opened = {name: getattr(split, "clips", split) for name, split in self.splits.items()}
        splits = {name: clips.split for name, clips in opened.items() if isinstance(clips, SplitClips)}
        check_splits(splits)
        for first, second in combinations([name for name in ("train", "val", "test") if name in splits], 2):
            if shared := set(splits[first].video_ids).intersection(splits[second].video_ids):
                kind = "training" if first == "train" else "validation"
                self.log.warning(f"{len(shared)} of the {second} videos are {kind} videos too")

    @abstractmethod
    def train_dataset(self) -> Dataset:
        """Samples to train on, addressed by (epoch, index)."""

    @abstractmethod
    def evaluate(self, split: str) -> Evaluation:
        """Score the `val` or `test` split; called by all ranks together, the result is needed on rank 0."""

    def loss_weights(self) -> dict[str, float]:
        """Weight of each loss that the model has."""
        weights = chosen_weights(self.args, self.model.available_losses)
        if "contrastive" in weights:
            weights["contrastive"] *= self.args.contrastive_weight
        return weights

    def run(self) -> None:
        """Train, if --do_train is set, and score the test split."""
        self.log.write_run(self.args.resolved(), self.model)
        scored = "the model as given"
        if self.args.do_train:
            best = self._train()
            if best is None:
                return
            scored = best
        elif self.heads and not any(map(self.model.is_trained, self.heads)):
            self.log.warning(
                f"{scored} has no trained {' or '.join(self.heads)} head: the scores are those of random weights. Give "
                "--do_train, or a checkpoint of this task as --init_model"
            )
        self.model.to(self.runtime.device)
        self._write(self.evaluate("test"), scored)

    def _train(self) -> str | None:
        """Train and load the best model; says which it is, None when a signal stopped the run."""
        selects_on = self._selection_split()
        make_loader, steps = train_loader(self.args, self.train_dataset(), self.runtime, self.collate)
        weights = self.loss_weights()
        self._check_batch(weights)
        best = BestModel(self.model, self.runtime, self.log, steps, self.selection_metric)

        def evaluate(step: int) -> dict[str, Any]:
            assert selects_on is not None
            metrics = self.evaluate(selects_on).metrics
            self.log.scores(f"{selects_on} split after step {step}", metrics)
            best.offer(step, metrics)
            return {"split": selects_on, **metrics}

        trainer = Trainer(
            self.model,
            self.runtime,
            self.args,
            make_loader,
            steps,
            lambda epoch: weights,
            self.log,
            evaluate if selects_on else None,
            best.score,
        )
        result = trainer.fit()
        if result.stopped:
            return None
        if not selects_on:
            best.save(result.step)
            return f"the last model, step {result.step}"
        best.load()
        return f"the best model on the {selects_on} split, step {best.step}"

    def _check_batch(self, weights: Mapping[str, float]) -> None:
        """A single clip has no negatives: losses that compare clips with other texts are 0 then, and teach nothing.

        Raises:
            ValueError: no other loss is trained.
        """
        active = {name for name, weight in weights.items() if weight}
        idle = active & self.model.pair_losses
        if self.args.micro_batch_size * self.runtime.world_size > 1 or not idle:
            return
        reason = f"one clip in a batch of all processes: {' and '.join(sorted(idle))} would compare it with nothing"
        if idle == active:
            parts = self.args.gradient_accumulation_steps
            raise ValueError(
                f"{reason}. Raise --batch_size to at least {2 * parts} (--gradient_accumulation_steps {parts})"
            )
        self.log.warning(f"{reason}, and stay 0")

    def _selection_split(self) -> str | None:
        if self.args.select_on == "test":
            self.log.warning("--select_on test: the model is chosen on the test split, as the released code does")
            return "test"
        if "val" in self.splits:
            return "val"
        self.log.warning(
            "no validation split: the last model is the one that is tested. Give one (--val_csv beside --test_csv, or "
            "rows of split val in --data_csv), or choose on the test split with --select_on test."
        )
        return None

    def _write(self, evaluation: Evaluation, scored: str) -> None:
        self.log.scores(f"test split with {scored}", evaluation.metrics)
        if not self.runtime.is_main:
            return
        folder = Path(self.args.output_dir)
        content: dict[str, Any] = {
            "split": "test",
            "datatype": self.args.datatype,
            "model": scored,
            "init_model": self.args.init_model,
        }
        content |= {"metrics": evaluation.metrics, **evaluation.details}
        for name, text in {**evaluation.files, "metrics.json": json.dumps(content, indent=1) + "\n"}.items():
            atomic_write_text(folder / name, text)
            self.log.info(f"wrote {folder / name}")


class BestModel:
    """The checkpoint with the largest score so far, in {output_dir}/best.bin; of equal scores the later one.

    Without a validation split it is the last one. Its step and score travel in restore.bin. A run killed between an
    evaluation and the next save repeats the evaluation when it is resumed, and comes to the same file.

    Args:
        model: whose parameters are saved and loaded.
        steps_per_epoch: updates per epoch.
        metric: the score's name.

    Attributes:
        score: `best_step` and `best_score`, once there is one; the trainer's `extra`.
    """

    def __init__(self, model: TaskModel, runtime: Runtime, log: RunLog, steps_per_epoch: int, metric: str) -> None:
        self.model, self.runtime, self.log, self.metric = model, runtime, log, metric
        self.steps_per_epoch = steps_per_epoch
        self.path = log.folder / BEST_FILE
        self.score: dict[str, Any] = {}

    @property
    def step(self) -> int:
        """Updates that the best model had."""
        return self.score["best_step"]

    def offer(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take the present model if its score is at least the best one's; all ranks call it together."""
        score = metrics[self.metric]
        if score < self.score.get("best_score", float("-inf")):
            return
        self.save(step, score={self.metric: score})
        self.score |= {"best_step": step, "best_score": score}
        self.log.info(f"best {self.metric} so far: {score:.4g}, saved {self.path}")

    def save(self, step: int, **more: Any) -> None:
        """Write the present model; all ranks call it together."""
        problem = None
        if self.runtime.is_main:
            content = model_content(self.model, step, step // self.steps_per_epoch)
            try:
                save_atomically({**content, **more}, self.path)
            except CheckpointError as error:
                problem = str(error)
        problem = self.runtime.gather_json(problem)[0]
        if problem is not None:
            raise CheckpointError(problem)

    def load(self) -> None:
        """Put the best parameters into the model."""
        state = load(self.path)
        check_own(state, self.path)
        load_parameters(self.model, state["model"], self.path)
