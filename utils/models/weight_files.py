"""Entries of weight files of every format, read as data: torch.save, TorchScript, safetensors, an index of parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from modules.foreign_text import read_json, why_no_file
from utils.models.random_clip import is_random_archive
from utils.models.torchscript_archive import read_torchscript, root_class
from utils.runtime.checkpoint import CheckpointError, is_own, is_torchscript, load
from utils.runtime.safetensors_files import read_safetensors

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
INDEX = ".index.json"
MAX_CONFIGURATION = 1 << 24  # bytes of a configuration or an index; those of the largest models have a tenth of it
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")  # which DistributedDataParallel and torch.compile put before every name


class WeightFile(NamedTuple):
    """Entries by name. is_random: of an archive that utils/make_random_clip.py wrote."""

    entries: dict[str, Tensor]
    is_random: bool = False


def read_weight_file(path: Path) -> WeightFile:
    """The entries of a weight file, without what a wrapper or a launcher has put around them. Nothing in it is run.

    Args:
        path: a file, or the index of several (`*.index.json`), whose parts lie beside it.

    Raises:
        CheckpointError: it is none, it is damaged, or it is a checkpoint of this project.
    """
    if path.name.endswith(INDEX):
        return WeightFile(_unwrapped(_read_parts(path), path))
    if path.suffix == ".safetensors":
        return WeightFile(_unwrapped(read_safetensors(path), path))
    if is_torchscript(path):
        entries = read_torchscript(path)
        return WeightFile(entries, is_random_archive(root_class(path), entries))
    return WeightFile(_unwrapped(load(path), path))


def read_configuration(path: Path) -> dict[str, Any]:
    """A JSON file beside weights; CheckpointError for one that cannot be read, or is no object."""
    try:
        if (size := path.stat().st_size) > MAX_CONFIGURATION:
            raise ValueError(f"{path}: {size:,} bytes, more than the {MAX_CONFIGURATION:,} of any configuration")
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a {type(content).__name__} and no object with settings; fetch it again")
    return content


def _read_parts(path: Path) -> dict[str, Tensor]:
    """Tensors of all parts that an index names; each has to be where the index says."""
    places = read_configuration(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{path}: no index of weights: it has no table weight_map of file names; fetch it again")
    entries: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or Path(name).suffix not in SUFFIXES:
            raise CheckpointError(f"{path}: names the part {name!r}, which is no weight file beside it")
        part = path.parent / name
        if reason := why_no_file(part):
            raise CheckpointError(f"{path}: its part {name[:200]} is not beside it ({reason}); fetch all parts")
        tensors = read_safetensors(part) if part.suffix == ".safetensors" else load(part)
        wanted = {key for key, place in places.items() if place == name}
        if set(tensors) != wanted:
            some = ", ".join(sorted(map(str, set(tensors) ^ wanted))[:3])
            raise CheckpointError(f"{part}: does not hold what {path.name} says ({some}); fetch both again")
        entries |= tensors
    return entries


def _unwrapped(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    if is_own(state):
        raise CheckpointError(f"{path}: a checkpoint of this project and no CLIP weights; give it to --init_model")
    for wrapper in WRAPPERS:
        state = state[wrapper] if isinstance(state.get(wrapper), dict) else state
    while state and (prefix := next((p for p in PREFIXES if all(str(key).startswith(p) for key in state)), "")):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if others := [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]:
        raise CheckpointError(f"{path}: holds what is no tensor beside its weights: {', '.join(others[:5])}")
    return dict(state)
