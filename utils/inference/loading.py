"""A trained model for use outside its task: sizes from the checkpoint, data settings from the run that wrote it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modules.config import ModelChoices, ModelConfig, from_dict
from utils.models.setup import ModelClass, setup_model
from utils.runtime.checkpoint import CheckpointError, is_own, load
from utils.runtime.precision import resolve_precision
from utils.settings.fields import flags_of, from_flat
from utils.settings.groups import UseSettings


def add_released_flags(parser: argparse.ArgumentParser) -> None:
    """Flags for what an own checkpoint knows of itself and a released one does not."""
    for name in ("need_object", "use_action"):
        help_text = f"--{name} of the tasks, for a released checkpoint"
        parser.add_argument(f"--{name}", action="store_const", const=True, help=help_text)


def use_settings(checkpoint: str | Path, choices: Mapping[str, Any] | None = None) -> UseSettings:
    """The settings that a checkpoint is used with.

    Args:
        checkpoint: own, released or CLIP weights. The sizes of an own one, and what the model saw of a clip by
            `config.json` of its run, in the same folder or the one above, are followed; of the others nothing is known
            but the weights.
        choices: settings by flag; they win.

    Raises:
        CheckpointError: the file is missing or not readable.
        ValueError: values out of range, or a flag that does not exist.
    """
    path = Path(checkpoint)
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    values = {**_run_settings(path), **_saved_sizes(path), **(choices or {})}
    return from_flat(UseSettings, {**values, "init_model": str(path)})


def load_for_inference(
    model_class: ModelClass,
    settings: UseSettings,
    device: torch.device,
    log: Callable[[str], None],
    needs: Sequence[str],
) -> Any:
    """The model in evaluation mode on `device`; to be run without gradients.

    Args:
        settings: of `use_settings`.
        needs: parts of the model, heads by name (modules/parts.py), that must have been trained, of those that it has.

    Raises:
        CheckpointError, ValueError: as `setup_model`; or nothing gave a needed part values.
    """
    try:
        model = setup_model(model_class, settings, log)
    except ValueError as error:
        raise CheckpointError(f"{settings.init_model}: {error}; name a checkpoint of this task") from error
    for part in needs:
        if model.part(part) and not model.is_trained(part):
            raise CheckpointError(
                f"{settings.init_model}: its {part} head has not been trained; name a checkpoint of this task"
            )
    # Autocast keeps converted only parameters that take gradients; it converts others at each decoding step.
    return model.to(device).eval().requires_grad_(resolve_precision(settings.precision, device) != "fp32")


def _run_settings(checkpoint: Path) -> dict[str, Any]:
    """Settings of a run that decide what the model sees of a clip; the rest of its config.json is about training."""
    seen = [flag.name for flag in flags_of(UseSettings) if flag.field.metadata["seen"]]
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        path = folder / "config.json"
        if path.is_file():
            try:
                arguments = json.loads(path.read_bytes())["arguments"]
                return {name: arguments[name] for name in seen if name in arguments}
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{path}: not a run's config.json ({type(error).__name__}: {error})") from error
    return {}


def _saved_sizes(checkpoint: Path) -> dict[str, Any]:
    """Flags that an own checkpoint's model was built with; empty for other files."""
    try:
        state = load(checkpoint)
    except CheckpointError:
        return {}  # a TorchScript archive or safetensors; `setup_model` says what is wrong with anything else
    if not is_own(state):
        return {}
    choices = ModelChoices.of(from_dict(ModelConfig, state["config"]))
    return {flag.name: getattr(choices, flag.field.name) for flag in flags_of(ModelChoices)}
