"""What all fine-tuning tasks do: train, choose the best model on the validation split, score the test split once."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from dataloaders.files import atomic_write_text
from dataloaders.samples import collate
from modules.batch import Batch
from modules.task_model import TaskModel
from utils.data.clips import train_loader
from utils.evaluation.result import Evaluation
from utils.runtime.checkpoint import CheckpointError, check_own, load, load_parameters, model_content, save_atomically
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.settings.arguments import Arguments
from utils.training.trainer import Trainer

BEST_FILE = "best.bin"


class FineTuning(ABC):
    """A task: model and data are prepared on construction, before the process group starts.

    Attributes:
        selection_metric: of `Evaluation.metrics`; the best model has the largest value.
        collate: makes a batch of training samples.
    """

    selection_metric: str
    collate: Callable[..., Batch] = staticmethod(collate)

    def __init__(self, args: Arguments, runtime: Runtime, log: RunLog, model: TaskModel) -> None:
        self.args, self.runtime, self.log, self.model = args, runtime, log, model
        model.set_grad_checkpoint(args.grad_checkpoint)

    @abstractmethod
    def train_dataset(self) -> Dataset:
        """Samples to train on, addressed by (epoch, index)."""

    @abstractmethod
    def evaluate(self, split: str) -> Evaluation:
        """Score the `val` or `test` split; called by all ranks together, the result is needed on rank 0."""

    @property
    @abstractmethod
    def has_validation(self) -> bool:
        """Whether there is a validation split."""

    def loss_weights(self) -> Mapping[str, float]:
        """Weight of each loss that the model has."""
        names = self.model.available_losses
        unknown = sorted(set(self.args.loss_weights) - set(names))
        if unknown:
            raise ValueError(f"--loss_weights: no loss {', '.join(unknown)} here; there are {', '.join(names)}")
        weights = {name: self.args.loss_weights.get(name, 1.0) for name in names}
        if "contrastive" in weights:
            weights["contrastive"] *= self.args.contrastive_weight
        return weights

    def run(self) -> None:
        """What the flags ask for: training, then the test split; or the test split alone."""
        self.log.write_config(
            arguments=self.args.resolved(), model=asdict(self.model.config), behaviour=asdict(self.model.behaviour)
        )
        scored = "the model as given"
        if self.args.do_train:
            best = self._train()
            if best is None:
                return
            scored = best
        self.model.to(self.runtime.device)
        self._write(self.evaluate("test"), scored)

    # -- training ------------------------------------------------------------------------------------------------------

    def _train(self) -> str | None:
        """Train and load the best model; says which it is, None when a signal stopped the run."""
        selects_on = self._selection_split()
        make_loader, steps = train_loader(self.args, self.train_dataset(), self.runtime, self.collate)
        weights = self.loss_weights()
        trainer = Trainer(self.model, self.runtime, self.args, make_loader, steps, lambda epoch: weights, self.log)
        best = BestModel(trainer, self.selection_metric)
        if selects_on:

            def evaluate(step: int) -> dict[str, Any]:
                metrics = self.evaluate(selects_on).metrics
                self._show(f"{selects_on} split after step {step}", metrics)
                best.offer(step, metrics)
                return {"split": selects_on, **metrics}

            trainer.evaluate = evaluate
        if trainer.fit().stopped:
            return None
        if not selects_on:
            best.save(trainer.step)
            return f"the last model, step {trainer.step}"
        best.load()
        return f"the best model on the {selects_on} split, step {best.step}"

    def _selection_split(self) -> str | None:
        if self.args.select_on == "test":
            self.log.warning("--select_on test: the model is chosen on the test split, as the released code does")
            return "test"
        if self.has_validation:
            return "val"
        self.log.warning(
            "no validation split: the last model is the one that is tested. Give --test_csv, so that --val_csv is the "
            "validation list, or choose on the test split with --select_on test."
        )
        return None

    # -- results -------------------------------------------------------------------------------------------------------

    def _write(self, evaluation: Evaluation, scored: str) -> None:
        self._show(f"test split with {scored}", evaluation.metrics)
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

    def _show(self, title: str, metrics: Mapping[str, Any]) -> None:
        shown = " ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float))
        self.log.info(f"{title}: {shown}")


class BestModel:
    """The checkpoint with the largest score so far, in {output_dir}/best.bin; of equal scores the later one. Without a
    validation split it is the last one.

    Its step and score travel in restore.bin. A run killed between an evaluation and the next save repeats the
    evaluation when it is resumed, and comes to the same file.
    """

    def __init__(self, trainer: Trainer, metric: str) -> None:
        self.trainer, self.metric = trainer, metric
        self.path = Path(trainer.settings.output_dir) / BEST_FILE

    @property
    def step(self) -> int:
        return self.trainer.extra["best_step"]

    def offer(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take the trainer's present model if its score is at least the best one's; all ranks call it together."""
        score = metrics[self.metric]
        if score < self.trainer.extra.get("best_score", float("-inf")):
            return
        self.save(step, score={self.metric: score})
        self.trainer.extra |= {"best_step": step, "best_score": score}
        self.trainer.log.info(f"best {self.metric} so far: {score:.4g}, saved {self.path}")

    def save(self, step: int, **more: Any) -> None:
        """Write the trainer's present model; all ranks call it together."""
        trainer, problem = self.trainer, None
        if trainer.runtime.is_main:
            content = model_content(trainer.model, step, step // trainer.steps_per_epoch)
            try:
                save_atomically({**content, **more}, self.path)
            except CheckpointError as error:
                problem = str(error)
        problem = trainer.runtime.gather_json(problem)[0]
        if problem is not None:
            raise CheckpointError(problem)

    def load(self) -> None:
        """Put the best parameters into the model."""
        state = load(self.path)
        check_own(state, self.path)
        load_parameters(self.trainer.model, state["model"], self.path)
