"""Own checkpoints: tensors and plain Python values only, written whole or not at all, read without unpickling code.

A checkpoint is a dict with `format`, `version`, `config` and `behaviour` (fields of the model's dataclasses), `model`
(its state dict), `global_step` and `epoch`. `restore.bin` adds what exact resume needs (utils/training/trainer.py).
"""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataloaders.files import atomic_file

FORMAT = "stoa-vlp"
VERSION = 1
PLAIN = (str, int, float, bool, type(None))
SHARED = 16  # times that a file's tensors may ask for the memory of its storages; tied weights share theirs


class CheckpointError(Exception):
    """A checkpoint that cannot be written, read or used; the message names the file and the remedy."""


def save_atomically(content: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint to a temporary file beside `path`, flush it to the disk, then put it in the place of `path`.

    Whatever goes wrong, the file that was at `path` stays as it was. One process writes a given `path`.

    Raises:
        CheckpointError: the disk is full or cannot be written, or `content` holds something that
            `torch.load(weights_only=True)` would refuse.
    """
    path = Path(path)
    _check_plain(content, "checkpoint")
    try:
        with atomic_file(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch's zip writer reports a failed write as a RuntimeError that was raised while handling the OSError.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        kept = "the file that was there is unchanged" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"{path}: checkpoint not saved ({cause.strerror or cause}); {kept}. Free space or choose another "
            "--output_dir, then start again: a run goes on from its restore.bin."
        ) from error


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Tensor):
        return
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            if type(key) not in (str, int):
                raise CheckpointError(f"{where}: key {key!r} is neither text nor a whole number")
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) not in PLAIN:
        raise CheckpointError(f"{where}: {type(value).__name__} is neither a tensor nor a plain Python value")


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of any origin onto the CPU, tensors and plain values only; nothing in the file is run.

    Raises:
        CheckpointError: no such file, no torch archive, a TorchScript archive, a damaged file, or one that holds other
            Python objects, or tensors larger than the file has numbers for.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if torch.__version__ < "2.10":
        raise CheckpointError(
            f"{path}: torch {torch.__version__} could run code of a weight file; install 2.10 or later"
        )
    if is_torchscript(path):
        raise CheckpointError(f"{path}: a TorchScript archive such as OpenAI's CLIP; give it to --clip_archive")
    if sum(member.file_size for member in _members(path)) > path.stat().st_size:
        raise CheckpointError(f"{path}: compressed, which torch.save does not do; save it again with torch.save")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise whatever their bytes lead to
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise CheckpointError(
                f"{path}: holds Python objects besides tensors and plain values, which could run code when read. "
                "Ask its author for a file with a state dict only."
            ) from error
        raise CheckpointError(
            f"{path}: no readable torch checkpoint ({type(error).__name__}): damaged, cut short or of another kind. "
            "Fetch it again or choose another file."
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a checkpoint's dict")
    _check_memory(state, path)
    return state


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI's are."""
    return any(member.filename.endswith("/constants.pkl") for member in _members(Path(path)))


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """Members of a zip file; none of a file of another kind, or whose table of contents is damaged."""
    if not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return []


def _check_memory(state: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError for tensors that are larger than what the file has for them, as by strides of 0."""
    storages: dict[int, int] = {}
    wanted = 0
    for tensor in _tensors(state):
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: holds a tensor that is not dense; save it again with dense tensors")
        storage = tensor.untyped_storage()
        wanted += tensor.nbytes
        if tensor.nbytes > storage.nbytes():
            raise CheckpointError(
                f"{path}: a tensor of shape {list(tensor.shape)} asks for {tensor.nbytes:,} bytes and has "
                f"{storage.nbytes():,} in the file. Ask its author for a file with whole tensors (`.contiguous()`)."
            )
        storages[storage.data_ptr()] = storage.nbytes()
    if wanted > SHARED * sum(storages.values()):
        raise CheckpointError(
            f"{path}: its tensors ask for {wanted:,} bytes and have {sum(storages.values()):,} in the file. Ask its "
            "author for a file in which they do not share their numbers."
        )


def _tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor in dicts and lists; a container that is met again is not entered again."""
    left, met = [state], set()
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (Mapping, list, tuple, set)) and id(value) not in met:
            met.add(id(value))
            left.extend(value.values() if isinstance(value, Mapping) else value)


def is_own(state: Mapping[str, Any]) -> bool:
    """Whether a loaded dict is one of this project's checkpoints (and not, say, a released one)."""
    return state.get("format") == FORMAT


def check_own(state: Mapping[str, Any], source: str | Path) -> None:
    """Raise CheckpointError unless `state` is an own checkpoint of a version that this code reads."""
    if not is_own(state):
        raise CheckpointError(f"{source}: not a checkpoint of this project")
    if state["version"] > VERSION:
        raise CheckpointError(f"{source}: version {state['version']}, this code reads up to {VERSION}; update the code")


def model_content(model: Any, global_step: int, epoch: int) -> dict[str, Any]:
    """Content of a checkpoint of a model that has dataclasses `config` and `behaviour`."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "config": dataclasses.asdict(model.config),
        "behaviour": dataclasses.asdict(model.behaviour),
        "model": dict(model.state_dict()),
        "global_step": global_step,
        "epoch": epoch,
    }


def load_parameters(model: nn.Module, parameters: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy a whole state dict into `model`.

    Raises:
        CheckpointError: sizes differ (every key is named with both shapes), or keys are missing or unknown.
    """
    own = model.state_dict()
    problems = [
        f"{key}: {list(parameters[key].shape)} in the file, {list(own[key].shape)} in the model"
        for key in own
        if key in parameters and parameters[key].shape != own[key].shape
    ]
    problems += [f"{key}: missing in the file" for key in own if key not in parameters]
    problems += [f"{key}: unknown to the model" for key in parameters if key not in own]
    if problems:
        raise CheckpointError(
            f"{source} does not fit this model:\n  "
            + "\n  ".join(problems)
            + "\nUse the size flags that the file was written with (its `config`), or another --output_dir."
        )
    model.load_state_dict(dict(parameters))


class CheckpointFolder:
    """`ckpt/pytorch_model.bin.{step}` and `restore.bin` in an output folder; one process writes.

    Args:
        output_dir: folder of the run.
        keep: newest model checkpoints to keep; None keeps all.
    """

    def __init__(self, output_dir: str | Path, keep: int | None = None) -> None:
        self.folder = Path(output_dir)
        self.keep = keep
        self.restore_path = self.folder / "restore.bin"

    def model_path(self, step: int) -> Path:
        """File of the model checkpoint of a step."""
        return self.folder / "ckpt" / f"pytorch_model.bin.{step}"

    def saved_steps(self) -> list[int]:
        """Steps of the model checkpoints present, ascending."""
        names = (re.fullmatch(r"pytorch_model\.bin\.(\d+)", p.name) for p in (self.folder / "ckpt").glob("*"))
        return sorted(int(match[1]) for match in names if match)

    def save(self, content: Mapping[str, Any], restore: Mapping[str, Any]) -> Path:
        """Write the model checkpoint, then `restore.bin` (both contents together), then delete what is not kept.

        Raises:
            CheckpointError: as `save_atomically`; nothing has been deleted then.
        """
        step = content["global_step"]
        path = self.model_path(step)
        save_atomically(content, path)
        save_atomically({**content, **restore}, self.restore_path)
        if self.keep is not None:
            older = [s for s in self.saved_steps() if s < step]
            for s in older[: max(0, len(older) - self.keep + 1)]:
                self.model_path(s).unlink()
        return path
