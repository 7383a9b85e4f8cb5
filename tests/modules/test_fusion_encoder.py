"""Layout, positions and masks of the fusion encoder, and its passes against their plain forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modules.config import Behaviour
from modules.fusion_encoder import FusionEncoder, VideoTokens, join
from modules.objectives.captions import Captions
from modules.tasks.captioning import CaptionModel
from tests import plain_forms as plain
from tests import tiny
from tests.modules.agreement import assert_same

WITHOUT_OBJECTS = {"need_object": False, "use_action": False}


def numbered(behaviour: str = "intended", **choices: Any) -> FusionEncoder:
    """An encoder whose position row i holds nothing but i."""
    encoder = FusionEncoder(tiny.config(**choices), Behaviour.preset(behaviour))
    with torch.no_grad():
        encoder.positional_embedding.copy_(torch.arange(float(len(encoder.positional_embedding)))[:, None])
    return encoder


def empty_clips(trajectories: int | None = None, actions: int | None = None) -> VideoTokens:
    """One clip of three frames whose tokens are all zero."""
    paths, mask, moves = None, None, None
    if trajectories is not None:
        paths, mask = torch.zeros(1, trajectories, 64), torch.ones(1, trajectories, dtype=torch.bool)
    if actions is not None:
        moves = torch.zeros(1, actions, 64)
    return VideoTokens(torch.zeros(1, 3, 64), torch.ones(1, 3, dtype=torch.bool), paths, mask, moves)


def random_clips(model: Any, count: int = 3) -> VideoTokens:
    """Clips with an invalid last frame and an unused last trajectory."""
    draw, cfg = torch.Generator().manual_seed(0), model.config
    frames = torch.randn(count, cfg.max_frames, cfg.embed_dim, generator=draw)
    frame_mask = torch.arange(cfg.max_frames).expand(count, -1) < cfg.max_frames - 1
    paths = torch.randn(count, 4, cfg.embed_dim, generator=draw)
    moves = torch.randn(count, cfg.num_actions, cfg.embed_dim, generator=draw)
    return VideoTokens(frames, frame_mask, paths, torch.arange(4).expand(count, -1) < 3, moves)


@pytest.mark.parametrize(
    ("choices", "clip", "context", "text"),
    [
        ({}, (8, 2), [0, 1, 2, 0, 12, 13, 4, 5, 6, 7, 8, 9, 10, 11], 14),
        ({}, (2, 2), [0, 1, 2, 0, 12, 13, 4, 5], 14),
        ({"use_action": False}, (8, None), [0, 1, 2, 0, 4, 5, 6, 7, 8, 9, 10, 11], 12),
        ({"action_only": True}, (None, 2), [0, 1, 2, 0, 4, 5], 6),
        (WITHOUT_OBJECTS, (None, None), [0, 1, 2, 0], 4),
    ],
    ids=["all parts", "trimmed", "no actions", "no trajectories", "no objects"],
)
def test_positions_are_those_of_the_full_layout(choices, clip, context, text):
    """Three frames, their mean without a position, eight trajectories, two actions, text."""
    encoder = numbered(**choices)
    assert encoder.context(empty_clips(*clip)).tokens[0, :, 0].tolist() == context
    assert encoder.text_positions(2)[:, 0].tolist() == [text, text + 1]
    assert encoder.mean_row == 3


def test_frames_may_go_without_positions_as_the_only_part():
    found = numbered().context(empty_clips(1, 2), frame_positions=False).tokens[0, :, 0]
    assert found.tolist() == [0, 0, 0, 0, 12, 13, 4]


def test_the_end_token_of_each_text_has_no_position():
    encoder, mask = numbered(**WITHOUT_OBJECTS), torch.ones(2, 4, dtype=torch.bool)
    placed = encoder.project_text(torch.zeros(2, 4, 64), mask, torch.tensor([1, 3])).tokens
    assert placed[..., 0].tolist() == [[4, 0, 6, 7], [4, 5, 6, 0]]


def test_the_mean_is_that_of_valid_frames():
    clip = empty_clips()._replace(
        frames=torch.tensor([1.0, 3.0, 50.0])[None, :, None].expand(1, 3, 64),
        frame_mask=torch.tensor([[True, True, False]]),
    )
    encoder = numbered(**WITHOUT_OBJECTS)
    assert encoder.context(clip).tokens[0, 3].unique().tolist() == [2]
    none = clip._replace(frame_mask=torch.zeros(1, 3, dtype=torch.bool))
    assert encoder.context(none).tokens[0, 3].unique().tolist() == [0]


@pytest.mark.parametrize(
    ("behaviour", "mask"), [("intended", [True, False, True, True]), ("released", [True, True, False, True])]
)
def test_released_frames_are_masked_by_the_frame_before(behaviour: str, mask: list[bool]):
    clip = empty_clips()._replace(frame_mask=torch.tensor([[True, False, True]]))
    assert numbered(behaviour, **WITHOUT_OBJECTS).context(clip).mask[0].tolist() == mask


def test_a_hidden_clip_shows_its_trajectories_alone():
    clip = empty_clips(2, 2).select(torch.tensor([0, 0]))
    mask = numbered().context(clip, hidden=torch.tensor([False, True])).mask
    assert mask.tolist() == [[True] * 8, [False] * 6 + [True] * 2]


@torch.no_grad()
def test_what_is_masked_changes_no_row_that_is_read():
    model = tiny.model()
    clips, text = random_clips(model), torch.randn(3, 6, 64)
    lengths = torch.tensor([6, 4, 3])
    text_mask = torch.arange(6) < lengths[:, None]
    noise = clips.apply(lambda part: torch.randn(part.shape))  # a constant would be lost in the layer norms
    other = clips._replace(
        frames=torch.where(clips.frame_mask[..., None], clips.frames, noise.frames),
        trajectories=torch.where(clips.trajectory_mask[..., None], clips.trajectories, noise.trajectories),
    )
    other_text = torch.where(text_mask[..., None], text, torch.randn(text.shape))
    before = model.fusion.matching_rows(clips, text, text_mask, lengths)
    torch.testing.assert_close(
        before, model.fusion.matching_rows(other, other_text, text_mask, lengths), rtol=1e-4, atol=1e-5
    )
    for part in ("frames", "trajectories", "actions"):
        seen = model.fusion.matching_rows(clips._replace(**{part: getattr(noise, part)}), text, text_mask, lengths)
        assert not torch.isclose(before, seen, atol=1e-3).all(-1).any(), part


@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_prepared_pairs_have_the_rows_of_the_whole_pass(layers: int):
    model = tiny.model(fusion_layers=layers)
    clips, text, lengths = random_clips(model), torch.randn(2, 6, 64), torch.tensor([6, 4])
    mask = torch.arange(6) < lengths[:, None]
    of_clip, of_text = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 1, 0, 1])
    context = model.fusion.project_context(model.fusion.context(clips))
    texts = model.fusion.project_text(text, mask, lengths - 1)
    size = context.tokens.shape[1]
    found = model.fusion.pair_rows(context.select(of_clip, size), texts.select(of_text, 6), lengths[of_text] - 1)
    expected = model.fusion.matching_rows(clips.select(of_clip), text[of_text], mask[of_text], lengths[of_text])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_last_fusion_layer_for_read_rows_equals_all_rows():
    model = tiny.model()
    batch = tiny.batch(3, model.config)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    lengths = batch["text_lengths"]
    fast = model.fusion.matching_rows(video, text, batch["text_mask"], lengths)
    context = model.fusion.context(video)
    rows = plain.fusion(model.fusion, context, text, batch["text_mask"], lengths - 1)
    index = torch.stack([torch.full_like(lengths, model.fusion.mean_row), context.tokens.shape[1] + lengths - 1], dim=1)
    slow = rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def test_next_token_loss_one_pass_equals_loop():
    model = tiny.model()
    batch = tiny.batch(3, model.config)
    context = model.fusion.context(model.encode_video(batch))
    text = model.encode_text(batch["text_ids"]).detach()
    rows = torch.stack(plain.next_token(model, context, batch["text_ids"]), dim=1)
    keep = batch["text_mask"][:, 1:]
    context = model.fusion.context(model.encode_video(batch))
    assert_same(model.fusion.next_token(context, text)[keep], rows[keep], model)


@torch.no_grad()
def test_hidden_samples_do_not_depend_on_frames_and_actions_and_others_do():
    model = tiny.model(CaptionModel).eval()
    batch = tiny.batch(6, model.config, boxes=2)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    other = video._replace(frames=torch.randn_like(video.frames), actions=torch.randn_like(video.actions))
    hidden = torch.tensor([True, False] * 3)
    before, after = (model.objective(Captions).rows(model.fusion, tokens, text, hidden) for tokens in (video, other))
    assert torch.allclose(before[hidden], after[hidden], atol=1e-6)
    assert not torch.isclose(before[~hidden], after[~hidden], atol=1e-3).all(-1).any()
    moved = video._replace(trajectories=torch.randn_like(video.trajectories))
    assert (
        not torch.isclose(
            before[hidden], model.objective(Captions).rows(model.fusion, moved, text, hidden)[hidden], atol=1e-3
        )
        .all(-1)
        .any()
    )


def test_joined_batches_are_padded_to_the_longest_list_of_trajectories():
    first, second = empty_clips(1, 2), empty_clips(3, 2)
    both = join([first._replace(frames=first.frames + 1), second._replace(trajectories=second.trajectories + 2)])
    assert both.frames[:, 0, 0].tolist() == [1, 0]
    assert both.trajectories[..., 0].tolist() == [[0, 0, 0], [2, 2, 2]]
    assert both.trajectory_mask.tolist() == [[True, False, False], [True, True, True]]
    assert both.actions.shape == (2, 2, 64)
    assert join([empty_clips(), empty_clips()])[2:] == (None,) * 5


def test_clips_are_selected_in_every_part():
    model = tiny.model()
    clips, index = random_clips(model), torch.tensor([2, 0, 2])
    for part, whole in zip(clips.select(index), clips, strict=True):
        assert (part is whole is None) or torch.equal(part, whole[index])
    assert empty_clips().select(torch.tensor([0, 0]))[2:] == (None,) * 5
