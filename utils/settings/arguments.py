"""All settings of a task, composed of groups and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from dataloaders.datasets.csv_files import SPLITS, Kind, Table, has_rows
from modules.config import setting
from utils.settings.fields import flat_values
from utils.settings.groups import DataSettings, RunSettings, TrainSettings, UseSettings

OWN = "csv"  # data type of tables of one's own


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

    test_csv: str | None = setting(
        None,
        "test list of MSR-VTT, beside which --val_csv is the validation list (without it, the test list); or test "
        "table of --datatype csv",
    )
    data_csv: str | None = setting(
        None, "--datatype csv: table (.csv, .tsv, .jsonl) of all splits, with a column split of train, val and test"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.datatype not in self.DATA_TYPES:
            raise ValueError(f"--datatype {self.datatype}: choose one of {', '.join(self.DATA_TYPES)}")
        given = [f"--{name}_csv" for name in SPLITS if self.is_list_given(name)]
        if self.data_csv and not self.is_own:
            raise ValueError(f"--data_csv is of --datatype {OWN}, not of {self.datatype}")
        if self.data_csv and given:
            raise ValueError(f"--data_csv has all splits: leave {' and '.join(given)} out, or --data_csv")

    @property
    def data_set(self) -> str:
        """The first part of the data type: msrvtt, msvd, ..."""
        return self.datatype.split("_")[0]

    @property
    def is_own(self) -> bool:
        """Whether the data set is tables of one's own."""
        return self.datatype == OWN

    def is_list_given(self, split: str) -> bool:
        """Whether --{split}_csv is on the command line."""
        name = f"{split}_csv"
        return getattr(self, name) != getattr(DataSettings, name, None)

    def table(self, split: str) -> Table:
        """The table of one's own that has a split; ValueError if none is given."""
        if self.data_csv:
            return Table(Path(self.data_csv), split, True, "--data_csv")
        if not self.is_list_given(split):
            raise ValueError(f"--{split}_csv is required, or --data_csv with a column split")
        return Table(Path(getattr(self, f"{split}_csv")), split, False, f"--{split}_csv")

    def has_own_validation(self, kind: Kind) -> bool:
        """Whether tables of one's own have validation rows of a kind; errors as `csv_files.read_captions`."""
        return has_rows(self.table("val"), kind) if self.data_csv else self.is_list_given("val")


@dataclass
class PairArguments(TaskArguments):
    """Settings of a downstream task that trains on pairs of clip and caption."""

    similar_batches: int = setting(
        0,
        "put each batch together of samples with similar captions, out of so many; 0: batches are drawn",
        minimum=0,
    )
    similar_group: int = setting(
        0,
        "with --similar_batches, samples with similar captions that a batch has in one group, best a divisor of the "
        "global batch; 0: all of it",
        minimum=0,
    )
    similar_after: int = setting(0, "with --similar_batches, epochs of drawn batches that come before", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("similar_group", "similar_after"):
            if getattr(self, name) and not self.similar_batches:
                raise ValueError(f"--{name} is of --similar_batches: name both, or neither")
        if self.similar_after and self.similar_after >= self.epochs:
            raise ValueError(f"--similar_after {self.similar_after} leaves no epoch of --epochs {self.epochs}")
