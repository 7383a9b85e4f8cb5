"""The training loop of every task: accumulate, clip, update, report, save, evaluate, resume."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from modules.batch import Batch, to_device
from utils.runtime.checkpoint import CheckpointError, CheckpointFolder, check_own, load, load_parameters, model_content
from utils.runtime.distributed import Runtime
from utils.runtime.precision import autocast, resolve_precision
from utils.runtime.run_log import RunLog
from utils.runtime.stop_signals import StopSignals
from utils.settings.fields import flat_values
from utils.settings.groups import TrainSettings
from utils.training.optimizer import BertAdam, freeze_layers, parameter_groups
from utils.training.resume import (
    check_same_run,
    follow_choices,
    gather_random_states,
    restore_optimizer,
    restore_random_states,
    untouched_random_state,
)
from utils.training.schedule import SCHEDULES
from utils.training.step_meters import Meter, SkippedFiles, StepFlags


class NonFiniteLoss(Exception):
    """A loss became nan or infinite; the message names the step, the losses and the clips."""


@dataclass
class TrainResult:
    """The result of `Trainer.fit`."""

    step: int  # updates done, those before a resume included
    stopped: bool  # True when a signal ended it early
    skipped: int  # unreadable samples that were replaced, over all ranks


class Trainer:
    """Trains a model on batches: the model decides what is computed, the trainer when and how.

    An update is `gradient_accumulation_steps` batches; their gradients are averaged, cut to `max_grad_norm` and given
    to BertAdam; then the model brings parameters back into their bounds. The trainer reads no value from
    the device within an update (but for fp16's GradScaler, which looks at its overflow flag): sums stay on the device
    until a display step.

    The run ends after `epochs * steps_per_epoch` updates, or after `max_steps` if that is less; the learning-rate
    schedule is laid out over the same number. `steps_per_epoch` counts updates: a rest that fills none is left out.

    `restore.bin` in the output folder, where present, is continued from: parameters, moments, scaler, random states,
    position in the data and sums for the next log line, so that the run ends as if it had never been interrupted, bit
    for bit on the CPU. Settings of the new command line win over those of the file, and each difference is logged.

    SIGTERM or SIGINT (a second SIGINT leaves at once): the current update is finished, saved, and `fit` returns. Ranks
    agree on that, and on non-finite losses, through `StepFlags`.

    Args:
        model: a `TaskModel`, or what has its `config`, `behaviour`, `frame_dropout`, `remember_trainable()`,
            `set_active_losses(names)` and `after_update()`; maps a batch to named scalar losses and to detached scalars
            named `*_accuracy`.
        runtime: this process; its process group has been started.
        settings: an `Arguments`, or a bare `TrainSettings`.
        make_loader: (epoch, start_batch) -> batches of that epoch from `start_batch` on, asked for once per epoch.
            A batch has `video_id` (list of B) and may have `skipped` (B lists of files that could not be read) and
            `notes` (B lists of what is to be said of reading a clip): each is said once.
        steps_per_epoch: updates per epoch.
        loss_weights: epoch -> weight by loss name; a loss of weight 0 is not computed.
        run_log: where lines and numbers go.
        evaluate: step -> plain values for metrics.jsonl, called by all ranks together in evaluation mode. If a run is
            killed after a save and before the evaluation due there has ended, the resumed run evaluates first.
        extra: plain values of the task (best score so far, ...) that travel in restore.bin: written as they are then,
            and filled again on resume.
        arguments: plain values kept in checkpoints and compared on resume; `settings` by flag by default.
    """

    def __init__(
        self,
        model: Any,
        runtime: Runtime,
        settings: TrainSettings,
        make_loader: Callable[[int, int], Iterable[Batch]],
        steps_per_epoch: int,
        loss_weights: Callable[[int], Mapping[str, float]],
        run_log: RunLog,
        evaluate: Callable[[int], Mapping[str, Any] | None] | None = None,
        extra: dict[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if steps_per_epoch < 1:
            raise ValueError("the training data do not fill one update: lower --batch_size or the number of processes")
        self.model, self.runtime, self.settings, self.log = model.to(runtime.device), runtime, settings, run_log
        self.make_loader, self.loss_weights, self.evaluate = make_loader, loss_weights, evaluate
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = min(settings.epochs * steps_per_epoch, settings.max_steps or math.inf)
        self.arguments = dict(flat_values(settings) if arguments is None else arguments)
        self.step = 0
        self.extra: dict[str, Any] = {} if extra is None else extra

        model.frame_dropout = settings.frame_dropout
        freeze_layers(model, settings.freeze_layer_num)
        model.remember_trainable()
        groups = parameter_groups(
            model,
            settings.lr,
            settings.coef_lr,
            settings.fusion_lr,
            settings.object_lr,
            settings.action_lr,
            settings.weight_decay,
        )
        self._check_rates(groups)
        self.optimizer = BertAdam(
            groups, settings.lr, settings.schedule, settings.warmup_proportion, int(self.total_steps)
        )
        self.precision = resolve_precision(settings.precision, runtime.device)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=self.precision == "fp16")
        self.folder = CheckpointFolder(settings.output_dir, settings.keep_checkpoints)
        self.meter, self.flags = Meter(runtime), StepFlags(runtime)
        self.skips, self.notes = SkippedFiles(runtime), SkippedFiles(runtime)
        self._parallel: nn.Module = model
        self._active: Mapping[str, float] = {}
        self._rates: dict[str, float] = {}
        self._clips, self._waited, self._since = 0, 0.0, time.monotonic()

    def _check_rates(self, groups: list[dict[str, Any]]) -> None:
        """A run whose updates change nothing must not end as one that has trained."""
        settings = self.settings
        if not any(group.get("lr", settings.lr) for group in groups):
            raise ValueError("every learning rate is 0: nothing to train (--lr and the other --*_lr)")
        if self.total_steps == 1 and not SCHEDULES[settings.schedule](0.0, settings.warmup_proportion):
            self.log.warning(
                "one update in all, and the schedule starts from a learning rate of 0: it changes nothing. Lower "
                "--batch_size, raise --epochs or --max_steps, or give --warmup_proportion 0"
            )

    # -- the loop

    def fit(self) -> TrainResult:
        """Train to the end or to a signal, from `restore.bin` where there is one.

        Raises:
            NonFiniteLoss: a loss is nan or infinite; nothing is saved from then on.
            CheckpointError: `restore.bin` does not fit this run, or saving failed (full disk).
        """
        evaluation_due = self._restore()
        self._clips, self._waited, self._since = 0, 0.0, time.monotonic()
        with StopSignals() as self._signals, self._progress_bar() as self._bar:
            if evaluation_due:
                self._evaluate()
            while self.step < self.total_steps and not self.flags.stop:
                self._run_epoch()
        if self.flags.stop:
            self.log.info(f"stopped by a signal after step {self.step}; the same command goes on from there")
        return TrainResult(self.step, self.flags.stop, self.skips.total)

    def _run_epoch(self) -> None:
        epoch, done = divmod(self.step, self.steps_per_epoch)
        end = int(min((epoch + 1) * self.steps_per_epoch, self.total_steps))
        self._select_losses(self.loss_weights(epoch))
        self.model.train()
        # A loader draws a seed when it starts, also in the middle of a resumed epoch.
        with untouched_random_state(self.runtime.device):
            batches = iter(self.make_loader(epoch, done * self.settings.gradient_accumulation_steps))
        while self.step < end and not self.flags.stop:
            self._train_step(batches)
            self.step += 1
            self._bar.update()
            self._after_step(end)

    def _train_step(self, batches: Iterator[Batch]) -> None:
        parts = self.settings.gradient_accumulation_steps
        bad = torch.zeros((), device=self.runtime.device)
        clips: list[str] = []
        losses: list[dict[str, Tensor]] = []
        for part in range(parts):
            batch = self._next_batch(batches)
            with self._gradient_sync(part == parts - 1):
                out = self._forward(batch)
                total = sum((weight * out[name] for name, weight in self._active.items()), torch.zeros_like(bad))
                self.scaler.scale(total / parts).backward()
            values = {"loss": total.detach(), **{name: value.detach() for name, value in out.items()}}
            self.meter.add(values)
            bad = torch.maximum(bad, (~total.detach().isfinite()).float())
            clips += [str(clip) for clip in batch["video_id"]]
            losses.append(values)
        self.flags.post(bad, self._signals.received, (self.step + 1, bad, clips, losses))
        self._check_flags()
        self._update()

    def _forward(self, batch: Batch) -> dict[str, Tensor]:
        device = self.runtime.device
        with autocast(self.precision, device):
            out = self._parallel(to_device(batch, device))
        missing = sorted(set(self._active) - set(out))
        if missing:
            raise ValueError(f"loss weights name {', '.join(missing)}; the model returned {', '.join(sorted(out))}")
        return out

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        # Without gradient clipping the norm is still wanted for the log.
        self.meter.add({"grad_norm": self.optimizer.clip(self.settings.max_grad_norm or math.inf)})
        self._rates = self.optimizer.rates()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.after_update()

    def _after_step(self, end: int) -> None:
        settings, epoch = self.settings, self.step // self.steps_per_epoch
        is_end = self.step == self.total_steps or (self.step == end and epoch % settings.every_epochs == 0)
        shows = self.step % settings.n_display == 0 or self.step == self.total_steps
        saves = self.step % settings.save_every == 0 or is_end
        evaluates = self.evaluate is not None and (self.step % settings.eval_every == 0 or is_end)
        if shows or saves or evaluates or self.flags.stop:
            self._check_flags(all_posts=True)
        if shows:
            self._display()
        if saves or self.flags.stop:
            self._save(evaluates)
        if evaluates and not self.flags.stop:
            self._evaluate()

    # -- parts of a step

    def _select_losses(self, weights: Mapping[str, float]) -> None:
        """Set what the epoch computes; DDP is built anew when other parameters get gradients."""
        active = {name: weight for name, weight in weights.items() if weight}
        if not active:
            raise ValueError("every loss has weight 0: nothing to train")
        if set(active) != set(self._active):
            self.model.set_active_losses(set(active))
            self._parallel = self.model  # the old wrapper's hooks go before the new one's come
            if self.runtime.world_size > 1:
                self._parallel = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self._active = active

    def _gradient_sync(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Context in which ranks exchange gradients only after the last batch of an update."""
        if is_last or not isinstance(self._parallel, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._parallel.no_sync()

    def _next_batch(self, batches: Iterator[Batch]) -> Batch:
        start = time.monotonic()
        batch = next(batches, None)
        self._waited += time.monotonic() - start
        if batch is None:
            raise RuntimeError(
                f"the loader ended at step {self.step}, before the {self.steps_per_epoch} updates of an epoch"
            )
        self._clips += len(batch["video_id"])
        self.skips.add(batch.get("skipped", []))
        self.notes.add(batch.get("notes", []))
        return batch

    def _check_flags(self, all_posts: bool = False) -> None:
        found = self.flags.read(all_posts)
        if found is None:
            return
        step, bad, clips, losses = found
        mine = None
        if float(bad) > 0:
            values = {name: float(value) for part in losses for name, value in part.items() if not value.isfinite()}
            mine = [clips, [f"{n} {v}" for n, v in values.items() if not n.endswith("_accuracy")]]
        reports = [report for report in self.runtime.gather_json(mine) if report]
        clips = [clip for report in reports for clip in report[0]]
        names = sorted({name for report in reports for name in report[1]})
        raise NonFiniteLoss(
            f"loss is not finite at step {step} ({', '.join(names)}) with the clips {', '.join(clips)}. Nothing was "
            "saved since; look at these clips, or lower --lr and start again."
        )

    def _display(self) -> None:
        means = self.meter.read()
        seconds = max(time.monotonic() - self._since, 1e-9)
        clips = self.runtime.sum(torch.tensor(float(self._clips))).item()
        self._name_skipped()
        epoch = (self.step - 1) // self.steps_per_epoch
        values = {"epoch": epoch, **means, "lr": self._rates, "clips_per_second": clips / seconds}
        values |= {"data_wait": self._waited / seconds, "skipped": self.skips.total}
        if self.scaler.is_enabled():
            values["loss_scale"] = self.scaler.get_scale()
        self.log.metrics("train", self.step, values)
        losses = " ".join(f"{name} {value:.4g}" for name, value in means.items())
        rates = " ".join(f"{label} {rate:.3g}" for label, rate in self._rates.items())
        self.log.info(
            f"epoch {epoch} step {self.step}/{self.total_steps} {losses} lr {rates} "
            f"{clips / seconds:.3g} clips/s skipped {self.skips.total}"
        )
        self._bar.set_postfix(loss=f"{means['loss']:.4g}", refresh=False)
        self._clips, self._waited, self._since = 0, 0.0, time.monotonic()

    def _name_skipped(self) -> None:
        for name in self.skips.exchange():
            self.log.warning(f"skipped {name}: another sample took its place")
        for note in self.notes.exchange():
            self.log.warning(note)

    def _evaluate(self) -> None:
        if self.evaluate is None:
            return
        start = time.monotonic()
        self.model.eval()
        with untouched_random_state(self.runtime.device):
            result = self.evaluate(self.step)
        self.model.train()
        if result:
            self.log.metrics("evaluation", self.step, result)
        self._since += time.monotonic() - start  # not training time

    def _progress_bar(self) -> tqdm:
        # disable=None: no bar where stderr is a file; log.txt has the lines.
        hidden = None if self.runtime.is_main else True
        return tqdm(total=self.total_steps, initial=self.step, disable=hidden, desc="train", dynamic_ncols=True)

    # -- save and resume

    def _save(self, evaluation_due: bool) -> None:
        """Write both files on rank 0; flags have been checked, so nothing non-finite is ever saved."""
        start = time.monotonic()
        self._name_skipped()
        random_states = gather_random_states(self.runtime)
        sums = self.meter.merge()
        problem = None
        if self.runtime.is_main:
            content = model_content(self.model, self.step, self.step // self.steps_per_epoch)
            restore = {
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random_states": random_states,
                "position": self._position(),
                "arguments": self.arguments,
                "meter": sums,
                "skipped": {"total": self.skips.total, "names": sorted(self.skips.named)},
                "evaluation_due": evaluation_due,
                "extra": self.extra,
            }
            try:
                path = self.folder.save(content, restore)
                self.log.info(f"saved {path} and {self.folder.restore_path.name}")
            except CheckpointError as error:
                problem = str(error)
        problem = self.runtime.gather_json(problem)[0]  # every rank leaves with the same error instead of waiting
        if problem is not None:
            raise CheckpointError(problem)
        self._since += time.monotonic() - start

    def _position(self) -> dict[str, int]:
        """The place in the data, and the sizes that a step's meaning depends on."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        parts = self.settings.gradient_accumulation_steps
        return {
            "epoch": epoch,
            "batches_done": done * parts,
            "steps_per_epoch": self.steps_per_epoch,
            "gradient_accumulation_steps": parts,
            "global_batch_size": self.settings.micro_batch_size * parts * self.runtime.world_size,
        }

    def _restore(self) -> bool:
        """Take up restore.bin where there is one; returns whether the evaluation due at its step is still to be run."""
        path = self.folder.restore_path
        found = self.runtime.gather_json(path.exists())
        if not any(found):
            if self.log.metrics_path.exists():  # of a run that was killed before it saved anything
                self.log.cut_metrics(self.step)
            return False
        if not all(found):
            raise CheckpointError(
                f"{path}: seen by some ranks only; --output_dir must be a folder that all ranks share"
            )
        state = load(path)
        check_own(state, path)
        if changed := follow_choices(self.model.behaviour, state["behaviour"]):
            self.log.info(f"{path.name} goes on as it was trained, with {', '.join(changed)}")
            self.log.write_run({n: v for n, v in self.arguments.items() if n != "local_rank"}, self.model)
        check_same_run(state, self._position(), self.model.behaviour, path)
        load_parameters(self.model, state["model"], path)
        restore_optimizer(self.optimizer, state["optimizer"], path)
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if not restore_random_states(state["random_states"], self.runtime):
            self.log.warning("other processes or devices than in restore.bin: torch's own random states start anew")
        self.meter.restore(state["meter"])
        self.skips.restore(state["skipped"]["total"], state["skipped"]["names"])
        self.extra.clear()
        self.extra.update(state["extra"])
        self.step = state["global_step"]
        for name in sorted(set(self.arguments) & set(state["arguments"])):
            old, new = state["arguments"][name], self.arguments[name]
            if old != new:
                self.log.warning(f"{path.name} was written with --{name} {old}; this run goes on with {new}")
        self.log.cut_metrics(self.step, repeats_evaluation=state["evaluation_due"])
        if self.runtime.is_main:
            self.folder.delete_older(self.step)
        self.log.info(f"resumed {path} at step {self.step}/{self.total_steps}")
        return state["evaluation_due"] and self.evaluate is not None
