"""All settings of a task, composed of groups and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from modules.config import setting
from utils.settings.fields import flat_values
from utils.settings.groups import DataSettings, RunSettings, TrainSettings, UseSettings


@dataclass
class Arguments(UseSettings, DataSettings, TrainSettings, RunSettings):
    """All settings of a task. A task with flags of its own extends this class with more `setting` fields.

    Raises:
        ValueError: a value out of range, or values that contradict each other; the message names the flags.
    """

    notes: list[str] = field(default_factory=list)  # one line for each flag that had no effect, for the log

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.output_dir:
            raise ValueError("--output_dir is required")
        if not self.do_train and not self.do_eval:
            raise ValueError("nothing to do: give --do_train, --do_eval or both")
        if self.batch_size < self.gradient_accumulation_steps:
            raise ValueError(
                f"--batch_size {self.batch_size} cannot be computed in --gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps} parts"
            )
        if self.batch_size % self.gradient_accumulation_steps:
            used = self.micro_batch_size * self.gradient_accumulation_steps
            self.notes.append(
                f"--batch_size {self.batch_size} is no multiple of the accumulation steps: {used} are used"
            )
        if self.model.sim_header == "tightTransf" and self.loose_type:
            self.loose_type = False
            self.notes.append("--sim_header tightTransf: --loose_type is switched off")

    def resolved(self) -> dict[str, Any]:
        """Every setting as a plain value by its flag, for config.json and checkpoints."""
        return {name: value for name, value in flat_values(self).items() if name != "local_rank"}


@dataclass
class TaskArguments(Arguments):
    """Settings of a downstream task, which knows the data sets of `DATA_TYPES`."""

    DATA_TYPES: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.datatype not in self.DATA_TYPES:
            raise ValueError(f"--datatype {self.datatype}: choose one of {', '.join(self.DATA_TYPES)}")

    @property
    def data_set(self) -> str:
        """The first part of the data type: msrvtt, msvd, ..."""
        return self.datatype.split("_")[0]


@dataclass
class ListArguments(TaskArguments):
    """Settings of a task whose MSR-VTT videos are listed in files."""

    test_csv: str | None = setting(
        None, "MSR-VTT: test list; --val_csv is then the validation list. Without it --val_csv is the test list"
    )
