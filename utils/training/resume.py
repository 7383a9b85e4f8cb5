"""Parts of exact resume: the check that it is the same run, optimizer moments, random states."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.config import UNSTATED
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.distributed import Runtime
from utils.training.optimizer import BertAdam

SAME = ("steps_per_epoch", "gradient_accumulation_steps", "global_batch_size")


def follow_choices(behaviour: Any, saved: Mapping[str, Any]) -> list[str]:
    """Set the choices that a file may lack to those that the saved run was trained with; says which ones change.

    Args:
        behaviour: the model's Behaviour dataclass.
        saved: the file's, by name.
    """
    changed = []
    for name in sorted(set(UNSTATED) & set(vars(behaviour))):
        then, now = saved.get(name, UNSTATED[name]), getattr(behaviour, name)
        if then != now and type(then) is type(now):
            setattr(behaviour, name, then)
            changed.append(f"{name} {then}")
    return changed


def check_same_run(state: Mapping[str, Any], position: Mapping[str, int], behaviour: Any, source: str | Path) -> None:
    """Make sure that a step of the saved run is one of this run: equal data, batch sizes and behaviour.

    Args:
        state: content of restore.bin.
        position: this run's values of `SAME`.
        behaviour: the model's Behaviour dataclass.
        source: the file, for the message.

    Raises:
        CheckpointError: not a training state, other batch sizes or data, or another behaviour.
    """
    if "position" not in state:
        raise CheckpointError(f"{source}: a model without training state; give it to --init_model instead")
    saved = state["position"]
    differing = [f"{n} {saved[n]} then, {position[n]} now" for n in SAME if saved[n] != position[n]]
    then, now = state["behaviour"], dataclasses.asdict(behaviour)
    # Choices that a file of an earlier version lacks did not exist for its run, so they are not compared.
    differing += [
        f"behaviour {name} {then[name]} then, {now.get(name)} now" for name in then if then[name] != now.get(name)
    ]
    if differing:
        raise CheckpointError(
            f"{source} belongs to another run: {'; '.join(differing)}. Start again with the old settings and number of "
            "processes, or with another --output_dir and this file's model as --init_model."
        )


def restore_optimizer(optimizer: BertAdam, saved: Mapping[str, Any], source: str | Path) -> None:
    """Take moments and step from the file; rates and schedule stay those of this run's settings.

    Raises:
        CheckpointError: the file's groups hold other parameters.
    """
    own = optimizer.state_dict()
    if [group["names"] for group in saved["param_groups"]] != [group["names"] for group in own["param_groups"]]:
        raise CheckpointError(f"{source}: its optimizer state is for other parameters; use another --output_dir")
    pairs = zip(own["param_groups"], saved["param_groups"], strict=True)
    groups = [{**group, "step": old["step"]} for group, old in pairs]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})


def gather_random_states(runtime: Runtime) -> dict[str, list[Tensor]]:
    """torch's generator states of every rank, by device; all ranks call it together."""
    return {name: runtime.gather_tensors(state) for name, state in _random_state(runtime.device).items()}


def restore_random_states(saved: Mapping[str, list[Tensor]], runtime: Runtime) -> bool:
    """Set this rank's generators; False, and nothing done, if the states are of other processes or devices."""
    own = _random_state(runtime.device)
    if not set(own) <= set(saved) or len(saved["cpu"]) != runtime.world_size:
        return False
    _set_random_state({name: saved[name][runtime.rank] for name in own}, runtime.device)
    return True


@contextlib.contextmanager
def untouched_random_state(device: torch.device) -> Iterator[None]:
    """Restore torch's generators after the block, whatever is drawn from them within."""
    state = _random_state(device)
    try:
        yield
    finally:
        _set_random_state(state, device)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
