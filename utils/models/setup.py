"""From the files a user names (--clip_archive, --init_model) to a model with weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.config import Behaviour, ModelChoices, ModelConfig, from_dict
from modules.initialise import check_clip, config_from_clip, initialise, load_clip, resize_positions
from modules.parts import owners
from modules.released_checkpoint import config_from_released, convert, entries, is_released
from modules.tasks.task_model import TaskModel
from utils.models.clip_weights import ClipWeights, find_clip_archive, origin, read_clip_weights
from utils.models.weight_files import INDEX
from utils.runtime.checkpoint import CheckpointError, check_own, is_own, is_torchscript
from utils.runtime.exported import exported_folder, read_checkpoint
from utils.runtime.hub import fetched
from utils.settings.groups import UseSettings

# A model may have so many times the numbers of the file that tells its sizes, and so many beside; what a task adds to
# CLIP is about as large as CLIP.
LARGER, BESIDE = 64, 1 << 24
POSITIONS = "visual.positional_embedding"  # the only table whose length follows from the picture
# Which its tensors tell; its code has QuickGELU.
SIZES_OF_RELEASED = ("max_frames", "object_count", "num_actions", "activation")

ModelClass = Callable[[ModelConfig, Behaviour], Any]


def setup_model(
    model_class: ModelClass,
    settings: UseSettings,
    log: Callable[[str], None],
    answers: Sequence[str] = (),
    matching_loss: str | None = None,
    heads: str | None = None,
) -> Any:
    """Build a task's model and fill it: the checkpoint first, then CLIP for what the checkpoint does not have.

    `--init_model` may be an own checkpoint, an exported folder, a released one, or CLIP weights; both flags may be
    names on the hub (utils/runtime/hub.py). Sizes and behaviour come from the checkpoint where there is one; the flags
    choose the rest. What nothing gives keeps its initial value.

    Args:
        settings: its `model` then says what the model has, also where nothing was chosen.
        answers: classes of an answer classifier; without them a checkpoint's own. A checkpoint's classifier of other
            answers is left out.
        matching_loss: of `Behaviour`; None: as everything else of the behaviour.
        heads: own checkpoint, or its name on the hub; gives what `--init_model` lacks, before CLIP does.

    Raises:
        CheckpointError, ValueError: a file is missing, is of another kind, or does not fit; the message names it.
    """
    torch.manual_seed(settings.seed)
    model = _Setup(model_class, settings, log, tuple(answers), matching_loss, heads).model()
    settings.follow(model.config)
    return model


@dataclass(frozen=True)
class _Setup:
    """One model on its way from files to weights."""

    model_class: ModelClass
    settings: UseSettings
    log: Callable[[str], None]
    answers: tuple[str, ...]
    matching_loss: str | None
    heads: str | None

    def model(self) -> Any:
        """The model, filled from the kind of file that `--init_model` turns out to be."""
        if self.settings.init_model is None:
            return self.from_clip(find_clip_archive(self.clip_archive()))
        path = Path(fetched(self.settings.init_model))
        if exported_folder(path) is None and _must_be_clip(path):
            return self.from_clip(find_clip_archive(path, "--init_model"))
        state = read_checkpoint(path)
        if is_own(state):
            return self.from_own(state, path)
        weights = entries(state)
        return self.from_released(weights, path) if is_released(weights) else self.from_clip(path)

    def clip_archive(self) -> str | Path:
        """What `--clip_archive` names, fetched if it is on the hub; CheckpointError for an exported folder."""
        where = fetched(self.settings.clip_archive)
        if exported_folder(where):
            raise CheckpointError(
                f"--clip_archive {where}: a model that was exported by this project; name it with --init_model"
            )
        return where

    def behaviour(self, otherwise: Behaviour) -> Behaviour:
        """What the flags choose of the behaviour, over another one."""
        preset = self.settings.behaviour
        chosen = Behaviour.preset(preset) if preset else otherwise
        return replace(chosen, matching_loss=self.matching_loss or chosen.matching_loss)

    def build(self, outline: TaskModel) -> Any:
        """A model with drawn values."""
        model = self.model_class(outline.config, outline.behaviour)
        initialise(model)
        return model

    def outline(self, config: ModelConfig, behaviour: Behaviour, stored: Mapping[str, Tensor], path: Path) -> Any:
        """The model without memory for its parameters, to hold against what a file stores before there is any.

        Raises:
            CheckpointError: it is far larger than the file that its sizes come from.
        """
        there = sum(tensor.numel() for tensor in stored.values())
        try:
            with torch.device("meta"):
                model = self.model_class(config, behaviour)
            wanted = sum(parameter.numel() for parameter in model.parameters())
        except RuntimeError as error:  # more numbers than can be counted
            raise CheckpointError(f"{path}: no model has the sizes that it states ({error})") from error
        if wanted > LARGER * there + BESIDE:
            raise CheckpointError(
                f"{path}: a model of its sizes has {wanted:,} numbers, the file holds {there:,}; damaged, or not whole"
            )
        return model

    def from_clip(self, path: Path) -> Any:
        """A new model that starts from CLIP weights."""
        if self.heads:
            raise CheckpointError(
                f"--init_heads {self.heads}: gives what a checkpoint of --init_model lacks, and {path} is CLIP "
                "weights; name the checkpoint with --init_model, or leave --init_heads out"
            )
        clip = self.read_clip(path)
        try:
            choices = {**clip.described, **self.settings.model.given()}
            config = config_from_clip(clip.state, answers=self.answers, **choices)
            state = self.at_resolution(clip.state, POSITIONS, config, path)
            outline = self.outline(config, self.behaviour(Behaviour.preset("intended")), state, path)
            check_clip(outline, state)
            header = _header(clip, outline, path)
            model = self.build(outline)
            done = load_clip(model, state)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        model.load_state_dict(header, strict=False)
        names = [name for name, _ in model.named_parameters()]
        model.new_names = frozenset(names) - set(done) - set(header)
        has = f"{config.activation}, heads {config.head_width} and {config.text_heads_width} wide by {clip.source}"
        self.log(
            f"{path}: {len(done)} of {len(names)} parameters start from CLIP ({has}), the others anew; it is "
            f"{origin(path)}"
        )
        return model

    def read_clip(self, path: Path) -> ClipWeights:
        """CLIP weights with their description, by the flags where the file has none."""
        clip = read_clip_weights(path, self.settings.clip_model, self.settings.model.activation)
        for remark in clip.remarks:
            self.log(remark)
        return clip

    def at_resolution(self, state: dict[str, Tensor], name: str, config: ModelConfig, path: Path) -> dict[str, Tensor]:
        """Entries whose visual table of positions is that of the model's picture; ValueError where it is none."""
        if name not in state:
            return state
        table = resize_positions(state[name], config.grid)
        if table is not state[name]:
            self.log(
                f"{path}: {len(state[name]) - 1} visual positions interpolated to {len(table) - 1}, for pictures of "
                f"{config.image_resolution} pixels"
            )
        return {**state, name: table}

    def from_own(self, state: dict[str, Any], path: Path) -> Any:
        """A model of a checkpoint of this project, for the same task or another one."""
        check_own(state, path)
        choices = self.settings.model
        try:
            saved: ModelConfig = from_dict(ModelConfig, state["config"])
            config = replace(choices.over(saved), answers=self.answers or saved.answers)
            behaviour = self.behaviour(from_dict(Behaviour, state["behaviour"]))
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        weights = dict(state["model"])
        outline = self.outline(config, behaviour, weights, path)
        if config.answers != saved.answers:
            classifier = set(outline.part("answer"))
            weights = {name: value for name, value in weights.items() if name not in classifier}
        table = weights.get(f"clip.{POSITIONS}")
        if table is not None and config.grid != saved.grid:
            if table.shape != (saved.grid**2 + 1, saved.vision_width):
                raise CheckpointError(
                    f"{path}: damaged: {tuple(table.shape)} visual positions, its configuration needs "
                    f"{(saved.grid**2 + 1, saved.vision_width)}"
                )
            weights = self.at_resolution(weights, f"clip.{POSITIONS}", config, path)
        _check_shapes(outline, weights, path)
        model = self.build(outline)
        _note_other_layout(config, saved, path, self.log)
        self.fill(model, weights, path)
        _note_sizes(choices, config, path, self.log)
        return model

    def from_released(self, state: dict[str, Tensor], path: Path) -> Any:
        """A model of a checkpoint of the released code."""
        choices = {name: value for name, value in self.settings.model.given().items() if name not in SIZES_OF_RELEASED}
        try:
            config = config_from_released(state, answers=self.answers, **choices)
            state = self.at_resolution(state, f"clip.{POSITIONS}", config, path)
            outline = self.outline(config, self.behaviour(Behaviour.preset("released")), state, path)
            result = convert(state, outline)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        for kind, keys in (("unknown", result.unknown), ("dead", result.dropped), ("unused here", result.unused)):
            if keys:
                shown = f"{', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
                self.log(f"{path}: {len(keys)} {kind} entries left out: {shown}")
        model = self.build(outline)
        self.fill(model, result.state, path)
        _note_sizes(self.settings.model, config, path, self.log)
        return model

    def fill(self, model: TaskModel, state: dict[str, Tensor], path: Path) -> None:
        """Copy a checkpoint's entries; what it lacks comes from the CLIP weights if there are any."""
        own = model.state_dict()
        given = {name: value for name, value in state.items() if name in own}
        model.load_state_dict(given, strict=False)
        self.log(f"{path}: {len(given)} parameters taken")
        if unknown := sorted(set(state) - set(own)):
            self.log(f"{path}: {len(unknown)} entries have no place in this model: {', '.join(unknown[:5])}, ...")
        taken = set(given)
        if self.heads:
            taken |= self.take_heads(model, set(own) - taken)
        if missing := sorted(set(own) - taken):
            self.fill_missing(model, taken, missing, path)

    def take_heads(self, model: TaskModel, missing: set[str]) -> set[str]:
        """Copy from `--init_heads` what `--init_model` lacks; returns the names."""
        path = Path(fetched(str(self.heads)))
        state = read_checkpoint(path)
        check_own(state, path)
        try:
            saved: ModelConfig = from_dict(ModelConfig, state["config"])
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
        if saved.answers != model.config.answers:
            missing = missing - set(model.part("answer"))  # classes of other answers would fit by chance
        given = {name: value for name, value in state["model"].items() if name in missing}
        _check_shapes(model, given, path)
        model.load_state_dict(given, strict=False)
        model.borrowed_names = frozenset(given)
        shown = f": {', '.join(sorted(given)[:5])}" if given else ""
        self.log(f"{path}: {len(given)} of {len(missing)} parameters that --init_model lacks taken{shown}")
        return set(given)

    def fill_missing(self, model: TaskModel, given: set[str], missing: list[str], path: Path) -> None:
        """Take what a checkpoint lacks from the CLIP weights; they are needed only for CLIP's own parameters."""
        source, where = "", self.clip_archive()
        try:
            archive = find_clip_archive(where)
            clip = self.read_clip(archive)
            _check_description(clip, model.config, archive, path)
            state = self.at_resolution(clip.state, POSITIONS, model.config, archive)
            source = f" ({archive}, {origin(archive)})"
        except CheckpointError as error:
            own = owners(model)
            if lacking := [name for name in missing if own[name].rate == "clip"]:
                raise CheckpointError(
                    f"{path}: {len(lacking)} of CLIP's own parameters are missing; name the CLIP weights that it was "
                    f"trained from with --clip_archive ({error})"
                ) from error
            state, source = {}, f" ({error})"
        done = load_clip(model, state, given) if state else []
        anew = [name for name in missing if name not in done]
        model.new_names = frozenset(anew)
        self.log(f"{len(done)} further parameters start from CLIP, {len(anew)} anew: {', '.join(anew[:5])}{source}")


