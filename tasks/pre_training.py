"""Pre-train STOA-VLP on captioned clips in shards: `python tasks/pre_training.py --do_train ...` (see the README)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from dataloaders.files import atomic_write_text
from dataloaders.retrieval import VideoDataset
from modules.tasks.pretrain import PretrainModel
from utils.data.clips import evaluation_loader, train_loader
from utils.data.pretraining import (
    PretrainArguments,
    losses_loader,
    prepare_pretraining,
    pretraining_dataset,
    validation_clips,
)
from utils.evaluation.alignment import CaptionMatching, caption_matching
from utils.evaluation.pretraining import evaluate_losses, evaluate_zero_shot
from utils.models.setup import setup_model
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.settings.arguments import Arguments
from utils.training.loss_weights import chosen_weights, contrastive_schedule
from utils.training.task_main import run_task
from utils.training.trainer import Trainer


def loss_weights(args: Arguments, model: PretrainModel) -> Callable[[int], dict[str, float]]:
    """Weight of each loss by epoch: 1, or what --loss_weights says, with the contrastive schedule."""
    schedule = contrastive_schedule(args, "intended" if model.behaviour.contrastive_video_gradient else "released")
    all_on = chosen_weights(args, model.available_losses)
    return lambda epoch: {**all_on, "contrastive": all_on["contrastive"] * schedule(epoch)}


class Pretraining:
    """One run: model and data are prepared on construction, before the process group starts.

    Attributes:
        model_class: of the model that is trained; a task of one's own is a subclass with another.
    """

    model_class: type[PretrainModel] = PretrainModel

    def __init__(self, args: PretrainArguments, runtime: Runtime, log: RunLog) -> None:
        self.args, self.runtime, self.log = args, runtime, log
        self.model = setup_model(
            self.model_class, args, log.info, matching_loss=args.matching_loss, heads=args.init_heads
        )
        self.model.set_grad_checkpoint(args.grad_checkpoint)
        data = prepare_pretraining(args, self.model.config, log.info)
        self.dataset = pretraining_dataset(args, self.model.config, data, log.info)
        self.validation = validation_clips(args, self.model.config, data, log.info)
        log.write_run(args.resolved(), self.model)

    def run(self) -> None:
        """Train, evaluate, or both, by --do_train and --do_eval."""
        if self.args.do_train:
            self.train()
        if self.args.do_eval:
            self.evaluate()

    def train(self) -> None:
        """Train, validating on the validation clips where there are any."""
        args, model = self.args, self.model
        make_loader, steps = train_loader(args, self.dataset, self.runtime)
        if args.micro_batch_size * self.runtime.world_size == 1:
            self.log.warning(
                "one clip in the global batch: video-text matching has no negatives and is left out, and the "
                "contrastive loss stays 0"
            )
        weights = loss_weights(args, model)
        validate = self.validate if self.validation is not None else None
        Trainer(model, self.runtime, args, make_loader, steps, weights, self.log, validate).fit()

    def validate(self, step: int) -> dict[str, Any]:
        """Zero-shot retrieval on the validation clips, and how often their trajectories find their nouns."""
        assert self.validation is not None
        clips, args = self.validation, self.args
        batches = evaluation_loader(args, VideoDataset(clips.split.video_ids, clips.reader), self.runtime)
        scored, found = evaluate_zero_shot(self.model, clips.split, batches, self.runtime, args, self.matching)
        result = {**scored.metrics(), "skipped": len(clips.missing) + len(scored.skipped), **found}
        self.log.scores(f"zero-shot retrieval after step {step}", result)
        return result

    @cached_property
    def matching(self) -> CaptionMatching | None:
        """Matches the trajectories of the validation clips with their captions, where there are any."""
        clips = self.validation
        if clips is None:
            return None
        return caption_matching(self.model, clips.split.by_video(), clips.reader, self.args)

    def evaluate(self) -> None:
        """Score retrieval, and the losses of the first training samples in evaluation mode."""
        self.model.to(self.runtime.device)
        batches = losses_loader(self.args, self.dataset, self.args.eval_samples, self.runtime)
        result = evaluate_losses(self.model, batches, self.runtime)
        self.log.scores(f"losses in evaluation mode over {result['clips']} training clips", result)
        metrics: dict[str, Any] = {"losses": result}
        if self.validation is not None:
            metrics["zero_shot"] = self.validate(0)
        if self.runtime.is_main:
            text = json.dumps(metrics, indent=2) + "\n"
            atomic_write_text(Path(self.args.output_dir) / "metrics.json", text)


def main(argv: list[str] | None = None) -> int:
    """Run the task; returns the exit status."""
    return run_task(Pretraining, PretrainArguments, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
