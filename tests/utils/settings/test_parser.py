"""Command lines: the README's, old ones, those that repeat a run, and mistakes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modules.config import setting
from utils.settings.arguments import Arguments
from utils.settings.groups import UNSUPPORTED, WITHOUT_EFFECT
from utils.settings.parser import parse_arguments

README = """
./tasks/pre_training.py --do_train --num_thread_reader=4 \
--epochs=10 --batch_size=8 --n_display=50 \
--clip_archive data/models/clip \
--labelmap_path data/object_feature/label_map.json \
--train_csv ${DATA_PATH}/frozen_train_labels.json \
--val_csv ${DATA_PATH}/json_files/MSRVTT_JSFUSION_test.csv \
--data_path ${DATA_PATH}/json_files/frozen_train_labels.json \
--output_dir ${OUTPUT_DIR} \
--lr 1e-5 --max_words 32 --max_frames 12 --batch_size_val 32 \
--datatype pretrain --expand_msrvtt_sentences \
--feature_framerate 1 --coef_lr 1e-3 \
--freeze_layer_num 0 --slice_framepos 2 \
--loose_type --linear_patch 2d --sim_header meanP \
--init_model ${MODEL_PATH} \
--need_object \
--object_path data/object_feature/webvid \
--object_count 10 \
--object_layer 12 \
--object_fuse fusion \
--use_action
"""
LEAST = ["--do_train", "--output_dir", "out"]


def rejected(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as caught:
        parse_arguments([*LEAST, *argv])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_readme_command():
    args = parse_arguments(shlex.split(README)[1:])
    assert args.notes == []
    assert (args.do_train, args.do_eval, args.num_thread_reader, args.epochs, args.batch_size) == (
        True,
        False,
        4,
        10,
        8,
    )
    assert (args.lr, args.coef_lr, args.n_display, args.batch_size_val) == (1e-5, 1e-3, 50, 32)
    model, frames = args.model, args.frames
    assert (model.max_words, model.max_frames, frames.feature_framerate, frames.slice_framepos) == (32, 12, 1, 2)
    assert (args.loose_type, model.linear_patch, model.sim_header, args.freeze_layer_num) == (True, "2d", "meanP", 0)
    assert (model.need_object, model.object_count, model.object_layer, model.object_fuse) == (True, 10, 12, "fusion")
    assert model.use_action and not model.action_only and args.expand_msrvtt_sentences
    assert args.train_csv == "${DATA_PATH}/frozen_train_labels.json" and args.init_model == "${MODEL_PATH}"
    assert args.object_path == "data/object_feature/webvid"
    assert args.labelmap_path == "data/object_feature/label_map.json"


@pytest.mark.parametrize("flag_", ["--local_rank", "--local-rank"])
def test_launcher_flag_in_both_spellings(flag_):
    assert parse_arguments([*LEAST, f"{flag_}=1"]).local_rank == 1


def test_released_flags_without_effect_give_one_note_each():
    old = [part for name, value in WITHOUT_EFFECT.items() for part in ([f"--{name}", "1"] if value else [f"--{name}"])]
    args = parse_arguments([*LEAST, *old, "--msrvtt_train_csv", "x"], without_effect={"msrvtt_train_csv": True})
    assert len(args.notes) == len(WITHOUT_EFFECT) + 1
    assert all("has no effect" in note for note in args.notes)


def test_unsupported_options_are_errors_unless_off(capsys):
    assert parse_arguments([*LEAST, "--phrase_fuse", "None"]).notes == []
    for name, value in UNSUPPORTED.items():
        assert f"--{name} is not supported" in rejected(capsys, f"--{name}", *(["pretext"] if value else []))


def test_unknown_flag_names_the_closest(capsys):
    assert "unknown flag --batchsize; did you mean --batch_size?" in rejected(capsys, "--batchsize", "4")
    assert "did you mean --max_steps?" in rejected(capsys, "--max-steps=4")
    assert "unknown flag --qqqq" in rejected(capsys, "--qqqq")
    assert "unknown flag --epoch" in rejected(capsys, "--epoch", "4")  # abbreviations are not guessed
    assert "unexpected argument 'stray'" in rejected(capsys, "stray")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--use_action"], "--use_action needs --need_object"),
        (["--action_only"], "--action_only needs --need_object"),
        (["--batch_size", "0"], "--batch_size 0: must be at least 1"),
        (["--lr", "-1"], "--lr -1.0: must be at least 0"),
        (["--lr", "nan"], "--lr nan: must be a number"),
        (["--mask_ratio", "1.5"], "--mask_ratio 1.5: must be at most 1"),
        (["--feature_framerate", "0"], "--feature_framerate 0.0: must be above 0"),
        (["--sim_header", "meanX"], "invalid choice: 'meanX'"),
        (["--max_frames", "twelve"], "invalid int value: 'twelve'"),
        (["--max_steps", "many"], "invalid int value: 'many'"),
        (["--loss_weights", "vtm"], "write NAME=WEIGHT"),
        (["--loss_weights", "vtm=-1"], "write NAME=WEIGHT"),
        (["--batch_size", "2", "--gradient_accumulation_steps", "3"], "--gradient_accumulation_steps 3"),
        (["--need_object", "--object_layer", "0"], "--object_layer 0"),
        (["--output_dir", ""], "--output_dir is required"),
    ],
)
def test_mistakes_are_named(capsys, argv, message):
    assert message in rejected(capsys, *argv)


def test_a_task_has_defaults_and_flags_of_its_own():
    @dataclass
    class Answering(Arguments):
        """Question answering."""

        answers: int = setting(1500, "answers to choose from", minimum=1)

    args = parse_arguments([*LEAST, "--answers", "7"], Answering, defaults={"lr": 5e-5, "schedule": "warmup_linear"})
    assert (args.answers, args.lr, args.schedule) == (7, 5e-5, "warmup_linear")
    with pytest.raises(ValueError, match="unknown flags: learning"):
        parse_arguments(LEAST, defaults={"learning": 1})


def test_help_lists_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--help"])
    text = capsys.readouterr().out
    assert (
        caught.value.code == 0 and "--contrastive_weight" in text and "(default: 42)" in text and "margin" not in text
    )


def saved_run(folder: Path, argv: Sequence[str] = (), **changes: Any) -> str:
    """The config.json that a run with this command line leaves, with other values in it."""
    settings = {**parse_arguments([*LEAST, *argv]).resolved(), **changes}
    path = folder / "config.json"
    path.write_text(json.dumps({"arguments": settings, "world_size": 1}))
    return str(path)


def test_a_config_repeats_its_run(tmp_path: Path):
    argv = ["--need_object", "--use_action", "--lr", "3e-5", "--loss_weights", "vtm=2", "--feature_framerate", "0.5"]
    config = saved_run(tmp_path, argv)
    again = parse_arguments(["--config", config])
    assert again.resolved() == parse_arguments([*LEAST, *argv]).resolved()
    assert again.notes[0] == f"--config {config}: {len(again.resolved())} settings are taken from it"
    assert f"--config {config} names --clip_archive data/models/clip" in again.notes
    named = [note for note in again.notes if " names --" in note]
    assert len(named) == len(again.notes) - 1 and not [note for note in named if "init_model" in note], "of none"


def test_flags_win_over_the_config_wherever_they_stand(tmp_path: Path):
    config = saved_run(tmp_path, ["--need_object", "--use_action", "--lr", "3e-5", "--max_steps", "7"])
    args = parse_arguments(["--lr", "1e-3", "--config", config, "--max_steps", "None", "--no-use_action"])
    assert (args.lr, args.max_steps, args.model.need_object, args.model.use_action) == (1e-3, None, True, False)
    plain = parse_arguments(["--config", config, "--no-need_object", "--no-use_action"])
    assert not plain.model.need_object and plain.lr == 3e-5


def test_the_config_wins_over_the_tasks_defaults_and_leaves_them_to_what_it_does_not_say(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"arguments": {"lr": 3e-5, "local_rank": 1}}))
    args = parse_arguments([*LEAST, "--config", str(path)], defaults={"lr": 1e-2, "epochs": 3})
    assert (args.lr, args.epochs, args.batch_size) == (3e-5, 3, 8)
    assert args.local_rank is None, "the launcher says it, not a run before"


def test_settings_that_contradict_the_config_are_named(capsys, tmp_path: Path):
    config = saved_run(tmp_path, ["--need_object", "--use_action"])
    assert "--use_action needs --need_object" in rejected(capsys, "--config", config, "--no-need_object")


@pytest.mark.parametrize("name", ["init_model", "clip_archive"])
def test_weights_of_the_hub_count_only_where_the_user_writes_them(capsys, tmp_path: Path, name: str):
    config = saved_run(tmp_path, **{name: "hf-hub:some/clip"})
    error = rejected(capsys, "--config", config)
    assert f"--config {config}: its {name} is 'hf-hub:some/clip'" in error and f"write --{name} on the command" in error
    for written in ("hf-hub:some/clip", "other.pt"):
        args = parse_arguments([*LEAST, "--config", config, f"--{name}", written])
        assert getattr(args, name) == written


def test_a_config_of_another_task_is_an_error(capsys, tmp_path: Path):
    config = saved_run(tmp_path, beam_size=5, answers=["dog"])
    assert f"{config} is of another task: there is no setting answers, beam_size here" in rejected(
        capsys, "--config", config
    )


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("epochs", "20", "int"),
        ("epochs", 2.5, "int"),
        ("epochs", True, "int"),
        ("epochs", None, "int"),
        ("lr", "fast", "float"),
        ("do_train", 1, "bool"),
        ("output_dir", 7, "str"),
        ("max_steps", "many", "int | None"),
        ("loss_weights", {"vtm": "1"}, "dict[str, float]"),
        ("loss_weights", [1], "dict[str, float]"),
    ],
)
def test_a_value_of_another_type_is_an_error(capsys, tmp_path: Path, name: str, value: Any, kind: str):
    config = saved_run(tmp_path, **{name: value})
    assert f"{config}: {name} is {value!r}, not {kind}" in rejected(capsys, "--config", config)


def test_whole_numbers_stand_for_fractions_and_null_for_what_may_be_left_empty(tmp_path: Path):
    config = saved_run(tmp_path, lr=1, max_steps=None, loss_weights={"vtm": 1})
    args = parse_arguments(["--config", config])
    assert (args.lr, args.max_steps, args.loss_weights) == (1, None, {"vtm": 1})


def test_a_value_out_of_range_is_an_error_from_a_config_too(capsys, tmp_path: Path):
    assert "--epochs 0: must be at least 1" in rejected(capsys, "--config", saved_run(tmp_path, epochs=0))
    weights = saved_run(tmp_path, loss_weights={"vtm": 1, "mlm": -0.5})
    assert "--loss_weights -0.5: must be at least 0" in rejected(capsys, "--config", weights)


@pytest.mark.parametrize("content", ["no json", "[1, 2]", "{}", '{"arguments": 3}', '{"arguments": []}'])
def test_a_file_that_is_no_config_is_an_error(capsys, tmp_path: Path, content: str):
    (tmp_path / "config.json").write_text(content)
    message = rejected(capsys, "--config", str(tmp_path / "config.json"))
    assert f"--config: {tmp_path / 'config.json'} is not the config.json of a run" in message


def test_a_config_that_is_not_there_is_an_error(capsys, tmp_path: Path):
    assert "none.json" in rejected(capsys, "--config", str(tmp_path / "none.json"))
