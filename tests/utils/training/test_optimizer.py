"""BertAdam against the golden numbers, parameter groups and frozen layers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from modules.parts import Owner
from modules.tasks.answering import AnswerModel
from tests import tiny
from tests.golden_data import recipe
from utils.training.optimizer import BertAdam, freeze_layers, parameter_groups
from utils.training.schedule import SCHEDULES

GOLDEN = Path(__file__).parents[2] / "golden_data"
CONSTANTS = json.loads((GOLDEN / "extra-seed0.json").read_text())["optimiser"]


def golden_optimizer(schedule: str) -> tuple[dict[str, nn.Parameter], BertAdam]:
    params = {
        name: nn.Parameter(torch.from_numpy(np.asarray(recipe.weight(name, shape, 0))))
        for name, shape in CONSTANTS["shapes"].items()
    }
    groups = [{**group, "params": [params[name] for name in group["names"]]} for group in CONSTANTS["groups"]]
    optimizer = BertAdam(
        groups, lr=1.0, schedule=schedule, warmup=CONSTANTS["warmup"], t_total=CONSTANTS["t_total"], b1=CONSTANTS["b1"],
        b2=CONSTANTS["b2"], eps=CONSTANTS["e"], max_grad_norm=CONSTANTS["max_grad_norm"],
    )  # fmt: skip
    return params, optimizer


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_updates_and_rates_equal_the_released_optimiser(schedule):
    stored = np.load(GOLDEN / "extra-seed0.npz")
    params, optimizer = golden_optimizer(schedule)
    compared = 0
    for step in range(1, CONSTANTS["steps"] + 1):
        rates = [optimizer.rate(group) for group in optimizer.param_groups]
        np.testing.assert_allclose(rates, CONSTANTS["lr"][schedule][step - 1], rtol=1e-12, atol=1e-15)
        for name, p in params.items():
            scale = {1: 1.0, 2: 4.0, 0: 0.05}[step % 3]
            p.grad = torch.from_numpy(recipe.weight(f"grad.{name}.{step}", p.shape, 0)) * scale
        optimizer.step()
        if step in CONSTANTS["stored_steps"]:
            for name, p in params.items():
                expected = stored[f"optimiser.{schedule}.step{step}.{name}"]
                np.testing.assert_allclose(p.detach().numpy(), expected, rtol=0, atol=1e-6 * np.abs(expected).max())
                compared += 1
    assert compared == 4 * len(params)


def test_parameters_without_gradient_keep_value_and_state():
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = BertAdam([used, unused], lr=0.1, schedule="warmup_constant", warmup=0.0, t_total=10)
    used.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(3)) and not optimizer.state[unused]
    assert not torch.equal(used, torch.ones(3))


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_update_equals_the_rule_written_out(max_grad_norm):
    torch.manual_seed(0)
    rate, decay, b1, b2, eps = 0.1, 0.2, 0.9, 0.98, 1e-6
    params = [nn.Parameter(torch.randn(size)) for size in ((5, 4), (7,))]
    constants = {"weight_decay": decay, "b1": b1, "b2": b2, "eps": eps, "max_grad_norm": max_grad_norm}
    optimizer = BertAdam(params, lr=rate, schedule="warmup_constant", warmup=0.0, t_total=10, **constants)
    expected = [(p.detach().double(), torch.zeros(p.shape).double(), torch.zeros(p.shape).double()) for p in params]
    for _ in range(3):
        for i, p in enumerate(params):
            p.grad = torch.randn_like(p) * 3
            g = p.grad.double()
            g = g * min(1.0, max_grad_norm / (float(g.norm()) + 1e-6)) if max_grad_norm else g
            value, mean, square = expected[i]
            mean, square = b1 * mean + (1 - b1) * g, b2 * square + (1 - b2) * g**2
            expected[i] = (value - rate * (mean / (square.sqrt() + eps) + decay * value), mean, square)
        optimizer.step()
    for p, (value, _, _) in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), value.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("max_norm", [0.5, 3.0, math.inf])
def test_clipping_once_equals_clipping_all_and_then_each(max_norm):
    runs = []
    for is_together in (True, False):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(size)) for size in ((5, 4), (7,), (3,), (2,))]
        groups = [{"params": params[:2]}, {"params": params[2:], "max_grad_norm": 0.0}]
        optimizer = BertAdam(groups, lr=0.1, warmup=0.0, t_total=10)
        norms = []
        for scale in (3.0, 0.1, 1.0):
            for p in params[:-1]:
                p.grad = torch.randn_like(p) * scale
            if is_together:
                norms.append(optimizer.clip(max_norm))
            else:
                norms.append(nn.utils.clip_grad_norm_(params, max_norm))
            optimizer.step()
            optimizer.zero_grad()
        runs.append((torch.stack(norms), *(p.detach() for p in params)))
    for together, apart in zip(*runs, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


def test_gradients_made_after_a_clip_are_clipped_by_the_step():
    p = nn.Parameter(torch.zeros(2))
    optimizer = BertAdam([p], lr=0.1, warmup=0.0, t_total=10)
    p.grad = torch.tensor([3.0, 4.0])
    assert float(optimizer.clip(math.inf)) == 5
    optimizer.zero_grad()  # no step: a scaler has found an overflow
    p.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(p.grad, torch.tensor([0.6, 0.8]))


def test_without_gradients_there_is_nothing_to_clip():
    optimizer = BertAdam([nn.Parameter(torch.zeros(2))], lr=0.1)
    assert float(optimizer.clip(1.0)) == 0


def test_state_survives_a_round_trip():
    p = nn.Parameter(torch.ones(4))
    first = BertAdam([p], lr=0.1, warmup=0.5, t_total=10)
    p.grad = torch.ones(4)
    first.step()
    second = BertAdam([p], lr=0.1, warmup=0.5, t_total=10)
    second.load_state_dict(first.state_dict())
    assert second.rates() == first.rates() == {"all": pytest.approx(0.1 * 0.2)}
    assert torch.equal(second.state[p]["exp_avg"], first.state[p]["exp_avg"])


def test_gradient_scaler_skips_an_update_with_infinite_gradient():
    p = nn.Parameter(torch.ones(4))
    optimizer = BertAdam([p], lr=0.1, schedule="warmup_constant", warmup=0.0, t_total=10)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor, moves in ((float("inf"), False), (1.0, True)):
        before = p.detach().clone()
        optimizer.zero_grad()
        scaler.scale((p * factor).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, p) != moves
    assert optimizer.param_groups[0]["step"] == 1 and scaler.get_scale() == 2.0


class WithGroups(nn.Module):
    """Parameters of two groups, one of which states an exception."""

    def __init__(self, rate: str = "fusion") -> None:
        super().__init__()
        self.block = nn.Linear(2, 2)
        self.block.owners = {"": Owner("block", rate), "bias": Owner("block", "object")}
        self.head = nn.Linear(2, 2, bias=False)
        self.head.owners = {"": Owner("head", "head")}


def test_groups_are_those_that_the_owners_state():
    groups = parameter_groups(WithGroups(), lr=1e-4, coef_lr=1e-3, fusion_lr=1e-5, object_lr=3e-4)
    found = {n: (g["label"], g["lr"], g["weight_decay"]) for g in groups for n in g["names"]}
    assert found == {
        "block.weight": ("fusion", 1e-5, 0.2),
        "block.bias": ("object", 3e-4, 0.0),
        "head.weight": ("head", 1e-4, 0.2),
    }
    assert BertAdam(groups, lr=0.0).rates().keys() == {"fusion", "object", "head"}


def test_groups_of_a_model_are_the_released_ones():
    """The trajectory block is in the fusion group and its query in the objects', as the released names have it."""
    expected = {
        "clip.visual.proj": ("clip", 1e-7, 0.2),
        "clip.logit_scale": ("clip", 1e-7, 0.2),
        "clip.transformer.resblocks.0.attn.in_proj_bias": ("clip", 1e-7, 0.0),
        "fusion.positional_embedding": ("fusion", 1e-5, 0.2),
        "vocabulary_head.bias": ("fusion", 1e-5, 0.0),
        "matching_head.match": ("fusion", 1e-5, 0.2),
        "trajectory_encoder.block.ln_1.weight": ("fusion", 1e-5, 0.2),
        "action_encoder.proj": ("fusion", 1e-5, 0.2),
        "trajectory_encoder.cls_embedding": ("object", 1e-4, 0.2),
        "action_encoder.queries": ("object", 1e-4, 0.2),
        "object_encoder.frame_embedding": ("object", 1e-4, 0.2),
        "similarity.dense.weight": ("head", 1e-4, 0.2),
    }
    groups = parameter_groups(tiny.model(sim_header="tightTransf"), lr=1e-4, coef_lr=1e-3, fusion_lr=1e-5)
    found = {n: (g["label"], pytest.approx(g["lr"]), g["weight_decay"]) for g in groups for n in g["names"]}
    assert {name: found[name] for name in expected} == expected
    # A rate of its own for actions takes their encoder out of both groups, and nothing else.
    with_action = parameter_groups(tiny.model(), lr=1e-4, coef_lr=1e-3, fusion_lr=1e-5, action_lr=2e-3)
    moved = {name for group in with_action if group["label"] == "action" for name in group["names"]}
    assert moved == {name for name in found if name.startswith("action_encoder.")}
    assert {group["lr"] for group in with_action if group["label"] == "action"} == {2e-3}
    answers = parameter_groups(tiny.model(AnswerModel, answers=("a", "b")), lr=1e-4, coef_lr=1e-3, fusion_lr=1e-5)
    assert [g["label"] for g in answers if "answer_head.bias" in g["names"]] == ["head"]


def test_parameter_without_an_owner_is_an_error():
    model = WithGroups()
    model.mystery = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"mystery\.weight belongs to no part"):
        parameter_groups(model, 1.0, 1.0, 1.0)


def test_a_group_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match=r"block\.weight: no learning-rate group slow; choose one of clip, fusion"):
        parameter_groups(WithGroups("slow"), 1.0, 1.0, 1.0)


@pytest.mark.parametrize("layers", [-1, 0, 1])
def test_frozen_layers_are_the_lower_ones_of_clip(layers: int):
    model = tiny.model()
    frozen = freeze_layers(model, layers)
    lower = [f"clip.{name}" for name, _ in model.clip.lower_parameters(layers)] if layers >= 0 else []
    assert frozen == lower and bool(lower) == (layers >= 0)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == set(lower)
