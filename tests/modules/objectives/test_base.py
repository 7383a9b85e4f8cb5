"""Heads that objectives share, and the base's defaults."""

from __future__ import annotations

import pytest
from torch import nn

from modules.config import Behaviour
from modules.objectives.base import Heads, Objective
from tests import tiny


def test_a_head_is_built_once_by_whoever_asks_first():
    heads = Heads()
    first = heads.get("head", lambda: nn.Linear(2, 3))
    assert heads.get("head", lambda: nn.Linear(9, 9)) is first and heads.get("other", nn.Identity) is not first
    assert list(heads.by_name) == ["head", "other"]


def test_pre_training_shares_one_vocabulary():
    model = tiny.model()
    _, masked, following, *_ = model.objectives
    assert masked.head is following.head is model.vocabulary_head
    assert sum("vocabulary_head" in name for name, _ in model.named_parameters()) == 2


def test_an_objective_must_say_what_it_trains_and_loses():
    objective = Objective(tiny.config(), Behaviour(), Heads())
    with pytest.raises(NotImplementedError):
        objective.trains(set())
    with pytest.raises(NotImplementedError):
        objective.losses(None)