def _header(clip: ClipWeights, model: TaskModel, path: Path) -> dict[str, Tensor]:
    """The similarity header that a checkpoint of CLIP4Clip brings; CheckpointError where the model has another."""
    own = {name: value for name, value in model.named_parameters() if name.startswith("similarity.")}
    fits = clip.header.keys() == own.keys() and all(
        own[name].shape == value.shape for name, value in clip.header.items()
    )
    if clip.header and not fits:
        raise CheckpointError(
            f"{path}: brings a similarity header ({', '.join(list(clip.header)[:2])}, …) that is not this model's; "
            "give its --sim_header and --cross_num_hidden_layers"
        )
    return clip.header


def _check_description(clip: ClipWeights, config: ModelConfig, path: Path, checkpoint: Path) -> None:
    """Raise CheckpointError for CLIP weights that compute otherwise than the checkpoint that lacks them."""
    for name, value in clip.described.items():
        there = getattr(config, name) or config.head_width
        if there != value:
            raise CheckpointError(
                f"{path}: {name} {value}, {there} in {checkpoint}; name the CLIP that it started from"
            )


def _must_be_clip(path: Path) -> bool:
    """Whether a path can be nothing but CLIP weights: a folder that is no run's, or a file of a form of theirs."""
    if path.is_dir():
        return not any((path / name).exists() for name in ("best.bin", "restore.bin", "ckpt"))
    return path.name.endswith((".safetensors", INDEX)) or (path.is_file() and is_torchscript(path))


def _check_shapes(model: TaskModel, state: Mapping[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    wrong = [
        f"{name}: {tuple(value.shape)} in the file, {tuple(own[name].shape)} in the model"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    if wrong:
        raise CheckpointError(f"{path} does not fit this model:\n  " + "\n  ".join(wrong))


def _note_sizes(choices: ModelChoices, config: ModelConfig, path: Path, log: Callable[[str], None]) -> None:
    """Log sizes of the checkpoint that are not the defaults, and flags that cannot change them."""
    usual, given = ModelChoices.of(ModelConfig()), choices.given()
    for name, value in vars(ModelChoices.of(config)).items():
        if name in ("object_count", "num_actions") and not config.need_object:
            continue  # only room in the table of positions
        if name in given and given[name] != value:
            log(f"{path}: {name} stays {value} as its tensors need, not {given[name]}")
        elif name not in given and name != "image_resolution" and value != getattr(usual, name):
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
