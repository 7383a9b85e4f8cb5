"""From the files a user names (--clip_archive, --init_model) to a model with weights."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modules.config import Behaviour, ModelConfig, from_dict
from modules.initialise import config_from_clip, initialise, load_clip
from modules.released_checkpoint import config_from_released, convert, is_released
from modules.task_model import TaskModel
from utils.runtime.checkpoint import CheckpointError, check_own, is_own, load
from utils.settings.arguments import Arguments

CLIP_FILE = "ViT-B-16.pt"
CLIP_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt"
)
CLIP_FOLDERS = ("modules/clip", "modules", "data/models/clip", "data/models")
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # integers that OpenAI's archives carry
STORED_SIZES = (
    "image_resolution", "patch_size", "vision_width", "vision_layers", "embed_dim", "context_length", "vocab_size",
    "text_width", "text_layers", "head_width", "fusion_layers", "linear_patch",
)  # fmt: skip
OBJECT_SIZES = ("object_count", "num_actions")  # the position table has room for them, also in a model without objects
REPOSITORY = Path(__file__).resolve().parents[2]

ModelClass = Callable[[ModelConfig, Behaviour], Any]


def find_clip_archive(path: str | Path) -> Path:
    """The CLIP file that `--clip_archive` means: itself, or the one in its folder, or one in the usual places.

    Raises:
        CheckpointError: nothing there; lists the places and the address of the official file.
    """
    given = Path(path)
    if given.is_file():
        return given
    folders = [given, *(REPOSITORY / folder for folder in CLIP_FOLDERS)]
    for folder in folders:
        if (folder / CLIP_FILE).is_file():
            return folder / CLIP_FILE
    inside = sorted(f for f in given.iterdir() if f.suffix in SUFFIXES) if given.is_dir() else []
    if len(inside) == 1:
        return inside[0]
    found = f" It holds several files ({', '.join(f.name for f in inside)}): name one." if inside else ""
    places = "\n  ".join([str(given), *(str(folder / CLIP_FILE) for folder in folders)])
    raise CheckpointError(
        f"no CLIP archive at --clip_archive {path}.{found} Looked in:\n  {places}\n"
        f"OpenAI's ViT-B/16 is at {CLIP_URL}; utils/make_random_clip.py writes one with random weights."
    )


def read_clip_archive(path: str | Path) -> dict[str, Tensor]:
    """State dict of a CLIP file: OpenAI's TorchScript archive, a plain or wrapped state dict, or safetensors.

    Raises:
        CheckpointError: the file is none of these.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            state: dict[str, Any] = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: no readable safetensors file ({error})") from error
    elif _is_torchscript(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, OpenAI's files stay
                state = torch.jit.load(path, map_location="cpu").state_dict()
        except RuntimeError as error:
            raise CheckpointError(f"{path}: damaged TorchScript archive ({error})") from error
    else:
        state = load(path)
        for wrapper in ("state_dict", "model_state_dict", "model"):
            state = state[wrapper] if isinstance(state.get(wrapper), dict) else state
    state = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    return {key: value for key, value in state.items() if key not in NOT_WEIGHTS}


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def setup_model(
    model_class: ModelClass, args: Arguments, log: Callable[[str], None], answers: Sequence[str] = ()
) -> Any:
    """Build a task's model and fill it: the checkpoint first, then CLIP for what the checkpoint does not have.

    `--init_model` may be an own checkpoint, a released one, or a CLIP archive. Sizes and behaviour come from the
    checkpoint where there is one; the flags choose the rest. What nothing gives keeps its initial value.

    Args:
        answers: classes of an answer classifier; without them a checkpoint's own. A checkpoint's classifier of other
            answers is left out.

    Raises:
        CheckpointError, ValueError: a file is missing, is of another kind, or does not fit; the message names it.
    """
    torch.manual_seed(args.seed)
    if args.init_model is None:
        return _from_clip(model_class, args, args.clip_archive, log, answers)
    path = Path(args.init_model)
    if path.is_file() and (path.suffix == ".safetensors" or _is_torchscript(path)):
        return _from_clip(model_class, args, path, log, answers)
    state = load(path)
    if is_own(state):
        return _from_own(model_class, args, state, path, log, answers)
    weights = state.get("model_state_dict", state)
    if is_released(weights):
        return _from_released(model_class, args, weights, path, log, answers)
    return _from_clip(model_class, args, path, log, answers)


def model_choices(args: Arguments) -> dict[str, Any]:
    """The part of the model's configuration that flags decide; None leaves the configuration's own default."""
    choices = {
        "max_frames": args.max_frames,
        "max_words": args.max_words,
        "fusion_layers": args.fusion_layers,
        "dropout": args.dropout,
        "frame_dropout": args.frame_dropout,
        "need_object": args.need_object,
        "object_count": args.object_count,
        "object_layer": args.object_layer,
        "object_fuse": args.object_fuse,
        "use_action": args.use_action,
        "action_only": args.action_only,
        "num_actions": args.num_actions,
        "linear_patch": args.linear_patch,
        "sim_header": args.sim_header,
        "header_layers": args.cross_num_hidden_layers,
    }
    return {name: value for name, value in choices.items() if value is not None}


def _from_clip(
    model_class: ModelClass,
    args: Arguments,
    where: str | Path,
    log: Callable[[str], None],
    answers: Sequence[str],
) -> Any:
    path = find_clip_archive(where)
    state = read_clip_archive(path)
    try:
        model = model_class(
            config_from_clip(state, answers=tuple(answers), **model_choices(args)),
            Behaviour.preset(args.behaviour or "intended"),
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
    args: Arguments,
    state: dict[str, Any],
    path: Path,
    log: Callable[[str], None],
    answers: Sequence[str],
) -> Any:
    check_own(state, path)
    saved: ModelConfig = from_dict(ModelConfig, state["config"])
    stored = STORED_SIZES if args.need_object else (*STORED_SIZES, *OBJECT_SIZES)
    choices = {**model_choices(args), **{name: getattr(saved, name) for name in stored}}
    choices["answers"] = tuple(answers) or saved.answers
    behaviour = Behaviour.preset(args.behaviour) if args.behaviour else from_dict(Behaviour, state["behaviour"])
    model = model_class(ModelConfig(**choices), behaviour)
    initialise(model)
    _note_other_layout(model.config, saved, path, log)
    weights = dict(state["model"])
    if model.config.answers != saved.answers:
        weights = {name: value for name, value in weights.items() if not name.startswith("answer_head.")}
    _fill(model, args, weights, path, log)
    return model


def _note_other_layout(config: ModelConfig, saved: ModelConfig, path: Path, log: Callable[[str], None]) -> None:
    """Text has other positions in the fusion encoder when trajectories or actions come or go."""
    parts = {"trajectories": "has_trajectories", "actions": "has_actions"}
    changed = [name for name, attribute in parts.items() if getattr(config, attribute) != getattr(saved, attribute)]
    if changed:
        log(
            f"{path} was trained with another choice of {' and '.join(changed)}: its fusion encoder (re-ranking, "
            "captions, answers) meets a layout that it was not trained on"
        )


def _from_released(
    model_class: ModelClass,
    args: Arguments,
    state: dict[str, Tensor],
    path: Path,
    log: Callable[[str], None],
    answers: Sequence[str],
) -> Any:
    choices = {k: v for k, v in model_choices(args).items() if k not in ("max_frames", "object_count", "num_actions")}
    try:
        config = config_from_released(state, answers=tuple(answers), **choices)
        model = model_class(config, Behaviour.preset(args.behaviour or "released"))
        initialise(model)
        result = convert(state, model)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for kind, keys in (("unknown", result.unknown), ("dead", result.dropped), ("unused here", result.unused)):
        if keys:
            log(f"{path}: {len(keys)} {kind} entries left out: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}")
    _fill(model, args, result.state, path, log)
    return model


def _fill(model: TaskModel, args: Arguments, state: dict[str, Tensor], path: Path, log: Callable[[str], None]) -> None:
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
        _fill_missing(model, args, set(given), missing, log)


def _fill_missing(
    model: TaskModel, args: Arguments, given: set[str], missing: list[str], log: Callable[[str], None]
) -> None:
    try:
        state = read_clip_archive(find_clip_archive(args.clip_archive))
    except CheckpointError:
        if any(name.startswith("clip.") for name in missing):
            raise
        state = {}
    done = load_clip(model, state, given) if state else []
    anew = [name for name in missing if name not in done]
    model.new_names = frozenset(anew)
    log(f"{len(done)} further parameters start from CLIP, {len(anew)} anew: {', '.join(anew[:5])}")
