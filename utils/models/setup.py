"""From the files a user names (--clip_archive, --init_model) to a model with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.config import Behaviour, ModelChoices, ModelConfig, from_dict
from modules.initialise import config_from_clip, initialise, load_clip
from modules.released_checkpoint import config_from_released, convert, is_released
from modules.task_model import TaskModel
from utils.models.clip_weights import find_clip_archive, is_torchscript, read_clip_archive
from utils.runtime.checkpoint import CheckpointError, check_own, is_own, load
from utils.settings.groups import UseSettings

SIZES_OF_RELEASED = ("max_frames", "object_count", "num_actions")  # which its tensors tell

ModelClass = Callable[[ModelConfig, Behaviour], Any]


def setup_model(
    model_class: ModelClass, settings: UseSettings, log: Callable[[str], None], answers: Sequence[str] = ()
) -> Any:
    """Build a task's model and fill it: the checkpoint first, then CLIP for what the checkpoint does not have.

    `--init_model` may be an own checkpoint, a released one, or a CLIP archive. Sizes and behaviour come from the
    checkpoint where there is one; the flags choose the rest. What nothing gives keeps its initial value.

    Args:
        settings: its `model` then says what the model has, also where nothing was chosen.
        answers: classes of an answer classifier; without them a checkpoint's own. A checkpoint's classifier of other
            answers is left out.

    Raises:
        CheckpointError, ValueError: a file is missing, is of another kind, or does not fit; the message names it.
    """
    torch.manual_seed(settings.seed)
    model = _from_files(model_class, settings, log, answers)
    settings.follow(model.config)
    return model


def _from_files(
    model_class: ModelClass, settings: UseSettings, log: Callable[[str], None], answers: Sequence[str]
) -> Any:
    if settings.init_model is None:
        return _from_clip(model_class, settings, settings.clip_archive, log, answers)
    path = Path(settings.init_model)
    if path.is_file() and (path.suffix == ".safetensors" or is_torchscript(path)):
        return _from_clip(model_class, settings, path, log, answers)
    state = load(path)
    if is_own(state):
        return _from_own(model_class, settings, state, path, log, answers)
    weights = state.get("model_state_dict", state)
    if is_released(weights):
        return _from_released(model_class, settings, weights, path, log, answers)
    return _from_clip(model_class, settings, path, log, answers)


def _from_clip(
    model_class: ModelClass,
    settings: UseSettings,
    where: str | Path,
    log: Callable[[str], None],
    answers: Sequence[str],
) -> Any:
    path = find_clip_archive(where)
    state = read_clip_archive(path)
    try:
        model = model_class(
            config_from_clip(state, answers=tuple(answers), **settings.model.given()),
            Behaviour.preset(settings.behaviour or "intended"),
        )
        initialise(model)
        done = load_clip(model, state)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    names = [name for name, _ in model.named_parameters()]
    model.new_names = frozenset(names) - set(done)
    log(f"{path}: {len(done)} of {len(names)} parameters start from CLIP, the others anew")
    return model


def _from_own(
    model_class: ModelClass,
    settings: UseSettings,
    state: dict[str, Any],
    path: Path,
    log: Callable[[str], None],
    answers: Sequence[str],
) -> Any:
    check_own(state, path)
    saved: ModelConfig = from_dict(ModelConfig, state["config"])
    config = replace(settings.model.over(saved), answers=tuple(answers) or saved.answers)
    behaviour = Behaviour.preset(settings.behaviour) if settings.behaviour else from_dict(Behaviour, state["behaviour"])
    model = model_class(config, behaviour)
    initialise(model)
    _note_other_layout(config, saved, path, log)
    weights = dict(state["model"])
    if model.config.answers != saved.answers:
        weights = {name: value for name, value in weights.items() if not name.startswith("answer_head.")}
    _fill(model, settings, weights, path, log)
    _note_sizes(settings.model, config, path, log)
    return model


def _note_sizes(choices: ModelChoices, config: ModelConfig, path: Path, log: Callable[[str], None]) -> None:
    """Log sizes of the checkpoint that are not the defaults, and flags that cannot change them."""
    usual, given = ModelChoices.of(ModelConfig()), choices.given()
    for name, value in vars(ModelChoices.of(config)).items():
        if name in ("object_count", "num_actions") and not config.need_object:
            continue  # only room in the table of positions
        if name in given and given[name] != value:
            log(f"{path}: {name} stays {value} as its tensors need, not {given[name]}")
        elif name not in given and value != getattr(usual, name):
            log(f"{path}: {name} {value}, as it was trained")


def _note_other_layout(config: ModelConfig, saved: ModelConfig, path: Path, log: Callable[[str], None]) -> None:
    """Log that text has other positions in the fusion encoder, if trajectories or actions come or go."""
    parts = {"trajectories": "has_trajectories", "actions": "has_actions"}
    changed = [name for name, attribute in parts.items() if getattr(config, attribute) != getattr(saved, attribute)]
    if changed:
        log(
            f"{path} was trained with another choice of {' and '.join(changed)}: its fusion encoder (re-ranking, "
            "captions, answers) meets a layout that it was not trained on"
        )


def _from_released(
    model_class: ModelClass,
    settings: UseSettings,
    state: dict[str, Tensor],
    path: Path,
    log: Callable[[str], None],
    answers: Sequence[str],
) -> Any:
    choices = {name: value for name, value in settings.model.given().items() if name not in SIZES_OF_RELEASED}
    try:
        config = config_from_released(state, answers=tuple(answers), **choices)
        model = model_class(config, Behaviour.preset(settings.behaviour or "released"))
        initialise(model)
        result = convert(state, model)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for kind, keys in (("unknown", result.unknown), ("dead", result.dropped), ("unused here", result.unused)):
        if keys:
            log(f"{path}: {len(keys)} {kind} entries left out: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}")
    _fill(model, settings, result.state, path, log)
    return model


def _fill(
    model: TaskModel, settings: UseSettings, state: dict[str, Tensor], path: Path, log: Callable[[str], None]
) -> None:
    """Copy a checkpoint's entries; what it lacks comes from the CLIP archive if there is one."""
    own = model.state_dict()
    unknown = sorted(set(state) - set(own))
    wrong = [
        f"{name}: {tuple(value.shape)} in the file, {tuple(own[name].shape)} in the model"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    if wrong:
        raise CheckpointError(f"{path} does not fit this model:\n  " + "\n  ".join(wrong))
    given = {name: value for name, value in state.items() if name in own}
    model.load_state_dict(given, strict=False)
    missing = sorted(set(own) - set(given))
    log(f"{path}: {len(given)} parameters taken")
    if unknown:
        log(f"{path}: {len(unknown)} entries have no place in this model: {', '.join(unknown[:5])}, ...")
    if missing:
        _fill_missing(model, settings, set(given), missing, log)


def _fill_missing(
    model: TaskModel, settings: UseSettings, given: set[str], missing: list[str], log: Callable[[str], None]
) -> None:
    try:
        state = read_clip_archive(find_clip_archive(settings.clip_archive))
    except CheckpointError:
        if any(name.startswith("clip.") for name in missing):
            raise
        state = {}
    done = load_clip(model, state, given) if state else []
    anew = [name for name in missing if name not in done]
    model.new_names = frozenset(anew)
    log(f"{len(done)} further parameters start from CLIP, {len(anew)} anew: {', '.join(anew[:5])}")
