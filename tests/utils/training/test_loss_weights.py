"""How much each loss counts, by epoch."""

from __future__ import annotations

import pytest

from tests.utils.settings.test_parser import LEAST
from utils.settings.groups import RunSettings
from utils.settings.parser import parse_arguments
from utils.training.loss_weights import chosen_weights, contrastive_schedule


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


def test_losses_weigh_1_unless_said_otherwise():
    losses = ("vtm", "mlm", "plm")
    assert chosen_weights(RunSettings(), losses) == {"vtm": 1.0, "mlm": 1.0, "plm": 1.0}
    chosen = chosen_weights(RunSettings(loss_weights={"plm": 0.0, "vtm": 2.5}), losses)
    assert chosen == {"vtm": 2.5, "mlm": 1.0, "plm": 0.0} and list(chosen) == list(losses)


def test_a_loss_that_the_model_does_not_have_is_an_error_that_names_those_it_has():
    settings = RunSettings(loss_weights={"vtn": 1.0, "mlm": 1.0, "ple": 0.0})
    with pytest.raises(ValueError, match="--loss_weights: no loss ple, vtn here; there are vtm, mlm"):
        chosen_weights(settings, ("vtm", "mlm"))


def test_the_contrastive_loss_is_off_from_the_first_epoch_where_it_has_none():
    schedule = contrastive_schedule(RunSettings(contrastive_epochs=0), "intended")
    assert [schedule(epoch) for epoch in range(2)] == [0, 0]
