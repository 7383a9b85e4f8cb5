"""A trained model as a folder to hand on: parameters, what they are, how clips are read, and a model card."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from dataloaders.files import atomic_folder, atomic_write_bytes, atomic_write_text
from dataloaders.label_map import load_label_map
from modules.config import Behaviour, ModelConfig, from_dict
from modules.foreign_text import read_json
from modules.released_checkpoint import config_from_released, convert, entries, is_released, our_name, present_key
from modules.tasks.pretrain import PretrainModel
from utils.models.model_card import Score, model_card, scores_of
from utils.runtime.checkpoint import FORMAT, VERSION, CheckpointError, CheckpointFolder, check_own, is_own
from utils.runtime.exported import ANSWERS_FILE, CONFIG_FILE, WEIGHTS_FILE, exported_folder, read_checkpoint
from utils.runtime.run_log import LABEL_MAP_FILE, read_metrics
from utils.runtime.run_settings import SEEN_OF_A_CLIP, RunFiles, find_run, seen_settings
from utils.settings.arguments import OWN
from utils.settings.fields import flat_values, from_flat
from utils.settings.groups import UseSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CARD_FILE = "README.md"
BEST_FILE = "best.bin"
METRICS_FILE, METRIC_LINES = "metrics.json", "metrics.jsonl"
TASK_BY_FLAG = {"beam_size": "caption", "questions_per_clip": "qa"}  # flags that only this task has
LABELS = ("label_to_idx", "attribute_to_idx")  # of a label map; others are not read


class Source(NamedTuple):
    """What is exported."""

    path: Path
    content: dict[str, Any]  # of an own checkpoint
    run: RunFiles | None


def export(
    source: str | Path,
    out: str | Path,
    dtype: str = "fp32",
    parts: Mapping[str, bool] | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write a checkpoint as a folder that every flag takes which takes a checkpoint; two exports have equal bytes.

    Args:
        source: folder of a run (its best model, else its newest), a checkpoint, or an exported folder.
        out: folder to write; it is there whole or not at all.
        dtype: how parameters are stored: fp32, bf16 or fp16.
        parts: `need_object` and `use_action` of a released checkpoint, which does not say them.

    Raises:
        CheckpointError, ValueError: nothing to export, `out` is taken, or the disk is full; names the remedy.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CheckpointError(f"{out}: is there already and not an empty folder; name another, or delete it")
    path = find_checkpoint(Path(source), log)
    found = _read(path, parts or {})
    model, behaviour = _model_and_behaviour(found)
    config = _config(found, model, behaviour, dtype)
    weights = _stored(found.content.pop("model"), dtype, path)
    label_map = _label_map(path) if model.need_object else None
    if model.need_object and label_map is None:
        log(f"{path}: no label map of its run is there; users of the folder will have to name theirs (--labelmap_path)")
    parameters = sum(value.numel() for value in weights.values())
    card = model_card(config, model, parameters, _scores(found))
    texts = {CONFIG_FILE: _json(config), CARD_FILE: card}
    texts |= {ANSWERS_FILE: _json(list(model.answers))} if model.answers else {}
    texts |= {LABEL_MAP_FILE: _json(label_map)} if label_map is not None else {}
    try:
        with atomic_folder(out) as folder:
            atomic_write_bytes(folder / WEIGHTS_FILE, save(weights, {"format": FORMAT}))
            for name, text in texts.items():
                atomic_write_text(folder / name, text)
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"{out}: cannot be written ({reason}); free space, or name another folder") from error
    return path


def find_checkpoint(source: Path, log: Callable[[str], None]) -> Path:
    """The checkpoint that a path means: that of a run is its best, else its newest.

    Raises:
        CheckpointError: there is none.
    """
    if not source.exists():
        raise CheckpointError(f"{source}: no such checkpoint, and no such folder")
    if not source.is_dir() or exported_folder(source):
        return source
    saved = CheckpointFolder(source)
    steps = saved.saved_steps()
    if (source / BEST_FILE).is_file():
        path = source / BEST_FILE
    elif steps:
        path = saved.model_path(steps[-1])
    else:
        raise CheckpointError(
            f"{source}: no {BEST_FILE} and no ckpt/pytorch_model.bin.N in it; name the folder of a run, or a checkpoint"
        )
    log(f"{source}: {path} is exported")
    return path


def _read(path: Path, parts: Mapping[str, bool]) -> Source:
    state = read_checkpoint(path)
    if is_own(state):
        if any(parts.values()):
            raise CheckpointError(f"{path}: says itself which parts it has; leave --need_object and --use_action out")
        check_own(state, path)
        return Source(path, state, None if exported_folder(path) else find_run(path))
    weights = entries(state)
    if not is_released(weights):
        raise CheckpointError(f"{path}: neither a checkpoint of this project nor a released one; it cannot be exported")
    return Source(path, _converted(weights, path, parts), None)


def _converted(released: dict[str, Tensor], path: Path, parts: Mapping[str, bool]) -> dict[str, Any]:
    """A released checkpoint as an own one, with all that any task of the released code reads."""
    behaviour = Behaviour.preset("released")
    try:
        whole = config_from_released(released, need_object=True, use_action=True)
        with torch.device("meta"):
            model = PretrainModel(whole, behaviour)
        result = convert(released, model)
        config = {**dataclasses.asdict(whole), "need_object": False, "use_action": False, **parts}
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    by_key = {present_key(key): value for key, value in released.items()}
    headers = {our_name(key): by_key[key].float() for key in result.unused}  # of similarities that a task may ask for
    return {
        "config": config,
        "behaviour": dataclasses.asdict(behaviour),
        "model": {**result.state, **headers},
        "global_step": 0,
        "epoch": 0,
    }


def _config(source: Source, model: ModelConfig, behaviour: Behaviour, dtype: str) -> dict[str, Any]:
    """Content of config.json: nothing in it is of the machine that it is made on."""
    content, run = source.content, source.run.config if source.run else {}
    data, task = _data_and_task(source)
    sizes = dataclasses.asdict(model)
    del sizes["answers"]  # they have a file of their own
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": task,
        "data": data,
        "model": sizes,
        "behaviour": dataclasses.asdict(behaviour),
        "frame_rule": run.get("frame_rule") if type(run.get("frame_rule")) is int else content.get("frame_rule"),
        "arguments": _arguments(source.path),
        "global_step": content["global_step"],
        "epoch": content["epoch"],
        "dtype": dtype,
    }


def _data_and_task(source: Source) -> tuple[str | None, str | None]:
    """Names of the data set and the task, as far as the run says them."""
    if source.run is None:
        return source.content.get("data"), source.content.get("task")
    arguments = source.run.config["arguments"]
    datatype = arguments.get("datatype")
    if datatype == OWN:  # which says no task
        return OWN, next((task for flag, task in TASK_BY_FLAG.items() if flag in arguments), None)
    if not isinstance(datatype, str) or not re.fullmatch(r"[a-z0-9]+(_[a-z]+)?", datatype):
        return None, None
    data, _, task = datatype.rpartition("_")
    return data or None, task


def _arguments(path: Path) -> dict[str, Any]:
    """Every setting by flag that decides what a model sees of a clip, those with their default too."""
    known = {name: value for name, value in seen_settings(path).items() if name in SEEN_OF_A_CLIP}
    values = flat_values(from_flat(UseSettings, known))
    return {name: values[name] for name in SEEN_OF_A_CLIP}


def _model_and_behaviour(source: Source) -> tuple[ModelConfig, Behaviour]:
    try:
        return from_dict(ModelConfig, source.content["config"]), from_dict(Behaviour, source.content["behaviour"])
    except ValueError as error:
        raise CheckpointError(f"{source.path}: {error}") from error


def _stored(model: Mapping[str, Tensor], dtype: str, path: Path) -> dict[str, Tensor]:
    """Parameters as they are stored: whole, each with memory of its own; what is no fraction stays as it is."""
    stored = {}
    for name, value in model.items():
        kind = DTYPES[dtype] if value.is_floating_point() else value.dtype
        stored[name] = torch.empty(value.shape, dtype=kind).copy_(value)
        if value.is_floating_point() and torch.isfinite(value).sum() != torch.isfinite(stored[name]).sum():
            raise CheckpointError(f"{path}: {name} has numbers that {dtype} cannot hold; export as bf16 or fp32")
    return stored


def _label_map(path: Path) -> dict[str, Any] | None:
    """The label map that a checkpoint is used with, less what is not read of it; None where there is none."""
    place = Path(seen_settings(path).get("labelmap_path", ""))
    if not place.is_file():
        return None
    label_map = load_label_map(place)
    return {name: label_map[name] for name in LABELS if name in label_map}


def _scores(source: Source) -> list[Score]:
    """What the run measured on just this checkpoint: in training by metrics.jsonl, in the end by metrics.json."""
    if source.run is None:
        return []
    step, folder, scores = source.content["global_step"], source.run.folder, []
    if (folder / METRIC_LINES).is_file():
        for line in read_metrics(folder / METRIC_LINES):
            if line["kind"] == "evaluation" and line["step"] == step:
                metrics = {name: value for name, value in line.items() if name != "step"}
                scores = scores_of(line.get("split", "validation"), metrics)
    if (folder / METRICS_FILE).is_file():
        result = read_json(folder / METRICS_FILE)
        # Its first line says of which model: the best or the last one of the run, or one that was given.
        if isinstance(result, dict) and str(result.get("model")).endswith(f", step {step}"):
            scores += scores_of(result.get("split"), result.get("metrics"))
    return scores


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
