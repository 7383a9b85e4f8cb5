"""From a command line, and the config.json of an earlier run, to checked settings."""

from __future__ import annotations

import argparse
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from modules.foreign_text import read_json
from utils.settings.arguments import Arguments
from utils.settings.fields import Flag, add_flags, flags_of, from_flat
from utils.settings.groups import HUB_PREFIX, UNSUPPORTED, WITHOUT_EFFECT

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
        defaults: the task's own defaults, by flag.
        description: first line of --help.
        without_effect: more released flags that do nothing, `{name: whether a value follows}`.
    """
    flags = {flag.name: flag for flag in flags_of(kind)}
    unknown_defaults = sorted(set(defaults or {}) - set(flags))
    if unknown_defaults:
        raise ValueError(f"defaults for unknown flags: {', '.join(unknown_defaults)}")
    silent = {**WITHOUT_EFFECT, **(without_effect or {})}
    parser = argparse.ArgumentParser(
        description=description, allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--config", help="config.json of a run, whose settings are taken again; flags on the command line win"
    )
    add_flags(parser, kind)
    _add_silent_flags(parser, {**silent, **UNSUPPORTED})
    parser.set_defaults(**(defaults or {}))
    config, repeated = parser.parse_known_args(argv)[0].config, {}
    if config is not None:
        try:
            repeated = read_config(config, flags)
        except (OSError, ValueError) as error:
            parser.error(f"--config: {error}")
        parser.set_defaults(**{name: _checked(value) for name, value in repeated.items()})
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_unknown_message(unknown, ["--config", *(f"--{name}" for name in (*flags, *silent))]))
    values = vars(namespace)
    for name, value in values.items():
        if isinstance(value, _Unwritten):
            parser.error(
                f"--config {config}: its {name} is {value.text!r}, and from the Hugging Face hub nothing is "
                f"fetched that only a file names; write --{name} on the command line"
            )
    for name in UNSUPPORTED:
        if values.get(name) not in (None, False, "None"):
            parser.error(f"--{name} is not supported: no released script uses it; leave it out")
    try:
        args = from_flat(kind, {name: values[name] for name in flags})
    except ValueError as error:
        parser.error(str(error))
    if config is not None:
        args.notes.append(f"--config {config}: {len(repeated)} settings are taken from it")
        args.notes += [f"--config {config} names --{name} {values[name]}" for name in _paths(flags, repeated, values)]
    args.notes += [f"--{name} has no effect (it had none in the released code)" for name in silent if name in values]
    return args


@dataclass(frozen=True)
class _Unwritten:
    """A value of a config.json that counts only where the user writes it."""

    text: str


def _checked(value: Any) -> Any:
    return _Unwritten(value) if isinstance(value, str) and value.startswith(HUB_PREFIX) else value


def read_config(path: str | Path, flags: Mapping[str, Flag]) -> dict[str, Any]:
    """The settings of an earlier run, by flag.

    Args:
        path: config.json in the run's folder.
        flags: the settings that there are; the launcher's own is left out.

    Raises:
        OSError: no such file.
        ValueError: not such a file, a setting that this task does not have, or a value of another type.
    """
    try:
        saved = {**read_json(path)["arguments"]}
        names = sorted(set(saved) - set(flags))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the config.json of a run ({type(error).__name__}: {error})") from error
    if names:
        raise ValueError(f"{path} is of another task: there is no setting {', '.join(names)} here")
    saved.pop("local_rank", None)
    for name, value in saved.items():
        if not _has_type(value, flags[name].hint):
            raise ValueError(f"{path}: {name} is {value!r}, not {_type_name(flags[name].hint)}")
    return saved


def _paths(flags: Mapping[str, Flag], repeated: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Settings of a config.json that are files and folders and in effect: all text that is no choice."""
    texts = [name for name in repeated if flags[name].hint in (str, str | None) and name != "datatype"]
    return [
        name
        for name in texts
        if not flags[name].field.metadata["choices"] and values[name] and values[name] == repeated[name]
    ]


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a JSON value may stand for a setting of this type; whole numbers are fractions too."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(_has_type(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is dict:
        return isinstance(value, dict) and all(_has_type(weight, float) for weight in value.values())
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _add_silent_flags(parser: argparse.ArgumentParser, flags: Mapping[str, bool]) -> None:
    for name, takes_value in flags.items():
        if takes_value:
            parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        else:
            parser.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _unknown_message(unknown: Sequence[str], known: Sequence[str]) -> str:
    flags = [text.split("=")[0] for text in unknown if text.startswith("-")]
    if not flags:
        return f"unexpected argument {unknown[0]!r}"
    lines = []
    for name in flags:
        close = difflib.get_close_matches(name.replace("-", "_").replace("__", "--", 1), known, n=1)
        lines.append(f"unknown flag {name}" + (f"; did you mean {close[0]}?" if close else ""))
    return "; ".join(lines)
