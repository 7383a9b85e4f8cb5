"""Masked tokens: what a prediction sees, and which tokens the loss counts."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from modules.objectives.masked_tokens import MaskedTokens
from tests import tiny


@torch.no_grad()
def test_a_masked_token_is_not_seen_and_the_other_tokens_are():
    model = tiny.model()
    batch = tiny.batch(2, model.config, words=8)
    masked = batch["mlm_mask"]
    for hides, changed in ((True, masked), (False, ~masked & batch["text_mask"])):
        ids = torch.where(changed, (batch["text_ids"] + 1) % 90, batch["text_ids"])
        before = model.objective(MaskedTokens).rows(model.encoded(batch))
        after = model.objective(MaskedTokens).rows(model.encoded({**batch, "text_ids": ids}))
        index = batch["mlm_index"]
        same = torch.isclose(before, after, atol=1e-5).all(-1).flatten()[index]
        assert same.all() if hides else not same.any()


@torch.no_grad()
def test_the_loss_is_the_mean_over_masked_tokens():
    model = tiny.model()
    batch = tiny.batch(3, model.config)
    encoded, objective = model.encoded(batch), model.objective(MaskedTokens)
    rows = objective.rows(encoded)
    logits = model.vocabulary_head(rows, model.clip.token_embedding.weight)
    terms, right = [], []
    for clip, marked in enumerate(batch["mlm_mask"]):
        targets = batch["text_ids"][clip][marked]
        own = logits[clip, : len(targets)]
        terms.append(F.cross_entropy(own, targets, reduction="none"))
        right.append(own.argmax(-1) == targets)
    found = objective.losses(encoded)
    torch.testing.assert_close(found["mlm"], torch.cat(terms).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["mlm_accuracy"], torch.cat(right).float().mean())
