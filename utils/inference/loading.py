"""A trained model for use outside its task: sizes from the checkpoint, data settings from the run that wrote it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modules.config import ModelConfig, from_dict
from utils.models.weights import ModelClass, setup_model
from utils.runtime.checkpoint import CheckpointError, is_own, load
from utils.settings.arguments import Arguments

# Settings of a run that decide what the model sees of a clip; the rest of its config.json is about training.
SEEN = (
    "feature_framerate", "end_seconds", "slice_framepos", "eval_frame_order",
    "object_rule", "trajectory", "box_coordinates", "rect_order", "labelmap_path", "clip_archive", "tagger",
)  # fmt: skip
# Flags that are named as the field of ModelConfig that they set.
SAME_NAME = {field.name for field in dataclasses.fields(ModelConfig)} & {
    field.name for field in dataclasses.fields(Arguments)
}


def add_released_flags(parser: argparse.ArgumentParser) -> None:
    """Flags for what an own checkpoint knows of itself and a released one does not."""
    for name in ("need_object", "use_action"):
        help_text = f"--{name} of the tasks, for a released checkpoint"
        parser.add_argument(f"--{name}", action="store_const", const=True, help=help_text)


def inference_arguments(checkpoint: str | Path, choices: Mapping[str, Any] | None = None) -> Arguments:
    """The flags that a checkpoint is used with.

    Args:
        checkpoint: own, released or a CLIP archive. The sizes of an own one and `config.json` of its run, in the same
            folder or the one above, are followed; of the others nothing is known but the weights.
        choices: flags by name; they win.

    Raises:
        CheckpointError: the file is missing or not readable.
        ValueError: values out of range, or a flag that does not exist.
    """
    path = Path(checkpoint)
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    values = {**_run_settings(path), **_saved_sizes(path), **(choices or {})}
    known = {field.name for field in dataclasses.fields(Arguments)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"unknown settings: {', '.join(unknown)}")
    return Arguments(**values, init_model=str(path), output_dir=str(path.parent), do_eval=True)


def load_for_inference(
    model_class: ModelClass, args: Arguments, device: torch.device, log: Callable[[str], None], needs: Sequence[str]
) -> Any:
    """The model in evaluation mode on `device`.

    Args:
        args: of `inference_arguments`.
        needs: parts of the model that must have been trained, of those that it has.

    Raises:
        CheckpointError, ValueError: as `setup_model`; or nothing gave a needed part values.
    """
    try:
        model = setup_model(model_class, args, log)
    except ValueError as error:
        raise CheckpointError(f"{args.init_model}: {error}; name a checkpoint of this task") from error
    for part in needs:
        if hasattr(model, part) and not is_trained(model, part):
            raise CheckpointError(
                f"{args.init_model}: its {part.replace('_', ' ')} has not been trained; name a checkpoint of this task"
            )
    return model.to(device).eval().requires_grad_(False)


def is_trained(model: Any, part: str) -> bool:
    """Whether a model has this part, with values from a checkpoint."""
    return hasattr(model, part) and not any(name.split(".")[0] == part for name in model.new_names)


def _run_settings(checkpoint: Path) -> dict[str, Any]:
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        path = folder / "config.json"
        if path.is_file():
            try:
                arguments = json.loads(path.read_bytes())["arguments"]
                return {name: arguments[name] for name in SEEN if name in arguments}
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
    saved: ModelConfig = from_dict(ModelConfig, state["config"])
    values = {name: value for name, value in dataclasses.asdict(saved).items() if name in SAME_NAME}
    return {**values, "cross_num_hidden_layers": saved.header_layers}
