"""Settings of a task that depend on each other."""

from __future__ import annotations

import pytest

from tests.utils.settings.test_parser import LEAST
from utils.settings.parser import parse_arguments


def test_something_must_be_done(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--output_dir", "out"])
    assert "give --do_train, --do_eval or both" in capsys.readouterr().err


def test_values_that_follow_from_others():
    args = parse_arguments([*LEAST, "--sim_header", "tightTransf", "--loose_type", "--batch_size", "7"])
    assert not args.loose_type and len(args.notes) == 1
    args = parse_arguments([*LEAST, "--batch_size", "7", "--gradient_accumulation_steps", "2"])
    assert args.micro_batch_size == 3 and "6 are used" in args.notes[0]


def test_resolved_settings_are_plain():
    resolved = parse_arguments(LEAST).resolved()
    assert resolved["lr"] == 1e-4 and "notes" not in resolved
