"""One token per trajectory, from the boxes that share its id."""

from __future__ import annotations

import torch

from tests import plain_forms as plain
from tests import tiny
from tests.modules.agreement import assert_same


def test_trajectories_with_shared_keys_equal_repeated_sequences():
    model = tiny.model()
    batch, cfg = tiny.batch(3, model.config), model.config
    tokens = torch.randn(3, cfg.max_frames, cfg.object_count, cfg.vision_width)
    ids = batch["trajectory_ids"]
    fast = model.trajectory_encoder(tokens, batch["box_trajectory"], ids)
    slow = plain.trajectories(model, tokens, batch["box_trajectory"], ids)
    assert_same(fast[ids != 0], slow[ids != 0], model)


def test_trajectory_sees_its_own_boxes_only():
    model = tiny.model()
    batch = tiny.batch(2, model.config, boxes=3)
    tokens = torch.randn(2, model.config.max_frames, model.config.object_count, 64)
    ids = batch["trajectory_ids"]
    before = model.trajectory_encoder(tokens, batch["box_trajectory"], ids)
    changed = tokens + torch.randn(64) * (batch["box_trajectory"] == ids[:, :1, None])[..., None]
    after = model.trajectory_encoder(changed, batch["box_trajectory"], ids)
    used = ids != 0
    assert not torch.allclose(before[:, 0], after[:, 0], atol=1e-3)
    torch.testing.assert_close(before[:, 1:][used[:, 1:]], after[:, 1:][used[:, 1:]])


@torch.no_grad()
def test_a_trajectory_is_the_same_at_any_place_of_the_list_and_with_its_boxes_in_any_order():
    model = tiny.model()
    batch, cfg = tiny.batch(1, model.config, boxes=3), model.config
    tokens, ids = torch.randn(1, cfg.max_frames, cfg.object_count, cfg.vision_width), batch["trajectory_ids"]
    assert ids.shape[1] > 1 and (ids != 0).all()
    before = model.trajectory_encoder(tokens, batch["box_trajectory"], ids)
    flipped = model.trajectory_encoder(tokens.flip(1, 2), batch["box_trajectory"].flip(1, 2), ids.flip(1))
    torch.testing.assert_close(before, flipped.flip(1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, before.flip(1), atol=1e-3)
