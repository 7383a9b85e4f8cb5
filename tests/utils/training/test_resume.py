"""Exact resume: which runs may go on, and from which random states."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
import torch
from torch import nn

from modules.config import UNSTATED, Behaviour
from tests.utils.toy_run import ToyBehaviour, ToyModel, make_settings, make_trainer
from utils.runtime.checkpoint import CheckpointError, load
from utils.runtime.distributed import Runtime
from utils.training.optimizer import BertAdam
from utils.training.resume import (
    check_same_run,
    follow_choices,
    gather_random_states,
    restore_optimizer,
    restore_random_states,
    untouched_random_state,
)
from utils.training.trainer import Trainer

CPU = torch.device("cpu")
ONE = Runtime(0, 1, 0, CPU)
POSITION = {"steps_per_epoch": 6, "gradient_accumulation_steps": 1, "global_batch_size": 8}


def test_restore_file_of_another_run_is_an_error(tmp_path):
    make_trainer(make_settings(tmp_path, epochs=1)).fit()
    with pytest.raises(CheckpointError, match="global_batch_size 8 then, 4 now"):
        make_trainer(make_settings(tmp_path, batch_size=4)).fit()
    with pytest.raises(CheckpointError, match=r"fusion\.0\.weight: \[6, 6\] in the file, \[5, 5\] in the model"):
        make_trainer(make_settings(tmp_path), model=ToyModel(width=5)).fit()
    released = ToyModel()
    released.behaviour.preset = "released"
    with pytest.raises(CheckpointError, match="behaviour preset intended then, released now"):
        make_trainer(make_settings(tmp_path), model=released).fit()
    os.replace(tmp_path / "ckpt" / "pytorch_model.bin.6", tmp_path / "restore.bin")
    with pytest.raises(CheckpointError, match="give it to --init_model"):
        make_trainer(make_settings(tmp_path)).fit()


def test_a_run_that_did_not_know_a_choice_goes_on(tmp_path):
    make_trainer(make_settings(tmp_path, epochs=1)).fit()
    state = load(tmp_path / "restore.bin")
    del state["behaviour"]["preset"]
    torch.save(state, tmp_path / "restore.bin")
    assert make_trainer(make_settings(tmp_path)).fit().step == 12


def test_a_run_of_before_goes_on_with_the_behaviour_that_it_began_with_however_often_it_is_resumed(tmp_path):
    def trainer(epochs: int) -> Trainer:
        model = ToyModel()
        model.behaviour = Behaviour()
        return make_trainer(make_settings(tmp_path, epochs=epochs), model=model)

    trainer(1).fit()
    state = load(tmp_path / "restore.bin")
    for name in UNSTATED:
        del state["behaviour"][name]
    torch.save(state, tmp_path / "restore.bin")
    for epochs in (2, 3):
        resumed = trainer(epochs)
        assert resumed.fit().step == 6 * epochs
        assert resumed.model.behaviour == Behaviour(**UNSTATED)
        assert load(tmp_path / "restore.bin")["behaviour"] == dataclasses.asdict(Behaviour(**UNSTATED))
        config = json.loads((tmp_path / "config.json").read_bytes())
        assert config["behaviour"] == dataclasses.asdict(Behaviour(**UNSTATED))
    said = "restore.bin goes on as it was trained, with matching_loss released, same_clip_negatives True"
    assert said in (tmp_path / "log.txt").read_text()


def test_choices_that_a_file_states_are_followed_where_they_are_such():
    behaviour = Behaviour()
    assert follow_choices(behaviour, dataclasses.asdict(Behaviour())) == [] and behaviour == Behaviour()
    unusable = {"same_clip_negatives": "yes", "matching_loss": None}
    assert follow_choices(behaviour, unusable) == [] and behaviour == Behaviour()
    said = follow_choices(behaviour, {"answer_head": "vocabulary"})
    assert said == ["matching_loss released", "same_clip_negatives True"] and behaviour == Behaviour(**UNSTATED)
    again = follow_choices(behaviour, dataclasses.asdict(Behaviour()))
    assert again == ["matching_loss contrastive", "same_clip_negatives False"] and behaviour == Behaviour()
    assert follow_choices(ToyBehaviour(), {}) == []


def test_all_that_differs_from_the_saved_run_is_named_together_with_the_remedy():
    state = {"position": {**POSITION, "epoch": 1}, "behaviour": {"preset": "intended"}}
    check_same_run(state, POSITION, ToyBehaviour(), "restore.bin")
    now = {**POSITION, "steps_per_epoch": 7, "global_batch_size": 4}
    with pytest.raises(CheckpointError) as caught:
        check_same_run(state, now, ToyBehaviour("released"), "restore.bin")
    assert str(caught.value).startswith(
        "restore.bin belongs to another run: steps_per_epoch 6 then, 7 now; global_batch_size 8 then, 4 now; "
        "behaviour preset intended then, released now. Start again with the old settings"
    )


def test_a_choice_that_this_version_does_not_know_is_a_difference():
    state = {"position": POSITION, "behaviour": {"preset": "intended", "newer": True}}
    with pytest.raises(CheckpointError, match="behaviour newer True then, None now"):
        check_same_run(state, POSITION, ToyBehaviour(), "restore.bin")


def optimizer_of(parameter: nn.Parameter, lr: float, name: str = "weight") -> BertAdam:
    groups = [{"params": [parameter], "names": [name], "label": "head", "lr": lr, "weight_decay": 0.0}]
    return BertAdam(groups, lr, "warmup_constant", 0.0, 10)


def test_moments_and_step_come_from_the_file_and_the_rate_from_this_run():
    parameter = nn.Parameter(torch.ones(3))
    saved = optimizer_of(parameter, 0.1)
    for _ in range(2):
        parameter.grad = torch.tensor([1.0, 2.0, 3.0])
        saved.step()
    resumed = optimizer_of(parameter, 0.02)
    restore_optimizer(resumed, saved.state_dict(), "restore.bin")
    assert resumed.param_groups[0]["step"] == 2 and resumed.rates() == {"head": 0.02}
    for name, value in saved.state[parameter].items():
        assert torch.equal(resumed.state[parameter][name], value) and value.abs().sum() > 0


def test_moments_of_other_parameters_are_refused():
    parameter = nn.Parameter(torch.ones(3))
    state = optimizer_of(parameter, 0.1, "other").state_dict()
    with pytest.raises(CheckpointError, match=r"restore\.bin: its optimizer state is for other parameters"):
        restore_optimizer(optimizer_of(parameter, 0.1), state, "restore.bin")


def test_random_numbers_go_on_where_they_were_saved():
    torch.manual_seed(1)
    saved = gather_random_states(ONE)
    expected = torch.rand(3)
    torch.manual_seed(2)
    assert restore_random_states(saved, ONE)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("saved", ["of two ranks", "of another device"])
def test_random_states_of_other_processes_or_devices_change_nothing(saved: str):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    states = {"cpu": [state, state]} if saved == "of two ranks" else {"cuda": [state]}
    before = torch.get_rng_state()
    assert not restore_random_states(states, ONE)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_rank_gets_its_own_random_state_back():
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(torch.get_rng_state())
    assert restore_random_states({"cpu": states}, Runtime(0, 2, 0, CPU))
    assert torch.equal(torch.get_rng_state(), states[0])


def test_what_is_drawn_within_leaves_the_generator_as_it_was():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with untouched_random_state(CPU):
        torch.rand(100)
    with pytest.raises(InterruptedError), untouched_random_state(CPU):
        torch.rand(100)
        raise InterruptedError
    assert torch.equal(torch.rand(3), expected)
