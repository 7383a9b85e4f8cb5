"""Files of tensors in the form of safetensors, read with bounds."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modules.foreign_text import why_no_file
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.stated_sizes import MAX_DESCRIPTION

LENGTH = 8  # bytes in front of the table of contents, which say how long it is
METADATA = "__metadata__"


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a file by name, on the CPU; a file of this form has nothing that could be run.

    Raises:
        CheckpointError: no such file, another kind of file, a damaged one, or one whose table of contents is larger
            than that of any model.
    """
    path = Path(path)
    _check_length(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: no readable safetensors file ({error}); fetch it again") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """What a file says of itself beside its tensors; empty where it says nothing or cannot be read."""
    try:
        length = _check_length(Path(path))
        with Path(path).open("rb") as file:
            header = json.loads(file.read(LENGTH + length)[LENGTH:])
    except (CheckpointError, OSError, ValueError, RecursionError):
        return {}
    said = header.get(METADATA) if isinstance(header, dict) else None
    return {key: text for key, text in said.items() if isinstance(text, str)} if isinstance(said, dict) else {}


def _check_length(path: Path) -> int:
    """Bytes of the table of contents; CheckpointError for no file, or a table larger than that of any model."""
    if reason := why_no_file(path):
        raise CheckpointError(f"{path}: no safetensors file: {reason}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH), "little")
    if length > MAX_DESCRIPTION:
        raise CheckpointError(
            f"{path}: no readable safetensors file (a header of {length:,} bytes, more than {MAX_DESCRIPTION:,}); "
            "fetch it again"
        )
    return length
