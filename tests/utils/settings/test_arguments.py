"""Command lines: the README's, old ones, and mistakes."""

import shlex
from dataclasses import dataclass

import pytest

from modules.config import setting
from utils.settings.arguments import Arguments
from utils.settings.groups import UNSUPPORTED, WITHOUT_EFFECT
from utils.settings.parser import parse_arguments
from utils.training.loss_weights import contrastive_schedule

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


def test_label_map_default_has_no_stray_quote():
    assert parse_arguments(LEAST).labelmap_path == "data/object_feature/label_map.json"


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
        (["--lr", "nan"], "--lr nan: must be at least 0"),
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


def test_something_must_be_done(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--output_dir", "out"])
    assert "give --do_train, --do_eval or both" in capsys.readouterr().err


def test_values_that_follow_from_others():
    args = parse_arguments([*LEAST, "--sim_header", "tightTransf", "--loose_type", "--batch_size", "7"])
    assert not args.loose_type and len(args.notes) == 1
    args = parse_arguments([*LEAST, "--batch_size", "7", "--gradient_accumulation_steps", "2"])
    assert args.micro_batch_size == 3 and "6 are used" in args.notes[0]


def test_optional_values_can_be_left_empty():
    args = parse_arguments([*LEAST, "--init_model", "", "--object_layer", "None", "--loss_weights", "vtm=1, mlm=.5"])
    assert args.init_model is None and args.model.object_layer is None and args.loss_weights == {"vtm": 1.0, "mlm": 0.5}


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


def test_resolved_settings_are_plain():
    resolved = parse_arguments(LEAST).resolved()
    assert resolved["lr"] == 1e-4 and "notes" not in resolved


@pytest.mark.parametrize(
    ("behaviour", "argv", "weights"),
    [
        ("intended", [], [1, 1, 1]),
        ("intended", ["--contrastive_weight", "0.5", "--contrastive_epochs", "2"], [0.5, 0.5, 0]),
        ("intended", ["--use_sim_loss"], [1, 1, 1]),
        ("released", [], [0, 0, 0]),
        ("released", ["--use_sim_loss"], [1, 0, 0]),
        ("released", ["--use_sim_loss", "--contrastive_epochs", "2"], [1, 1, 0]),
    ],
)
def test_contrastive_weight_by_epoch(behaviour, argv, weights):
    schedule = contrastive_schedule(parse_arguments([*LEAST, *argv]), behaviour)
    assert [schedule(epoch) for epoch in range(3)] == weights
