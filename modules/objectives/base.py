"""What every objective has: names of its losses, the parts that they train, the heads that they read."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import ClassVar, TypeVar, cast

from torch import Tensor, nn

from modules.config import Behaviour, ModelConfig
from modules.encoded import Encoded

Head = TypeVar("Head", bound=nn.Module)


class Heads:
    """The heads of a model by name; objectives that name the same one share it."""

    def __init__(self) -> None:
        self.by_name: dict[str, nn.Module] = {}

    def get(self, name: str, build: Callable[[], Head]) -> Head:
        """The head called `name`, built by whoever asks first."""
        if name not in self.by_name:
            self.by_name[name] = build()
        return cast(Head, self.by_name[name])


class Objective:
    """A loss, or several that share a divisor.

    Attributes:
        NAMES: its losses, by which --loss_weights and logs know them.
        NEEDS_FUSION: whether it reads the fusion encoder.
        NEEDS_PAIRS: whether it compares clips with texts of other clips, so that a batch of one teaches nothing.
        TURN: objectives are computed in rising turn, and within a turn in the order of the task's list. A backward pass
            goes the other way and sums gradients on its way, so that the order decides their last digits.
    """

    NAMES: ClassVar[tuple[str, ...]]
    NEEDS_FUSION: ClassVar[bool] = True
    NEEDS_PAIRS: ClassVar[bool] = False
    TURN: ClassVar[int] = 2

    def __init__(self, config: ModelConfig, behaviour: Behaviour, heads: Heads) -> None:
        self.config, self.behaviour = config, behaviour

    @property
    def available(self) -> tuple[str, ...]:
        """Those of `NAMES` that this configuration has."""
        return self.NAMES

    def trains(self, active: Set[str]) -> set[str]:
        """Parts (modules/parts.py) that those of its losses that are active send gradient into.

        "frames" and "text" are the towers: a loss that detaches what they give does not name them. What a part reads
        is found by following `reads`, and need not be named.
        """
        raise NotImplementedError

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        """Its active losses by name, scalars, and detached scalars `*_accuracy`."""
        raise NotImplementedError
