"""Base of every task's model: a backbone, and the objectives that train it."""

from __future__ import annotations

from collections.abc import Set
from typing import ClassVar, TypeVar

from torch import Tensor

from modules.backbone import Backbone
from modules.batch import Batch
from modules.config import Behaviour, ModelConfig
from modules.encoded import Encoded
from modules.objectives.base import Heads, Objective
from modules.parts import owners, reached

Kind = TypeVar("Kind", bound=Objective)


class TaskModel(Backbone):
    """A backbone with the heads of its objectives. A task of one's own is a subclass with another list.

    Attributes:
        OBJECTIVES: in the order in which losses are named, weighed and summed.
        active_losses: names of the losses that `forward` computes; all that the configuration has, to begin with.
        frame_dropout: share of training samples that show language losses and answers trajectories alone (set by
            whoever trains).
        new_names: parameters that neither a checkpoint nor CLIP gave a value (set by whoever loads weights).
        borrowed_names: parameters from another checkpoint than the rest (likewise).
    """

    OBJECTIVES: ClassVar[tuple[type[Objective], ...]] = ()

    @classmethod
    def objectives_of(cls, config: ModelConfig) -> tuple[type[Objective], ...]:
        """The objectives of a configuration."""
        return cls.OBJECTIVES

    @classmethod
    def needs_fusion(cls, config: ModelConfig) -> bool:
        """Whether an objective reads the fusion encoder."""
        return any(kind.NEEDS_FUSION for kind in cls.objectives_of(config))

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__(config, behaviour)
        heads = Heads()
        self.objectives = [kind(config, behaviour, heads) for kind in self.objectives_of(config)]
        for name, head in heads.by_name.items():
            self.add_module(name, head)
        self.active_losses: frozenset[str] = frozenset(self.available_losses)
        self.frame_dropout = 0.0
        self.new_names: frozenset[str] = frozenset()
        self.borrowed_names: frozenset[str] = frozenset()
        self._trainable: set[str] | None = None

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of all losses of the task."""
        return tuple(name for objective in self.objectives for name in objective.NAMES)

    @property
    def available_losses(self) -> tuple[str, ...]:
        """Names of the losses that this configuration has."""
        return tuple(name for objective in self.objectives for name in objective.available)

    @property
    def pair_losses(self) -> set[str]:
        """Names of the losses that a batch of one clip teaches nothing."""
        return {name for objective in self.objectives if objective.NEEDS_PAIRS for name in objective.available}

    def objective(self, kind: type[Kind]) -> Kind:
        """The task's objective of a kind; LookupError without one."""
        for objective in self.objectives:
            if isinstance(objective, kind):
                return objective
        raise LookupError(f"{type(self).__name__} has no objective {kind.__name__}")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Active losses of a finished batch by name, and detached scalars `*_accuracy`."""
        encoded = self.encoded(batch)
        found: dict[str, Tensor] = {}
        for objective in sorted(self._active_objectives(), key=lambda objective: objective.TURN):
            found |= objective.losses(encoded)
        return found

    def encoded(self, batch: Batch) -> Encoded:
        """A finished batch, for objectives and inference methods to read."""
        return Encoded(self, batch, self.active_losses, self._named_parts(), self.frame_dropout)

    def _active_objectives(self) -> list[Objective]:
        return [objective for objective in self.objectives if self.active_losses & set(objective.available)]

    def _named_parts(self) -> set[str]:
        """Parts that the active objectives name."""
        parts: set[str] = set()
        return parts.union(*(objective.trains(self.active_losses) for objective in self._active_objectives()))

    def remember_trainable(self) -> None:
        """Take the present `requires_grad` flags (after freezing layers) as what may train at all."""
        self._trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def set_active_losses(self, names: Set[str]) -> None:
        """Compute these losses, and freeze what they do not reach: every parameter that trains then has a gradient."""
        unknown = set(names) - set(self.losses)
        if unknown:
            raise ValueError(f"unknown losses {sorted(unknown)}: choose from {', '.join(self.losses)}")
        if self._trainable is None:
            self.remember_trainable()
        assert self._trainable is not None
        self.active_losses = frozenset(names)
        owner, parts = owners(self), reached(self, self._named_parts())
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self._trainable and owner[name].part in parts)

    def after_update(self) -> None:
        """Bring parameters back into their bounds after the optimizer's update."""
        self.clip.clamp_logit_scale()

    def is_trained(self, part: str) -> bool:
        """Whether the model has this part, all of it with values from a checkpoint."""
        names = self.part(part)
        return bool(names) and not self.new_names.intersection(names)
