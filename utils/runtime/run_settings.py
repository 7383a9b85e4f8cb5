"""What a run left beside its checkpoints: its config.json, and the settings in it that decide what a model sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from modules.foreign_text import read_bytes
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.exported import AGAIN, CONFIG_FILE, MAX_JSON, exported_folder, read_description
from utils.runtime.run_log import LABEL_MAP_FILE
from utils.settings.fields import flags_of, from_flat
from utils.settings.groups import UseSettings

OF_OTHERS = ("model_type", "model_cfg", "architectures")  # what a config.json has that is of no run
PATHS = ("clip_archive", "labelmap_path")
SEEN = tuple(flag.name for flag in flags_of(UseSettings) if flag.field.metadata["seen"])
SEEN_OF_A_CLIP = tuple(name for name in SEEN if name not in PATHS)


class RunFiles(NamedTuple):
    """The folder of a run, and the content of its config.json."""

    folder: Path
    config: dict[str, Any]


def find_run(checkpoint: Path) -> RunFiles | None:
    """The run of a checkpoint: its config.json is in the same folder or the one above; None without one.

    Raises:
        CheckpointError: it is not a run's.
    """
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        path = folder / CONFIG_FILE
        if path.is_file():
            try:
                config = json.loads(read_bytes(path, MAX_JSON))
                if isinstance(config, dict) and any(name in config for name in OF_OTHERS):
                    continue
                if not isinstance(config["arguments"], dict):
                    raise ValueError(f"its arguments are {str(config['arguments'])[:40]!r}")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise CheckpointError(f"{path}: not a run's config.json ({type(error).__name__}: {error})") from error
            return RunFiles(folder, config)
    return None


def seen_settings(checkpoint: Path) -> dict[str, Any]:
    """Settings by flag that decide what a checkpoint's model sees of a clip; the rest of a config.json is training's.

    Who wrote a config.json may be a stranger: it names no file of weights, and of its files only the label map is read;
    that of an exported folder names no file at all.

    Raises:
        CheckpointError: the config.json is not what it should be.
    """
    if folder := exported_folder(checkpoint):
        arguments = read_description(folder)["arguments"]
        if unknown := sorted(set(arguments) - set(SEEN_OF_A_CLIP)):
            raise CheckpointError(
                f"{folder / CONFIG_FILE}: no settings of how clips are read: {', '.join(unknown)[:200]}; if it is of a "
                f"newer version, update the code, else {AGAIN}"
            )
        if missing := [name for name in SEEN_OF_A_CLIP if name not in arguments]:
            raise CheckpointError(f"{folder / CONFIG_FILE}: its arguments do not say {', '.join(missing)}; {AGAIN}")
        try:
            from_flat(UseSettings, arguments)
        except ValueError as error:
            raise CheckpointError(f"{folder / CONFIG_FILE}: {error}; {AGAIN}") from error
        return arguments | _label_map(folder)
    run = None if checkpoint.is_dir() else find_run(checkpoint)
    if run is None:
        return {}
    arguments = run.config["arguments"]
    values = {name: arguments[name] for name in SEEN if name != "clip_archive" and name in arguments}
    return values | _label_map(run.folder)  # older runs have none; the label map is then where config.json says


def _label_map(folder: Path) -> dict[str, str]:
    own = folder / LABEL_MAP_FILE
    return {"labelmap_path": str(own)} if own.is_file() else {}
