"""Pre-training under every launcher, in two processes, and killed: whole runs of the command on the demo world."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modules.tasks.pretrain import PretrainModel
from tasks.pre_training import main
from tests.processes import Ranks, free_port, run_ranks
from tests.world import ROOT, World
from utils.models.setup import setup_model
from utils.runtime.run_log import read_metrics
from utils.settings.parser import parse_arguments

PYTHON = [sys.executable]
LAUNCHERS = {
    "python": PYTHON,
    "torchrun": [*PYTHON, "-m", "torch.distributed.run", "--nproc_per_node", "1"],
    "launch": [*PYTHON, "-m", "torch.distributed.launch", "--nproc_per_node", "2"],
}
# As in the README, whose folders are those of `readme_data`; the launcher's words are replaced.
README_COMMAND = """
./tasks/pre_training.py --do_train --num_thread_reader=4
--epochs=10 --batch_size=8 --n_display=50
--clip_archive data/models/clip
--labelmap_path data/object_feature/label_map.json
--train_csv ${DATA_PATH}/frozen_train_labels.json
--val_csv ${DATA_PATH}/json_files/MSRVTT_JSFUSION_test.csv
--data_path ${DATA_PATH}/json_files/frozen_train_labels.json
--output_dir ${OUTPUT_DIR}
--lr 1e-5 --max_words 32 --max_frames 12 --batch_size_val 32
--datatype pretrain --expand_msrvtt_sentences
--feature_framerate 1 --coef_lr 1e-3
--freeze_layer_num 0 --slice_framepos 2
--loose_type --linear_patch 2d --sim_header meanP
--init_model ${MODEL_PATH}
--need_object
--object_path data/object_feature/webvid
--object_count 10
--object_layer 12
--object_fuse fusion
--use_action
"""


@pytest.fixture(scope="module")
def readme_data(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `data` and `webvid` (DATA_PATH) as the README's command expects them."""
    folder = tmp_path_factory.mktemp("readme")
    world.copy_shards(folder / "webvid")
    (folder / "webvid/json_files").mkdir()
    shutil.copy(world.labels, folder / "webvid/json_files")
    shutil.copy(world.msrvtt / "test.csv", folder / "webvid/json_files/MSRVTT_JSFUSION_test.csv")
    (folder / "data/models").mkdir(parents=True)
    (folder / "data/models/clip").symlink_to(world.clip.parent)
    (folder / "data/object_feature").mkdir()
    (folder / "data/object_feature/label_map.json").symlink_to(world.label_map)
    shutil.copytree(world.webvid / "objects", folder / "data/object_feature/webvid")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_readme_command_runs_unchanged(world: World, readme_data: Path, tmp_path: Path, launcher: str):
    text = README_COMMAND.replace("./tasks", str(ROOT / "tasks")).replace("${DATA_PATH}", "webvid")
    text = text.replace("${OUTPUT_DIR}", str(tmp_path)).replace("${MODEL_PATH}", str(world.clip))
    port = [] if launcher == "python" else ["--master_port", str(free_port())]
    command = [*LAUNCHERS[launcher], *port, *text.split(), "--max_steps", "2"]
    done = subprocess.run(command, cwd=readme_data, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    log = (tmp_path / "log.txt").read_text()
    assert "validation is left out: it needs --val_csv and --val_features_path" in log
    assert log.count("validation is left out") == 1
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 2)]
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["arguments"]["object_layer"] == 12 and settings["arguments"]["tagger"] == "hanta"
    assert settings["world_size"] == (2 if launcher == "launch" else 1)
    model = torch.load(tmp_path / "ckpt/pytorch_model.bin.2", weights_only=True)
    restore = torch.load(tmp_path / "restore.bin", weights_only=True)
    assert model["global_step"] == restore["global_step"] == 2
    assert model["config"]["object_count"] == 10 and model["config"]["object_layer"] == 12
    assert all(torch.isfinite(value).all() for value in model["model"].values())


