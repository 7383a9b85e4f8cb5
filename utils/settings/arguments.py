"""From a command line to typed, checked settings."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, overload

from utils.settings.groups import (
    UNSUPPORTED,
    WITHOUT_EFFECT,
    DataSettings,
    ModelSettings,
    ObjectSettings,
    RunSettings,
    TrainSettings,
)


@dataclass
class Arguments(DataSettings, ModelSettings, ObjectSettings, TrainSettings, RunSettings):
    """All settings of a task. A task with flags of its own extends this class with more `flag` fields.

    Raises:
        ValueError: a value out of range, or values that contradict each other; the message names the flags.
    """

    notes: list[str] = field(default_factory=list)  # one line for each flag that had no effect, for the log

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            if item.metadata:
                _check_value(item, getattr(self, item.name))
        if not self.output_dir:
            raise ValueError("--output_dir is required")
        if not self.do_train and not self.do_eval:
            raise ValueError("nothing to do: give --do_train, --do_eval or both")
        if self.feature_framerate <= 0:
            raise ValueError(f"--feature_framerate {self.feature_framerate}: must be above 0")
        if self.end_seconds is not None and self.end_seconds <= 0:
            raise ValueError(f"--end_seconds {self.end_seconds}: must be above 0")
        for name in ("use_action", "action_only"):
            if getattr(self, name) and not self.need_object:
                raise ValueError(f"--{name} needs --need_object: actions are pooled from patches and objects")
        if self.need_object and self.object_fuse == "fusion" and self.object_layer == 0:
            raise ValueError("--object_layer 0 with --object_fuse fusion leaves no object tokens: choose a block")
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
        if self.sim_header == "tightTransf" and self.loose_type:
            self.loose_type = False
            self.notes.append("--sim_header tightTransf: --loose_type is switched off")

    def resolved(self) -> dict[str, Any]:
        """Every setting as a plain value, for config.json and checkpoints."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in ("notes", "local_rank")}


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


A = TypeVar("A", bound=Arguments)


@overload
def parse_arguments(
    argv: Sequence[str] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    description: str | None = None,
    without_effect: Mapping[str, bool] | None = None,
) -> Arguments: ...


@overload
def parse_arguments(
    argv: Sequence[str] | None,
    kind: type[A],
    defaults: Mapping[str, Any] | None = None,
    description: str | None = None,
    without_effect: Mapping[str, bool] | None = None,
) -> A: ...


def parse_arguments(
    argv: Sequence[str] | None = None,
    kind: type[Arguments] = Arguments,
    defaults: Mapping[str, Any] | None = None,
    description: str | None = None,
    without_effect: Mapping[str, bool] | None = None,
) -> Arguments:
    """Parse a command line; exits with status 2 and a message on any mistake, like argparse.

    Args:
        argv: arguments without the program's name; None takes the process's own.
        kind: `Arguments`, or a task's extension of it.
        defaults: the task's own defaults, by field name.
        description: first line of --help.
        without_effect: more released flags that do nothing, `{name: whether a value follows}`.
    """
    fields = {item.name: item for item in dataclasses.fields(kind) if item.metadata}
    unknown_defaults = sorted(set(defaults or {}) - set(fields))
    if unknown_defaults:
        raise ValueError(f"defaults for unknown flags: {', '.join(unknown_defaults)}")
    silent = {**WITHOUT_EFFECT, **(without_effect or {})}
    parser = argparse.ArgumentParser(
        description=description, allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    _add_flags(parser, kind, fields)
    _add_silent_flags(parser, {**silent, **UNSUPPORTED})
    parser.set_defaults(**(defaults or {}))
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_unknown_message(unknown, [f"--{name}" for name in (*fields, *silent)]))
    values = vars(namespace)
    for name in UNSUPPORTED:
        if values.get(name) not in (None, False, "None"):
            parser.error(f"--{name} is not supported: no released script uses it; leave it out")
    try:
        args = kind(**{name: values[name] for name in fields})
    except ValueError as error:
        parser.error(str(error))
    args.notes += [f"--{name} has no effect (it had none in the released code)" for name in silent if name in values]
    return args


