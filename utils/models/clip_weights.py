"""CLIP weights: finding the file that a user means, and reading it as a state dict."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from utils.runtime.checkpoint import CheckpointError, load

CLIP_FILE = "ViT-B-16.pt"
CLIP_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt"
)
CLIP_FOLDERS = ("modules/clip", "modules", "data/models/clip", "data/models")
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # integers that OpenAI's archives carry
REPOSITORY = Path(__file__).resolve().parents[2]


def find_clip_archive(path: str | Path) -> Path:
    """The CLIP weights that `--clip_archive` means: itself, or the one in its folder, or one in the usual places.

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
        f"no CLIP weights at --clip_archive {path}.{found} Looked in:\n  {places}\n"
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
    elif is_torchscript(path):
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


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI's are."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
