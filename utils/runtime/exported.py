"""Folders that `utils/export_model.py` writes, read as the checkpoint that they stand for.

`config.json` says what the model is and how clips are read, `model.safetensors` has its parameters, `answers.json` the
answers of a classifier and `label_map.json` the object classes. Who wrote a folder may be a stranger: it names no other
file, and everything in it is held against what it should be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any

from dataloaders.files import file_stamp
from dataloaders.frames import FRAME_RULE
from modules.config import UNSTATED, Behaviour, ModelConfig
from modules.foreign_text import parse_json, read_bytes
from utils.runtime.checkpoint import FORMAT, VERSION, CheckpointError, check_own, load
from utils.runtime.safetensors_files import read_metadata, read_safetensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ANSWERS_FILE = "answers.json"
CLASSIFIER = "answer_head.weight"
MAX_JSON = 2**26  # bytes of a config.json or a label map; VinVL's label map has a tenth of a megabyte
NAMES, NAME = ("task", "data"), re.compile("[a-z0-9]+")
AGAIN = "export it again with utils/export_model.py, or fetch the folder again"


def exported_folder(path: str | Path) -> Path | None:
    """The exported folder that a path means, by itself or by its file of parameters; None for anything else."""
    path = Path(path)
    if not path.is_dir() and (path.name != WEIGHTS_FILE or not path.is_file()):
        return None
    folder = path if path.is_dir() else path.parent
    with contextlib.suppress(OSError, ValueError):
        content = _read_json(folder / CONFIG_FILE)
        if isinstance(content, dict) and content.get("format") == FORMAT:
            return folder
    return folder if read_metadata(folder / WEIGHTS_FILE).get("format") == FORMAT else None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Content of a checkpoint: a file of any origin as `load` gives it, or an exported folder in the same form.

    Raises:
        CheckpointError: as `load` and `read_exported`; a folder of another kind.
    """
    if folder := exported_folder(path):
        return read_exported(folder)
    if Path(path).is_dir():
        raise CheckpointError(
            f"{path}: a folder, but not one of utils/export_model.py; name a checkpoint in it, such as best.bin"
        )
    return load(path)


def read_exported(folder: Path) -> dict[str, Any]:
    """Content of an exported folder: that of an own checkpoint, and `arguments`, settings by flag.

    Raises:
        CheckpointError: a file is missing, damaged, of another kind or version, or does not fit the others.
    """
    state = read_description(folder)
    state["model"] = read_safetensors(folder / WEIGHTS_FILE)
    check_own(state, folder)
    if CLASSIFIER in state["model"]:
        stated, stored = len(state["config"]["answers"]), state["model"][CLASSIFIER].shape[:1]
        if stored != (stated,):
            raise CheckpointError(
                f"{folder / ANSWERS_FILE}: {stated} answers, but the classifier in {WEIGHTS_FILE} has {list(stored)}; "
                f"{AGAIN}"
            )
    return state


def read_description(folder: Path) -> dict[str, Any]:
    """What `read_exported` gives, without the tensors: `model` is empty."""
    path = folder / CONFIG_FILE
    try:
        content = _read_json(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing, and says what the model in {WEIGHTS_FILE} is; {AGAIN}") from error
    except ValueError as error:
        raise CheckpointError(f"{error}; {AGAIN}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not of a model that was exported by this project; {AGAIN}")
    kinds = {"version": int, "model": dict, "behaviour": dict, "arguments": dict, "global_step": int, "epoch": int}
    wrong = [name for name, kind in kinds.items() if type(content.get(name)) is not kind]
    if wrong:
        raise CheckpointError(f"{path}: damaged: its {', '.join(wrong)} cannot be used; {AGAIN}")
    rule = content.get("frame_rule")
    if content["version"] > VERSION or type(rule) is int and rule > FRAME_RULE:
        raise CheckpointError(
            f"{path}: version {content['version']} with frame rule {rule}; this code reads up to {VERSION} and "
            f"{FRAME_RULE}; update the code"
        )
    if not all(content.get(name) is None or NAME.fullmatch(str(content[name])) for name in NAMES):
        raise CheckpointError(f"{path}: damaged: its {' or '.join(NAMES)} is no name; {AGAIN}")
    if "answers" in content["model"]:
        raise CheckpointError(f"{path}: its model has answers, which belong into {ANSWERS_FILE}; {AGAIN}")
    # Nothing is guessed; whoever adds a field to a model lets the folders of before go without it (`UNSTATED`).
    for name, kind in (("model", ModelConfig), ("behaviour", Behaviour)):
        missing = {field.name for field in dataclasses.fields(kind)} - {"answers", *UNSTATED} - set(content[name])
        if missing:
            raise CheckpointError(f"{path}: its {name} does not say {', '.join(sorted(missing))}; {AGAIN}")
    return {
        "format": FORMAT,
        "version": content["version"],
        "config": {**content["model"], "answers": _answers(folder)},
        "behaviour": content["behaviour"],
        "model": {},
        "global_step": content["global_step"],
        "epoch": content["epoch"],
        **{name: content.get(name) for name in ("arguments", "frame_rule", *NAMES)},
    }


def _answers(folder: Path) -> tuple[str, ...]:
    path = folder / ANSWERS_FILE
    try:
        answers = _read_json(path)
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise CheckpointError(f"{error}; {AGAIN}") from error
    if not isinstance(answers, list) or not all(type(answer) is str for answer in answers):
        raise CheckpointError(f"{path}: not a list of answers; {AGAIN}")
    return tuple(answers)


def _read_json(path: Path) -> Any:
    """Content of a small JSON file; errors as `modules.foreign_text.read_json`."""
    try:
        text = read_bytes(path, MAX_JSON).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8") from error
    return parse_json(text, str(path), "is the file complete?")


def checkpoint_stamp(path: str | Path) -> str:
    """Sizes and times of change of what a checkpoint consists of, to tell cheaply whether it is still the same."""
    folder = exported_folder(path)
    files = [folder / name for name in (CONFIG_FILE, WEIGHTS_FILE, ANSWERS_FILE)] if folder else [Path(path)]
    return " ".join(file_stamp(file) for file in files if file.is_file())