def _add_flags(parser: argparse.ArgumentParser, kind: type, fields: Mapping[str, dataclasses.Field]) -> None:
    hints = typing.get_type_hints(kind)
    added: set[str] = set()
    for group_class in reversed(kind.__mro__):
        own = [name for name in vars(group_class).get("__annotations__", {}) if name in fields and name not in added]
        added.update(own)
        if not own:
            continue
        group = parser.add_argument_group((group_class.__doc__ or group_class.__name__).split("\n")[0].rstrip("."))
        for name in own:
            item = fields[name]
            names = [f"--{name}", "--local-rank"] if name == "local_rank" else [f"--{name}"]
            default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
            help_text = item.metadata["help"].replace("%", "%%")
            if hints[name] is bool:
                group.add_argument(*names, action="store_true", default=default, help=help_text)
            else:
                group.add_argument(
                    *names,
                    type=_converter(hints[name]),
                    default=default,
                    choices=item.metadata["choices"],
                    metavar=item.metadata["metavar"],
                    help=help_text,
                )


def _add_silent_flags(parser: argparse.ArgumentParser, flags: Mapping[str, bool]) -> None:
    for name, takes_value in flags.items():
        if takes_value:
            parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        else:
            parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _converter(hint: Any) -> Callable[[str], Any]:
    """The function that reads a flag's text; for `T | None` an empty text and `None` mean None."""
    if typing.get_origin(hint) is dict:
        return parse_weights
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = _converter(next(part for part in typing.get_args(hint) if part is not type(None)))

        def optional(text: str) -> Any:
            return None if text in ("", "None") else inner(text)

        optional.__name__ = getattr(inner, "__name__", "value")  # argparse names it in its message
        return optional
    return hint


def parse_weights(text: str) -> dict[str, float]:
    """`vtm=1,mlm=0.5` as a dict.

    Raises:
        argparse.ArgumentTypeError: not of that form, a negative weight, or a name twice.
    """
    weights: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not name or not 0 <= weight < float("inf") or name in weights:
            raise argparse.ArgumentTypeError(f"{part!r} in {text!r}: write NAME=WEIGHT,... with weights from 0")
        weights[name] = weight
    return weights


def _check_value(item: dataclasses.Field, value: Any) -> None:
    rules = item.metadata
    if value is None:
        return
    if rules["choices"] and value not in rules["choices"]:
        raise ValueError(f"--{item.name} {value}: choose one of {', '.join(map(str, rules['choices']))}")
    if rules["minimum"] is not None and not value >= rules["minimum"]:
        raise ValueError(f"--{item.name} {value}: must be at least {rules['minimum']}")
    if rules["maximum"] is not None and not value <= rules["maximum"]:
        raise ValueError(f"--{item.name} {value}: must be at most {rules['maximum']}")


def _unknown_message(unknown: Sequence[str], known: Sequence[str]) -> str:
    flags = [text.split("=")[0] for text in unknown if text.startswith("-")]
    if not flags:
        return f"unexpected argument {unknown[0]!r}"
    lines = []
    for name in flags:
        close = difflib.get_close_matches(name.replace("-", "_").replace("__", "--", 1), known, n=1)
        lines.append(f"unknown flag {name}" + (f"; did you mean {close[0]}?" if close else ""))
    return "; ".join(lines)


def contrastive_schedule(args: RunSettings, behaviour: str) -> Callable[[int], float]:
    """Weight of the contrastive loss by epoch (from 0), where 0 means that it is not computed.

    Intended: `contrastive_weight` in the first `contrastive_epochs` epochs (None: all). Released: the same only with
    `--use_sim_loss`, and in epoch 0 alone unless `contrastive_epochs` says otherwise.
    """
    epochs = args.contrastive_epochs
    if behaviour == "released":
        epochs = (1 if epochs is None else epochs) if args.use_sim_loss else 0

    def weight(epoch: int) -> float:
        return args.contrastive_weight if epochs is None or epoch < epochs else 0.0

    return weight
