"""Pre-train STOA-VLP on captioned clips in shards: `python tasks/pre_training.py --do_train ...` (see the README)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from modules.pretrain import PretrainModel
from utils.arguments import Arguments, contrastive_schedule, parse_arguments
from utils.checkpoint import CheckpointError
from utils.data_setup import (
    evaluation_loader,
    prepare_pretraining,
    pretraining_dataset,
    train_loader,
    validation_dataset,
)
from utils.distributed import Runtime, find_runtime
from utils.retrieval_eval import BadVideos, zero_shot_retrieval
from utils.run_log import RunLog
from utils.trainer import NonFiniteLoss, Trainer
from utils.weights import setup_model

USER_ERRORS = (CheckpointError, BadVideos, NonFiniteLoss, FileNotFoundError, ValueError)


def loss_weights(args: Arguments, model: PretrainModel) -> Callable[[int], dict[str, float]]:
    """Weight of each loss by epoch: 1, or what --loss_weights says, with the contrastive schedule."""
    schedule = contrastive_schedule(args, "intended" if model.behaviour.contrastive_video_gradient else "released")
    unknown = sorted(set(args.loss_weights) - set(model.available_losses))
    if unknown:
        raise ValueError(
            f"--loss_weights: no loss {', '.join(unknown)} here; there are {', '.join(model.available_losses)}"
        )

    def weights(epoch: int) -> dict[str, float]:
        all_on = {name: args.loss_weights.get(name, 1.0) for name in model.available_losses}
        return {**all_on, "contrastive": all_on["contrastive"] * schedule(epoch)}

    return weights


def run(args: Arguments, runtime: Runtime, log: RunLog) -> dict[str, Any]:
    """Train, evaluate or both; returns the last evaluation."""
    log.notes(args.notes)
    model = setup_model(PretrainModel, args, log.info)
    model.set_grad_checkpoint(args.grad_checkpoint)
    data = prepare_pretraining(args, model.config, log.info)
    validation = validation_dataset(args, model.config, data, log.info)
    log.write_config(arguments=args.resolved(), model=asdict(model.config), behaviour=asdict(model.behaviour))
    with runtime.process_group():

        def evaluate(step: int) -> dict[str, Any] | None:
            if validation is None:
                return None
            model.eval()
            result = zero_shot_retrieval(
                model, evaluation_loader(args, validation, runtime), runtime, args.on_bad_video
            )
            shown = {name: round(value, 2) for name, value in result.items() if isinstance(value, float)}
            log.info(f"zero-shot retrieval after step {step}: {shown}")
            return result

        if not args.do_train:
            return evaluate(0) or {}
        dataset = pretraining_dataset(args, model.config, data, log.info)
        make_loader, steps = train_loader(args, dataset, runtime)
        if args.micro_batch_size * runtime.world_size == 1:
            log.warning("one clip in the global batch: video-text matching has no negatives and is left out")
        results: dict[str, Any] = {}

        def evaluate_and_keep(step: int) -> dict[str, Any] | None:
            results.update(evaluate(step) or {})
            return results or None

        trainer = Trainer(model, runtime, args, make_loader, steps, loss_weights(args, model), log, evaluate_and_keep)
        trainer.fit()
        return results


def main(argv: list[str] | None = None) -> int:
    args: Arguments = parse_arguments(argv, description=__doc__)
    runtime = find_runtime(args.local_rank, args.device)
    log = RunLog(args.output_dir, runtime, args.tensorboard)
    try:
        run(args, runtime, log)
    except USER_ERRORS as error:
        log.error(str(error))
        return 1
    finally:
        log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
