"""A trained model for use outside its task: sizes from the checkpoint, data settings from the run that wrote it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modules.config import ModelChoices, ModelConfig, from_dict
from utils.models.setup import ModelClass, setup_model
from utils.runtime.checkpoint import CheckpointError, check_own, is_own, load
from utils.runtime.exported import MAX_JSON, exported_folder, read_description
from utils.runtime.hub import fetched
from utils.runtime.precision import resolve_precision
from utils.runtime.run_settings import seen_settings
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
        checkpoint: own, exported, released or CLIP weights, or an `hf-hub:` name of such a folder. The sizes of an own
            one, and what the model saw of a clip by `config.json` of its run, in the same folder or the one above, are
            followed, except that it never names weights; the label map is the copy beside it, if there is one. An
            exported folder says all this itself. Of the others nothing is known but the weights.
        choices: settings by flag; they win.

    Raises:
        CheckpointError: the file is missing or not readable, or the label map is none.
        ValueError: values out of range, or a flag that does not exist.
    """
    path = Path(fetched(checkpoint))
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    values = {**seen_settings(path), **_saved_sizes(path), **(choices or {})}
    _check_label_map(values.get("labelmap_path", ""))
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
    if model.config.need_object:
        log(f"{settings.labelmap_path}: the label map, for object files")
    for part in needs:
        if model.part(part) and not model.is_trained(part):
            raise CheckpointError(
                f"{settings.init_model}: its {part} head has not been trained; name a checkpoint of this task"
            )
    # Autocast keeps converted only parameters that take gradients; it converts others at each decoding step.
    return model.to(device).eval().requires_grad_(resolve_precision(settings.precision, device) != "fp32")


def _check_label_map(path: Any) -> None:
    """Raise CheckpointError for a label map that is no path, or too large to be one."""
    if not isinstance(path, str):
        raise CheckpointError(f"labelmap_path is {path!r}, not a path; name the label map with --labelmap_path")
    if Path(path).is_file() and Path(path).stat().st_size > MAX_JSON:
        raise CheckpointError(f"{path}: too large for a label map; name another with --labelmap_path")


def _saved_sizes(checkpoint: Path) -> dict[str, Any]:
    """Flags that an own checkpoint's model was built with; empty for other files."""
    if folder := exported_folder(checkpoint):
        state = read_description(folder)
    else:
        try:
            state = load(checkpoint)
        except CheckpointError:
            return {}  # a TorchScript archive or safetensors; `setup_model` says what is wrong with anything else
    if not is_own(state):
        return {}
    check_own(state, checkpoint)
    try:
        choices = ModelChoices.of(from_dict(ModelConfig, state["config"]))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    return {flag.name: getattr(choices, flag.field.name) for flag in flags_of(ModelChoices)}
