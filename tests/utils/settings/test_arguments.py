"""Settings of a task that depend on each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataloaders.datasets.csv_files import CAPTIONS, QUESTIONS, Table
from tests.utils.settings.test_parser import LEAST
from utils.data.retrieval import RetrievalArguments
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


def own(**flags: Any) -> RetrievalArguments:
    return RetrievalArguments(**{"output_dir": "out", "do_train": True, "datatype": "csv", **flags})


def test_a_data_set_of_ones_own_is_one_table_or_one_for_each_split(tmp_path: Path):
    args = own(train_csv="a.csv", test_csv="c.tsv")
    assert args.is_own and args.data_set == "csv" and not args.has_own_validation(CAPTIONS)
    assert args.table("train") == Table(Path("a.csv"), "train", False, "--train_csv")
    assert own(train_csv="a.csv", val_csv="b.csv").has_own_validation(CAPTIONS)
    with pytest.raises(ValueError, match="--val_csv is required, or --data_csv with a column split"):
        args.table("val")
    path = tmp_path / "all.csv"
    path.write_text("split,video,caption,question,answer\ntrain,a,x,,\nval,b,y,,\n")
    args = own(data_csv=str(path))
    assert args.table("test") == Table(path, "test", True, "--data_csv")
    assert args.has_own_validation(CAPTIONS) and not args.has_own_validation(QUESTIONS)


def test_tables_of_both_kinds_or_of_another_data_type_are_errors():
    with pytest.raises(ValueError, match="--data_csv has all splits: leave --train_csv and --test_csv out, or --data_"):
        own(data_csv="all.csv", train_csv="a.csv", test_csv="b.csv")
    with pytest.raises(ValueError, match="--data_csv is of --datatype csv, not of msvd_retrieval"):
        own(data_csv="all.csv", datatype="msvd_retrieval")


@pytest.mark.parametrize("name", ["similar_group", "similar_after"])
def test_what_is_of_batches_of_similar_captions_is_an_error_without_them(name: str):
    assert getattr(own(similar_batches=64, **{name: 4}), name) == 4
    with pytest.raises(ValueError, match=f"--{name} is of --similar_batches: name both"):
        own(**{name: 4})


def test_batches_of_similar_captions_after_the_last_epoch_are_an_error():
    assert own(similar_batches=64, similar_after=4, epochs=5).similar_after == 4
    with pytest.raises(ValueError, match="--similar_after 5 leaves no epoch of --epochs 5"):
        own(similar_batches=64, similar_after=5, epochs=5)
