"""Readers of weights and of what lies beside them: checkpoints, CLIP archives, config.json, run logs."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save_file

from modules.tasks.pretrain import PretrainModel
from tests.campaigns.fuzzing.archives import (
    State,
    bomb,
    members_changed,
    of_state,
    packed,
    state_mutators,
    tensors_of_safetensors,
)
from tests.campaigns.fuzzing.forms import JSON, JSON_LINES, NAN, drop, known, put, rearranged, replace
from tests.campaigns.fuzzing.mutators import KNOWN_TEXT, cut_short
from tests.campaigns.fuzzing.reader import Expected, Mutator, Reader, Taken
from tests.utils.checkpoints import released_state, save_tiny
from utils.inference.loading import load_for_inference, use_settings
from utils.models.random_clip import ClipSizes, random_state_dict, save_archive
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.run_log import read_metrics
from utils.settings.fields import flat_values
from utils.settings.parser import parse_arguments

ERRORS = (CheckpointError, ValueError, FileNotFoundError)
SMALL: dict[str, Any] = {"vision_layers": 2, "text_layers": 1, "fusion_layers": 1, "vocab_size": 100}
CLIP = ClipSizes(32, 8, 64, 2, 64, 64, 1, context_length=32, vocab_size=100)
CPU = torch.device("cpu")


def load_model(path: Path, **choices: Any) -> Taken:
    """The model that a file gives."""
    model = load_for_inference(PretrainModel, use_settings(path, choices), CPU, lambda line: None, ())
    count = sum(1 for _ in model.parameters())
    return Taken(count)


def _make_own(folder: Path) -> None:
    os.replace(save_tiny(folder, **SMALL), folder / "best.bin")
    arguments = {"feature_framerate": 2.0, "trajectory": "track", "box_coordinates": "crop", "slice_framepos": 2}
    (folder / "config.json").write_text(json.dumps({"arguments": {**arguments, "lr": 1.0}, "world_size": 1}))


def _config_value(state: State, draw: Random) -> None:
    sizes = (
        "vision_width",
        "vision_layers",
        "text_layers",
        "fusion_layers",
        "vocab_size",
        "max_frames",
        "embed_dim",
        "patch_size",
    )
    state["config"][draw.choice(sizes)] = draw.choice((10**7, 2**62, -1, 0, "x", None, NAN, 1.5, [1], {}))


def _top_value(state: State, draw: Random) -> None:
    name = draw.choice(("version", "config", "behaviour", "model"))
    state[name] = draw.choice((None, "x", [], 10**9, NAN, {"x": 1}))


OWN = (
    *state_mutators(lambda state: (state["model"], [name for name in state["model"] if name.startswith("clip.")])),
    of_state("a value out of range", Expected.REFUSED, _config_value),
    of_state("a value out of range", Expected.REFUSED, _top_value),
    cut_short(),
)


def _make_clip(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        state = random_state_dict(CLIP)
        if name.endswith("safetensors"):
            save_file(state, folder / name)
        elif name == "script.pt":
            save_archive(state, folder / name)
        else:
            torch.save(state, folder / name)

    return make


def _make_released(folder: Path) -> None:
    torch.save(released_state(), folder / "released.bin")


def _needed(prefix: str) -> Callable[[State], tuple[State, list[str]]]:
    return lambda state: (state, [name for name in state if name.startswith(prefix) and state[name].ndim > 0])


RELEASED_SIZES = {"need_object": True, "use_action": True, "fusion_layers": 3, "max_words": 12, "dropout": 0.0}


def _config(folder: Path) -> Taken:
    settings = flat_values(use_settings(folder / "best.bin"))
    return Taken(len(settings), 0, settings)


BAD_SETTINGS: dict[str, tuple[Any, ...]] = {
    "feature_framerate": (0, -1, "x", None, NAN, [1], 10**5000),
    "trajectory": ("x", 5, None, []),
    "slice_framepos": (7, -1, "x", None, 0.5, 2**70),
}


def _bad_setting(value: Any, draw: Random) -> None:
    name = draw.choice(sorted(BAD_SETTINGS))
    value["arguments"][name] = draw.choice(BAD_SETTINGS[name])


CONFIG: tuple[Mutator, ...] = (
    *KNOWN_TEXT,
    rearranged(JSON),
    cut_short(),
    known(JSON, "a value out of range", Expected.REFUSED, _bad_setting),
    known(JSON, "no settings", Expected.REFUSED, replace("arguments", (None, 5, [], "x", True))),
)


def _parsed(folder: Path) -> Taken:
    """The command line `--config FILE`; what the parser says is the error."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            args = parse_arguments(["--do_train", "--output_dir", "out", "--config", str(folder / "config.json")])
    except SystemExit as stop:
        raise ValueError(said.getvalue()) from stop
    return Taken(1, 0, flat_values(args))


def _make_metrics(folder: Path) -> None:
    rows = [{"kind": "train", "step": n, "loss": 1.0 / (n + 1), "lr": {"clip": 1e-6}} for n in range(8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _metrics(folder: Path) -> Taken:
    lines = read_metrics(folder / "metrics.jsonl")
    return Taken(len(lines), 0, lines)


METRICS = (
    *KNOWN_TEXT[2:],
    rearranged(JSON_LINES),
    known(JSON_LINES, "a row dropped", Expected.FEWER, drop()),
    known(JSON_LINES, "a value out of range", Expected.REFUSED, put("step", (None, "x", [], {}, True))),
)


def _weights(
    name: str, make: Callable[[Path], None], file: str, mutators: tuple[Mutator, ...], **choices: Any
) -> Reader:
    return Reader(
        name,
        make,
        {file: mutators},
        lambda folder: load_model(folder / file, **choices),
        ERRORS,
        inputs=1000,
        seconds=20,
        megabytes=600,
    )


FROM_CLIP = {"fusion_layers": 1, "max_words": 24}
READERS = (
    _weights("own-checkpoint", _make_own, "best.bin", OWN),
    _weights(
        "released-checkpoint",
        _make_released,
        "released.bin",
        state_mutators(_needed("clip.fusion_positional")),
        **RELEASED_SIZES,
    ),
    _weights(
        "clip-state-dict", _make_clip("clip.pt"), "clip.pt", state_mutators(_needed("visual.transformer")), **FROM_CLIP
    ),
    _weights(
        "clip-torchscript",
        _make_clip("script.pt"),
        "script.pt",
        (members_changed, packed(None), bomb, cut_short()),
        **FROM_CLIP,
    ),
    _weights(
        "clip-safetensors",
        _make_clip("clip.safetensors"),
        "clip.safetensors",
        (tensors_of_safetensors, cut_short()),
        **FROM_CLIP,
    ),
    Reader(
        "config-beside-checkpoint",
        _make_own,
        {"config.json": CONFIG},
        _config,
        ERRORS,
        names=("--",),
        inputs=1000,
        megabytes=600,
    ),
    Reader("config-flag", _make_own, {"config.json": CONFIG}, _parsed, (ValueError,), names=("--",), inputs=1000),
    Reader("run-log", _make_metrics, {"metrics.jsonl": METRICS}, _metrics, (ValueError,)),
)
