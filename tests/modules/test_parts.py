"""Owners of parameters: the innermost statement counts, and gradient flows on into what a part reads."""

from __future__ import annotations

import pytest
from torch import nn

from modules.parts import Owner, owners, reached
from tests import tiny


def nested() -> nn.Module:
    inner, outer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Module()
    inner.owners = {"1": Owner("second", "head"), "1.bias": Owner("bias", "object")}
    outer.add_module("inner", inner)
    outer.scale = nn.Parameter(inner[0].weight.detach().clone())
    outer.owners = {"": Owner("rest", "clip"), "inner": Owner("inner", "fusion")}
    model = nn.Module()
    model.add_module("outer", outer)
    return model


def test_the_nearest_statement_counts():
    assert {name: owner.part for name, owner in owners(nested()).items()} == {
        "outer.scale": "rest",
        "outer.inner.0.weight": "inner",
        "outer.inner.0.bias": "inner",
        "outer.inner.1.weight": "second",
        "outer.inner.1.bias": "bias",
    }


def test_a_parameter_that_nobody_speaks_for_is_an_error_that_names_it():
    model = nested()
    model.add_module("other", nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"other\.weight belongs to no part: .*modules/parts\.py"):
        owners(model)


def test_gradient_flows_on_into_what_is_read():
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model[0].reads = {"a": ("b", "c"), "c": ("d",)}
    model[1].reads = {"d": ("a",), "x": ("y",)}
    assert reached(model, {"a"}) == {"a", "b", "c", "d"} == reached(model, {"d"})
    assert reached(model, {"b", "x"}) == {"b", "x", "y"} and reached(model, set()) == set()


@pytest.mark.parametrize("choices", [{}, {"object_layer": 2}, {"object_fuse": "attention"}, {"need_object": False,
    "use_action": False}, {"sim_header": "tightTransf"}], ids=str)  # fmt: skip
def test_every_parameter_of_a_model_has_a_part_and_a_rate(choices: dict):
    model = tiny.model(**choices)
    found = owners(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert {owner.rate for owner in found.values()} <= {"clip", "fusion", "object", "head"}


def test_what_lies_below_the_patches_of_objects_is_a_part_of_its_own():
    below = tiny.model(object_layer=2).part("patches")
    blocks = {name.split("resblocks.")[1].split(".")[0] for name in below if "resblocks" in name}
    assert blocks == {"0"} and "clip.visual.conv1.weight" in below and "clip.visual.proj" not in below
    assert tiny.model(object_fuse="attention").part("patches") == []
