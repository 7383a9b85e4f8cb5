"""Weights of the losses, by epoch."""

from __future__ import annotations

from collections.abc import Callable, Collection

from utils.settings.groups import RunSettings


def chosen_weights(settings: RunSettings, losses: Collection[str]) -> dict[str, float]:
    """Weight of each of a model's losses: 1, or what --loss_weights says.

    Raises:
        ValueError: --loss_weights names a loss that the model does not have.
    """
    unknown = sorted(set(settings.loss_weights) - set(losses))
    if unknown:
        raise ValueError(f"--loss_weights: no loss {', '.join(unknown)} here; there are {', '.join(losses)}")
    return {name: settings.loss_weights.get(name, 1.0) for name in losses}


def contrastive_schedule(settings: RunSettings, behaviour: str) -> Callable[[int], float]:
    """Weight of pre-training's contrastive loss by epoch (from 0), where 0 means that it is not computed.

    Intended: `contrastive_weight` in the first `contrastive_epochs` epochs (None: all). Released: the same only with
    `--use_sim_loss`, and in epoch 0 alone unless `contrastive_epochs` says otherwise.
    """
    epochs = settings.contrastive_epochs
    if behaviour == "released":
        epochs = (1 if epochs is None else epochs) if settings.use_sim_loss else 0

    def weight(epoch: int) -> float:
        return settings.contrastive_weight if epochs is None or epoch < epochs else 0.0

    return weight
