"""The attention that the action encoder reports is the attention that it computes with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.action_encoder import ActionEncoder
from modules.module_clip import ObjectTokens
from tests import plain_forms as plain
from tests import tiny
from tests.modules.agreement import assert_same


@pytest.fixture
def encoder() -> ActionEncoder:
    return tiny.model(num_actions=3).action_encoder


def inputs(encoder: ActionEncoder, batch: int = 2, frames: int = 3, slots: int = 4) -> tuple[Tensor, ObjectTokens]:
    """Tokens of a 4 x 4 grid; some slots empty, in one frame all of them."""
    draw = torch.Generator().manual_seed(0)
    width = encoder.queries.shape[1]
    early = torch.randn(batch * frames, 17, width, generator=draw)
    is_padding = torch.rand(batch, frames, slots, generator=draw) < 0.4
    is_padding[0, 1] = True
    return early, ObjectTokens(torch.randn(batch, frames, slots, width, generator=draw), is_padding)


def test_source_weights_reproduce_the_pooled_tokens(encoder: ActionEncoder):
    early, objects = inputs(encoder)
    encoder.queries.data.mul_(20)  # drawn so small that the attention would be nearly even
    weights = encoder.source_weights(early, objects)
    sources, visible = encoder._sources(early, objects)
    assert weights.shape == (6, 3, 16 + 4) and weights.std() > 0.05
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, 3))
    torch.testing.assert_close(weights @ sources, encoder._pool(sources, visible))
    assert (weights[:, :, 16:][objects.is_padding.flatten(0, 1)[:, None].expand(-1, 3, -1)] == 0).all()
    assert (weights[:, :, 16:][~objects.is_padding.flatten(0, 1)[:, None].expand(-1, 3, -1)] > 0).all()


def test_frame_weights_are_those_of_the_row_that_becomes_the_action(encoder: ActionEncoder):
    early, objects = inputs(encoder)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = encoder.frame_weights(early, objects)
    assert weights.shape == (2, 3, 4) and weights.std() > 0.05
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    seen: dict[str, Tensor] = {}
    block = encoder.blocks[1]
    attend = block.attn.attend

    def record(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, is_causal: bool = False) -> Tensor:
        scores = queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5
        seen["weights"] = scores.softmax(-1)[:, :, 0].mean(1)
        return attend(queries, keys, values, mask, is_causal)

    block.attn.attend = record
    encoder(early, objects)
    torch.testing.assert_close(weights.flatten(0, 1), seen["weights"])


def test_last_action_block_for_first_row_equals_all_rows():
    model = tiny.model()
    batch, cfg = tiny.batch(3, model.config), model.config
    early = torch.randn(3 * cfg.max_frames, cfg.grid**2 + 1, cfg.vision_width)
    tokens = torch.randn(3, cfg.max_frames, cfg.object_count, cfg.vision_width)
    objects = ObjectTokens(tokens, batch["boxes"][..., 0] == -1)
    assert_same(model.action_encoder(early, objects), plain.actions(model, early, objects), model)
