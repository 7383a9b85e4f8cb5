"""Settings as flat names and values, and as flags."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

import pytest

from modules.config import check_settings, setting
from tests.utils.settings.test_parser import LEAST
from utils.settings.fields import add_flags, flags_of, flat_values, from_flat, group, parse_weights
from utils.settings.parser import parse_arguments


@dataclass(frozen=True)
class Frames:
    """Which frames are read. Not which videos."""

    count: int = setting(3, "frames of a clip", minimum=1)
    order: str = setting("front", "where 100 % of them lie", choices=("front", "back"), flag="frame_order")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass
class Start:
    """Where it starts."""

    seed: int = setting(1, "of all choices", minimum=0)


@dataclass
class Run(Start):
    """All of a run.

    Its notes are no setting.
    """

    weights: dict[str, float] = setting({}, "of losses", metavar="NAME=W")
    is_quick: bool = setting(False, "leave things out")
    limit: float | None = setting(None, "seconds", minimum=0)
    frames: Frames = group(Frames)
    notes: list[str] = field(default_factory=list)


def parse(*argv: str, show_default: bool = False) -> argparse.Namespace:
    """The command line of `Run` alone."""
    parser = argparse.ArgumentParser()
    add_flags(parser, Run, show_default=show_default)
    return parser.parse_args(argv)


def test_optional_values_can_be_left_empty():
    args = parse_arguments([*LEAST, "--init_model", "", "--object_layer", "None", "--loss_weights", "vtm=1, mlm=.5"])
    assert args.init_model is None and args.model.object_layer is None and args.loss_weights == {"vtm": 1.0, "mlm": 0.5}


def test_settings_of_groups_come_first_each_with_the_class_that_declares_it():
    found = [(flag.name, flag.field.name, flag.group, flag.owner, flag.hint) for flag in flags_of(Run)]
    assert found == [
        ("count", "count", "frames", Frames, int),
        ("frame_order", "order", "frames", Frames, str),
        ("seed", "seed", "", Start, int),
        ("weights", "weights", "", Run, dict[str, float]),
        ("is_quick", "is_quick", "", Run, bool),
        ("limit", "limit", "", Run, float | None),
    ]


def test_flat_values_and_back():
    run = Run(5, {"vtm": 2.0}, True, 1.5, Frames(7, "back"))
    flat = flat_values(run)
    assert flat == {
        "count": 7, "frame_order": "back", "seed": 5, "weights": {"vtm": 2.0}, "is_quick": True, "limit": 1.5,
    }  # fmt: skip
    assert from_flat(Run, flat) == run
    assert from_flat(Run, {}) == Run() and flat_values(from_flat(Run, flat)) == flat


def test_what_is_not_given_has_its_default_within_groups_too():
    run = from_flat(Run, {"frame_order": "back"}, notes=["one"])
    assert run == Run(frames=Frames(3, "back"), notes=["one"])


def test_instances_share_no_dict():
    one, other = Run(), Run()
    one.weights["vtm"] = 1.0
    assert other.weights == {} and Run().weights == {}


def test_names_that_no_setting_has_are_errors():
    with pytest.raises(ValueError, match="unknown settings: frames, notes, order"):
        from_flat(Run, {"order": "back", "notes": [], "frames": Frames(), "seed": 2})


def test_a_value_out_of_range_is_named_by_its_flag():
    with pytest.raises(ValueError, match="--frame_order middle: choose one of front, back"):
        from_flat(Run, {"frame_order": "middle"})
    with pytest.raises(ValueError, match="--count 0: must be at least 1"):
        from_flat(Run, {"count": 0})


def test_flags_are_read_as_the_settings_types():
    args = parse("--count", "5", "--frame_order", "back", "--limit", "2", "--weights", "a=1,b=0.5", "--is_quick")
    assert vars(args) == {
        "count": 5, "frame_order": "back", "seed": 1, "weights": {"a": 1.0, "b": 0.5}, "is_quick": True, "limit": 2.0,
    }  # fmt: skip
    assert from_flat(Run, vars(args)).frames == Frames(5, "back")
    assert from_flat(Run, vars(parse())) == Run()
    assert parse("--is_quick", "--no-is_quick").is_quick is False
    assert parse("--limit", "").limit is None and parse("--limit", "None").limit is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--limit", "long"], "argument --limit: invalid float value: 'long'"),
        (["--count", "2.5"], "argument --count: invalid int value: '2.5'"),
        (["--frame_order", "middle"], "argument --frame_order: invalid choice: 'middle'"),
        (["--weights", "a"], "argument --weights: 'a' in 'a': write NAME=WEIGHT"),
        (["--order", "back"], "unrecognized arguments: --order back"),
    ],
)
def test_values_that_cannot_be_read_are_named(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(*argv)
    assert message in capsys.readouterr().err


def test_help_has_a_title_for_each_class_and_defaults_where_asked(capsys: pytest.CaptureFixture[str]):
    texts = []
    for show_default in (False, True):
        with pytest.raises(SystemExit):
            parse("--help", show_default=show_default)
        texts.append(capsys.readouterr().out)
    for title in ("Which frames are read. Not which videos:", "Where it starts:", "All of a run:"):
        assert all(f"\n{title}\n" in text for text in texts)
    assert "where 100 % of them lie" in texts[0] and "(default" not in texts[0]
    assert "where 100 % of them lie (default: front)" in texts[1] and "NAME=W" in texts[1]


def test_weights_by_name():
    assert parse_weights("") == {}
    assert parse_weights("vtm=1, mlm = 0.5,plm=0,") == {"vtm": 1.0, "mlm": 0.5, "plm": 0.0}


@pytest.mark.parametrize("text", ["vtm", "vtm=", "=1", "vtm=x", "vtm=-1", "vtm=nan", "vtm=inf", "vtm=1,vtm=2"])
def test_weights_that_are_none_are_errors(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="write NAME=WEIGHT,... with weights from 0"):
        parse_weights(text)
