"""CLIP weights: finding the file that a user means, and reading it as a state dict."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from utils.models.torchscript_archive import read_torchscript
from utils.runtime.checkpoint import CheckpointError, is_torchscript, load
from utils.runtime.stated_sizes import MAX_DESCRIPTION

CLIP_FILE = "ViT-B-16.pt"
CLIP_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt"
)
# sha256 of OpenAI's files, as in their addresses (open_clip.pretrained lists these too)
OPENAI_FILES = {
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B-32.pt",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": CLIP_FILE,
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L-14.pt",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L-14-336px.pt",
}
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

    Nothing in the file is run, whoever made it.

    Raises:
        CheckpointError: the file is none of these.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            _check_header(path)
            state: dict[str, Any] = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: no readable safetensors file ({error})") from error
    elif is_torchscript(path):
        state = read_torchscript(path)
    else:
        state = load(path)
        for wrapper in ("state_dict", "model_state_dict", "model"):
            state = state[wrapper] if isinstance(state.get(wrapper), dict) else state
    state = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    return {key: value for key, value in state.items() if key not in NOT_WEIGHTS}


def _check_header(path: Path) -> None:
    """Raise SafetensorError for a file whose table of contents is larger than that of any model."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_DESCRIPTION:
        raise SafetensorError(f"a header of {length:,} bytes, more than {MAX_DESCRIPTION:,}")


def origin(path: str | Path) -> str:
    """Whose a CLIP file is, for the log: one of OpenAI's by its sha256, or not known."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    name = OPENAI_FILES.get(digest.hexdigest())
    return f"OpenAI's {name} by its sha256" if name else "none of OpenAI's own files"
