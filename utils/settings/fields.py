"""Groups of settings as flat names and values: what flags, config.json and checkpoints are made of.

A settings class has fields made by `modules.config.setting`, and fields made by `group`, whose own fields count as if
they stood there. A setting is called as its flag everywhere outside its dataclass.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

Settings = TypeVar("Settings")


class Flag(NamedTuple):
    """A setting: the flag's name, its field, the field's type, the attribute of its group ("" for none), its class."""

    name: str
    field: dataclasses.Field
    hint: Any
    group: str
    owner: type


def group(kind: type) -> Any:
    """A dataclass field that holds a group of settings, by default with the group's defaults."""
    return dataclasses.field(default_factory=kind, metadata={"group": kind})


def flags_of(kind: type) -> list[Flag]:
    """All settings of a class: those of its groups first, then its own, each where it is declared."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    nested = [flag for field in fields.values() if "group" in field.metadata for flag in _group_flags(field)]
    hints, owners = typing.get_type_hints(kind), _owners(kind)
    own = [
        Flag(field.metadata["flag"] or name, field, hints[name], "", owners[name])
        for name, field in fields.items()
        if "help" in field.metadata
    ]
    return nested + own


def _group_flags(field: dataclasses.Field) -> Iterator[Flag]:
    for flag in flags_of(field.metadata["group"]):
        yield flag._replace(group=field.name)


def _owners(kind: type) -> dict[str, type]:
    """The class that declares each field first."""
    owners: dict[str, type] = {}
    for base in reversed(kind.__mro__):
        for name in vars(base).get("__annotations__", {}):
            owners.setdefault(name, base)
    return owners


def flat_values(settings: Any) -> dict[str, Any]:
    """Every setting of an instance by its flag's name."""
    return {
        flag.name: getattr(getattr(settings, flag.group) if flag.group else settings, flag.field.name)
        for flag in flags_of(type(settings))
    }


def from_flat(kind: type[Settings], values: Mapping[str, Any], **more: Any) -> Settings:
    """An instance with these values; settings that are not among them have their defaults.

    Args:
        values: by flag.
        more: fields of the class that are no settings.

    Raises:
        ValueError: a name that no setting has, or a value out of range.
    """
    flags = {flag.name: flag for flag in flags_of(kind)}
    if unknown := sorted(set(values) - set(flags)):
        raise ValueError(f"unknown settings: {', '.join(unknown)}")
    nested: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        nested.setdefault(flags[name].group, {})[flags[name].field.name] = value
    own = nested.pop("", {})
    kinds: dict[str, Any] = {field.name: field.metadata.get("group") for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**own, **{name: kinds[name](**part) for name, part in nested.items()}, **more)


def add_flags(parser: argparse.ArgumentParser, kind: type, *, show_default: bool = False) -> None:
    """Give a parser the flags of a settings class, under a title for each class that declares some.

    Args:
        show_default: write the default behind the help (else the parser's formatter does, or nobody).
    """
    titles: dict[type, Any] = {}
    for flag in flags_of(kind):
        if flag.owner not in titles:
            title = (flag.owner.__doc__ or flag.owner.__name__).split("\n")[0].rstrip(".")
            titles[flag.owner] = parser.add_argument_group(title)
        _add_flag(titles[flag.owner], flag, show_default)


def _add_flag(parser: Any, flag: Flag, show_default: bool) -> None:
    field, rules = flag.field, flag.field.metadata
    names = [f"--{flag.name}", "--local-rank"] if flag.name == "local_rank" else [f"--{flag.name}"]
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    help_text = rules["help"].replace("%", "%%") + (" (default: %(default)s)" if show_default else "")
    if flag.hint is bool:
        parser.add_argument(*names, action=argparse.BooleanOptionalAction, default=default, help=help_text)
        return
    parser.add_argument(
        *names,
        type=converter(flag.hint),
        default=default,
        choices=rules["choices"],
        metavar=rules["metavar"],
        help=help_text,
    )


def converter(hint: Any) -> Callable[[str], Any]:
    """The function that reads a flag's text; for `T | None` an empty text and `None` mean None."""
    if typing.get_origin(hint) is dict:
        return parse_weights
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = converter(next(part for part in typing.get_args(hint) if part is not type(None)))

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
