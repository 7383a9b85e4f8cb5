"""Detection models of transformers in a folder, or on the hub: loaded from there only, as data, and whole.

The package is imported where such a model is opened, and nowhere else. Nothing of a folder is run, and nothing is
fetched but what is named `hf-hub:`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dataloaders.files import file_stamp
from modules.foreign_text import read_json
from utils.runtime.checkpoint import CheckpointError, load
from utils.runtime.hub import fetch, parse_name
from utils.settings.groups import HUB_PREFIX

INSTALL = "pip install 'transformers>=5,<6' (requirements-optional.txt)"
SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = "pytorch_model.bin"
STAMPED = (".json", ".txt", ".safetensors", ".bin")
# Names of a part of the model, by which timm and transformers would look for it elsewhere.
PART_NAMES = ("backbone", "architecture")
COUNTER = "num_batches_tracked"  # of batch normalisation, which using a model does not read


class ModelFolder:
    """A detection model that is not loaded yet.

    Args:
        weights: folder as `save_pretrained` writes it, or `hf-hub:OWNER/NAME[@REVISION]`, which is downloaded.

    Attributes:
        path: the folder.
        name: what to call it.
        stamp: which one it is: size and time of each of its files, or the commit on the hub.
        kind: the type of the model.
        has_prompts: whether it looks for words; else it has classes of its own.

    Raises:
        ValueError: transformers is not installed; there is no such folder; it is of no detector, or would need other
            files than its own.
        CheckpointError: the hub does not have it.
    """

    def __init__(self, weights: str | Path) -> None:
        _import_transformers()
        from transformers.models.auto import modeling_auto as auto

        self.path, self.name, self.stamp = _placed(str(weights))
        self.config = _config(self.path)
        self.kind: str = self.config.model_type
        self.has_prompts = self.kind in auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES
        if not self.has_prompts and self.kind not in auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
            raise ValueError(
                f"{self.path}: a model of type {self.kind!r} is no detector: transformers has "
                f"{', '.join(auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES)} and, for words, "
                f"{', '.join(auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES)}"
            )

    def load(self, device: torch.device) -> tuple[Any, Any]:
        """The model for use, and its own preparation of pictures and texts.

        Raises:
            ValueError, CheckpointError: files are missing or damaged, or a parameter has no weights.
        """
        import transformers

        with _quiet_and_offline():
            model = self._model().to(device).eval().requires_grad_(False)
            made = transformers.AutoProcessor if self.has_prompts else transformers.AutoImageProcessor
            with _explained(self.path, "a processor"):
                return model, made.from_pretrained(str(self.path), local_files_only=True, trust_remote_code=False)

    def _model(self) -> Any:
        from transformers.models.auto import modeling_auto as auto

        tables = (auto.MODEL_FOR_OBJECT_DETECTION_MAPPING, auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING)
        kind: Any = tables[self.has_prompts][type(self.config)]
        where: dict[str, Any]
        if any((self.path / name).is_file() for name in SAFE_WEIGHTS):
            where = {"pretrained_model_name_or_path": str(self.path), "use_safetensors": True, "local_files_only": True}
        elif (self.path / PICKLED_WEIGHTS).is_file():
            where = {"pretrained_model_name_or_path": None, "state_dict": load(self.path / PICKLED_WEIGHTS)}
        else:
            raise ValueError(f"{self.path}: no weights in it: {', '.join(SAFE_WEIGHTS)} or {PICKLED_WEIGHTS}")
        self._check_size(kind)
        with _explained(self.path, self.kind):
            model, report = kind.from_pretrained(
                config=self.config, dtype=torch.float32, output_loading_info=True, **where
            )
        if missing := sorted(name for name in report["missing_keys"] if not name.endswith(COUNTER)):
            raise ValueError(
                f"{self.path}: {len(missing)} parameters of {self.kind} have no weights, as {', '.join(missing[:3])}; "
                "fetch the folder again"
            )
        return model

    def _check_size(self, kind: Any) -> None:
        """Raise ValueError for a configuration of more numbers than the files have bytes, before memory is taken."""
        there = sum(file.stat().st_size for file in self.path.iterdir() if file.suffix in (".safetensors", ".bin"))
        with _explained(self.path, self.kind), torch.device("meta"):
            wanted = sum(parameter.numel() for parameter in kind(self.config).parameters())
        if wanted > there:
            raise ValueError(
                f"{self.path}/config.json: states a model of {wanted:,} numbers, the files beside it have {there:,} "
                "bytes; fetch the folder again"
            )


def _import_transformers() -> None:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f"--detector hf needs the package transformers: {INSTALL}") from error
    if not transformers.__version__.startswith("5."):
        raise ValueError(f"--detector hf needs transformers 5, not {transformers.__version__}: {INSTALL}")


def _placed(weights: str) -> tuple[Path, str, Any]:
    """Folder, name and stamp of a model."""
    if weights.startswith(HUB_PREFIX):
        path = fetch(weights)
        return path, parse_name(weights).repository, path.name  # the cache calls a folder by its commit
    path = Path(weights)
    if not path.is_dir():
        raise ValueError(
            f"{weights}: no such folder. --detector hf --weights takes a folder as save_pretrained writes it, or "
            f"{HUB_PREFIX}OWNER/NAME to download one"
        )
    files = sorted(file for file in path.iterdir() if file.suffix in STAMPED and file.is_file())
    return path, path.name, {file.name: file_stamp(file) for file in files}


def _config(folder: Path) -> Any:
    """The model's configuration, as data; ValueError for one that would take parts from elsewhere."""
    from transformers import CONFIG_MAPPING

    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json; give a folder as save_pretrained writes it (--weights)")
    values = read_json(folder / "config.json")
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ValueError(f"{folder}/config.json: its model_type is {kind!r}, which transformers does not have")
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"{folder}: an adapter of another model; give a folder with the whole model (--weights)")
    for name in _parts(values):
        if "/" in name or ":" in name or "\\" in name:
            raise ValueError(
                f"{folder}/config.json: takes a part from {name!r}. A folder is loaded from itself only: write it "
                "again with save_pretrained of transformers 5, which puts the part's configuration into it"
            )
    values = {name: value for name, value in values.items() if name != "auto_map"}
    if isinstance(values.get("backbone"), str) and not values.get("backbone_config") and values.get("backbone_kwargs"):
        # As transformers has it for a backbone of timm, but without asking the hub whether it has one of this name.
        more = values.pop("backbone_kwargs")
        values["backbone_config"] = {"model_type": "timm_backbone", "backbone": values.pop("backbone"), **more}
    with _explained(folder, kind), _quiet_and_offline():
        return CONFIG_MAPPING[kind].from_dict(values)


def _parts(values: Any) -> Iterator[str]:
    """Names of parts, wherever they stand in a configuration."""
    left = [values]
    while left:
        one = left.pop()
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        if isinstance(one, dict):
            yield from (one[name] for name in PART_NAMES if isinstance(one.get(name), str))


@contextmanager
def _explained(folder: Path, what: str) -> Iterator[None]:
    """Whatever transformers raises over files that are damaged, or not there, as ValueError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"{folder}: transformers cannot load it as {what} ({reason})") from error


@contextmanager
def _quiet_and_offline() -> Iterator[None]:
    """Without progress bars and remarks of transformers, and without any request to the hub."""
    from huggingface_hub import constants
    from transformers.utils import logging

    before, level = constants.HF_HUB_OFFLINE, logging.get_verbosity()
    had_bar = logging.is_progress_bar_enabled()
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()
