"""The contrastive loss against its formula, and what it trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from modules.config import Behaviour, ModelConfig
from modules.objectives.base import Heads
from modules.objectives.contrastive import Contrastive, PretrainContrastive, contrastive_loss


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_contrastive_loss_is_half_of_both_directions():
    first, second = logits(3, 3), logits(4, 3)[1:]
    own = torch.arange(3)
    expected = (F.cross_entropy(first, own) + F.cross_entropy(second, own)) / 2
    torch.testing.assert_close(contrastive_loss(first, second), expected)
    assert contrastive_loss(50 * torch.eye(3), 50 * torch.eye(3)) < 1e-6


def parts(kind: type[Contrastive], behaviour: str, **choices: str) -> set[str]:
    return kind(ModelConfig(**choices), Behaviour.preset(behaviour), Heads()).trains({"contrastive"})


def test_it_trains_both_towers_and_in_released_pre_training_the_text_tower_alone():
    everything = {"frames", "text", "similarity", "temperature"}
    assert parts(Contrastive, "intended") == parts(Contrastive, "released") == everything
    assert parts(PretrainContrastive, "intended") == everything
    assert parts(PretrainContrastive, "released") == {"text", "temperature"}


def test_a_tight_header_has_no_logit_scale():
    assert "temperature" not in parts(Contrastive, "intended", sim_header="tightTransf")