def trained(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "restore.bin", weights_only=True)["model"]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [8, 2])
def test_two_processes_end_like_one_with_the_same_global_batch(world: World, tmp_path: Path, batch: int):
    """Dropout on, boxes and tags spread unevenly: masks, negatives and normalisation do not depend on the ranks.

    With one clip per rank, a rank now and then has no box at all.
    """
    flags = [
        "--max_steps",
        "8",
        "--schedule",
        "warmup_constant",
        "--warmup_proportion",
        "0",
        "--freeze_layer_num",
        "-1",
    ]
    flags += ["--lr", "3e-3", "--coef_lr", "1", "--fusion_lr", "3e-3"]
    one, two = world.flags(tmp_path / "one", *flags), world.flags(tmp_path / "two", *flags)
    run_ranks(main, [*one, "--batch_size", str(batch)], tmp_path / "logs1")
    run_ranks(main, [*two, "--batch_size", str(batch // 2)], tmp_path / "logs2", processes=2)
    start = setup_model(PretrainModel, parse_arguments(one), lambda line: None).state_dict()
    first, second = trained(tmp_path / "one"), trained(tmp_path / "two")
    movement = {name: first[name] - start[name] for name in start}
    assert max(float(step.abs().max()) for step in movement.values()) >= 1e-2
    moved = {name: float(step.norm()) for name, step in movement.items()}
    apart = {name: float((second[name] - first[name]).norm()) for name in start}
    # With one clip per rank a slot's gradient may nearly cancel, and Adam, which divides by the gradient's own size,
    # enlarges what rounding leaves of it.
    together, alone = (1e-4, 1e-3) if batch == 8 else (1e-3, 1e-2)
    assert math.hypot(*apart.values()) <= together * math.hypot(*moved.values()), "all parameters together"
    assert [name for name in start if not apart[name] <= alone * moved[name]] == [], "each tensor by itself"
    for mine, other in zip(*(read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two")), strict=True):
        for name in ("vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive"):
            assert other[name] == pytest.approx(mine[name], rel=1e-3)


@pytest.mark.slow
def test_two_processes_validate_like_one(world: World, tmp_path: Path):
    """Clips have one to three things, and the ranks different numbers of them: means of means would differ."""
    flags = ["--val_csv", str(world.msrvtt / "test.csv"), "--val_features_path", str(world.msrvtt / "videos")]
    flags += ["--val_object_path", str(world.msrvtt / "objects"), "--batch_size_val", "3", "--do_eval"]
    flags += ["--eval_samples", "4"]
    found = []
    for name, processes in (("one", 1), ("two", 2)):
        asked = [flag for flag in world.flags(tmp_path / name, *flags) if flag != "--do_train"]
        run_ranks(main, asked, tmp_path / f"logs_{name}", processes)
        found.append(json.loads((tmp_path / name / "metrics.json").read_text())["zero_shot"])
    assert found[0]["alignment_things"] > 0 and found[1] == pytest.approx(found[0], rel=1e-12)


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_like_an_uninterrupted_one(world: World, tmp_path: Path):
    flags = ["--epochs", "2", "--batch_size", "4", "--save_every", "2", "--num_thread_reader", "2"]
    run_ranks(main, world.flags(tmp_path / "whole", *flags), tmp_path / "logs1")
    again = world.flags(tmp_path / "killed", *flags)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    with Ranks(main, again, tmp_path / "logs2") as ranks:
        # Whatever the process does when the third line is seen, it is killed there.
        while ranks.processes[0].is_alive() and not (metrics.exists() and len(read_metrics(metrics)) >= 3):
            time.sleep(0.01)
        ranks.kill()
        assert ranks.join() == [-9], ranks.output()
    assert (tmp_path / "killed" / "restore.bin").exists()
    output = run_ranks(main, again, tmp_path / "logs3")
    assert "resumed" in output
    whole, killed = trained(tmp_path / "whole"), trained(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert [line["step"] for line in read_metrics(metrics)] == list(range(1, 13))
    first, second = (torch.load(tmp_path / name / "restore.bin", weights_only=True) for name in ("whole", "killed"))
    for index, state in first["optimizer"]["state"].items():
        assert all(torch.equal(value, second["optimizer"]["state"][index][name]) for name, value in state.items())


@pytest.mark.slow
def test_released_contrastive_loss_ends_after_the_first_epoch_in_two_processes(world: World, tmp_path: Path):
    """Other parameters get gradients from then on, so DDP is built anew; validation is shared by the ranks."""
    flags = ["--behaviour", "released", "--use_sim_loss", "--epochs", "2", "--batch_size", "4", "--batch_size_val", "3"]
    flags += ["--val_csv", str(world.msrvtt / "test.csv"), "--val_features_path", str(world.msrvtt / "videos")]
    flags += ["--val_object_path", str(world.msrvtt / "objects")]
    run_ranks(main, world.flags(tmp_path / "out", *flags), tmp_path / "logs", processes=2)
    lines = read_metrics(tmp_path / "out" / "metrics.jsonl")
    training = [line for line in lines if line["kind"] == "train"]
    assert ["contrastive" in line for line in training] == [True] * 3 + [False] * 3
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [3, 6]
    assert all(line["videos"] == 8 and 0 <= line["t2v_R1"] <= 100 and line["skipped"] == 0 for line in evaluations)
