"""What a source of CLIP weights is: sizes, a file or folder as its library's users have it, and what has to happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from tests.clip_sources.comparison import Features, Inputs, draw_inputs

LOADS, REFUSED, EITHER = "loads", "is refused", "loads right or is refused"
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Shape:
    """Sizes of a CLIP with a vision transformer."""

    resolution: int = 224
    patch: int = 16
    vision_width: int = 768
    vision_layers: int = 12
    vision_head: int = 64
    embed: int = 512
    text_width: int = 512
    text_layers: int = 12
    text_head: int = 64
    vocab: int = 49408
    context: int = 77

    def inputs(self) -> Inputs:
        """Frames and texts of its sizes."""
        return draw_inputs(self.resolution, self.vocab, self.context)


SHAPES = {
    "ViT-B/16": Shape(),
    "ViT-B/32": Shape(patch=32),
    "ViT-L/14": Shape(224, 14, 1024, 24, 64, 768, 768, 12),
    "ViT-H/14, two layers": Shape(224, 14, 1280, 2, 80, 1024, 1024, 2),
    "tiny": Shape(32, 8, 64, 3, 64, 64, 64, 2, 64, 600, 20),
    "tiny, vision heads of 12, text heads of 8": Shape(32, 8, 48, 2, 12, 40, 32, 3, 8, 600, 20),
    "tiny, vision heads of 24, text heads of 32": Shape(30, 5, 72, 2, 24, 64, 64, 2, 32, 1000, 32),
    "tiny, patches of 7, heads of 16": Shape(35, 7, 80, 4, 16, 64, 48, 2, 16, 700, 77),
}


class Written(NamedTuple):
    """Files of a source, the flags that its user gives, and what its library makes of the inputs.

    reference is None where the model has to be refused, so that nothing is compared; note says what is not as in life.
    """

    archive: Path
    inputs: Inputs
    reference: Features | None = None
    flags: Mapping[str, Any] = {}
    note: str = ""


@dataclass(frozen=True)
class Source:
    """A row of the table.

    Attributes:
        make: writes it into an empty folder.
        outcome: LOADS, REFUSED or EITHER.
        message: pattern that the message of a refusal has to hold.
    """

    name: str
    library: str
    form: str
    activation: str
    make: Callable[[Path], Written] = field(repr=False)
    outcome: str = LOADS
    message: str = ""

    @property
    def title(self) -> str:
        """All that tells it from other rows."""
        return f"{self.name}, {self.library}, {self.form}, {self.activation}"


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's entries as files want them: in order, and none a part of another."""
    state: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        state[name] = value.clone() if value.data_ptr() in seen else value.contiguous()
        seen.add(state[name].data_ptr())
    return state
