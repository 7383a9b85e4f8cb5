"""Multiple choice with objects, which has a matching head, and without."""

from __future__ import annotations

import torch

from tests.modules.objectives.test_choices import WITHOUT_OBJECTS, choice_batch, make_model


@torch.no_grad()
def test_matching_changes_scores_and_without_objects_there_is_none():
    model = make_model()
    batch = choice_batch(range(4), model)
    with_matching, without = (model.score_options(batch, use_matching=flag) for flag in (True, False))
    assert bool((with_matching.argsort() != without.argsort()).any())
    bare = make_model(**WITHOUT_OBJECTS)
    assert bare.available_losses == ("contrastive",)
    assert not any(n.startswith(("fusion.", "matching_head.")) for n, _ in bare.named_parameters())
    batch = choice_batch(range(4), bare)
    assert torch.equal(bare.score_options(batch), bare.score_options(batch, use_matching=False))
