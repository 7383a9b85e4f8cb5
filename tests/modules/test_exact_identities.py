"""Each fast form against its plain form (tests/plain_forms.py), values and gradients."""

import pytest
import torch

from modules.module_clip import ObjectTokens
from tests import plain_forms as plain
from tests import tiny
from tests.plain_forms import PlainPretrainModel


def both(**choices):
    fast = tiny.model(**choices)
    slow = tiny.model(PlainPretrainModel, **choices)
    slow.load_state_dict(fast.state_dict())
    return fast, slow


def gradients(model, value):
    model.zero_grad()
    value.square().sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def assert_same(fast, slow, model, other=None):
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    a, b = gradients(model, fast), gradients(other or model, slow)
    assert a.keys() == b.keys() and a
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4 * float(b[name].abs().max() + 1e-6), msg=name)


@pytest.mark.parametrize("behaviour", ["intended", "released"])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"object_layer": 2},
        {"object_fuse": "attention", "object_layer": 4},
        {"object_fuse": "attention", "object_layer": 3},
        {"object_fuse": "attention", "object_layer": -2},
        {"action_only": True},
        {"use_action": False},
        {"need_object": False, "use_action": False},
        {"linear_patch": "3d"},
    ],
    ids=str,
)
def test_whole_model_equals_plain_forms(choices, behaviour):
    fast, slow = both(behaviour=behaviour, **choices)
    batch = tiny.batch(4, fast.config)
    a, b = fast(batch), slow(batch)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)
    tiny.total(a).backward()
    tiny.total(b).backward()
    for (name, p), (_, q) in zip(fast.named_parameters(), slow.named_parameters(), strict=True):
        left = torch.zeros_like(p) if p.grad is None else p.grad
        right = torch.zeros_like(q) if q.grad is None else q.grad
        torch.testing.assert_close(left, right, rtol=1e-3, atol=2e-5 + 1e-4 * float(right.abs().max()), msg=name)


def test_next_token_loss_one_pass_equals_loop():
    model = tiny.model()
    batch = tiny.batch(3, model.config)
    context = model.fusion.context(model.encode_video(batch))
    text = model.encode_text(batch["text_ids"]).detach()
    rows = torch.stack(plain.next_token(model, context, batch["text_ids"]), dim=1)
    keep = batch["text_mask"][:, 1:]
    context = model.fusion.context(model.encode_video(batch))
    assert_same(model.fusion.next_token(context, text)[keep], rows[keep], model)


def test_last_visual_block_for_cls_rows_equals_all_rows():
    model = tiny.model(need_object=False, use_action=False)
    video = tiny.batch(2, model.config)["video"]
    visual = model.clip.visual
    assert_same(visual(video).frame_features, plain.vision_tower(visual, video, None).frame_features, model)


def test_first_roi_layer_before_pooling_equals_after():
    model = tiny.model()
    batch, cfg = tiny.batch(3, model.config), model.config
    patches = torch.randn(3 * cfg.max_frames, cfg.grid**2, cfg.vision_width)
    fast = model.object_encoder(patches, batch["boxes"], batch["box_index"])
    slow = plain.object_encoder(model.object_encoder, patches, batch["boxes"])
    assert torch.equal(fast.is_padding, slow.is_padding) and fast.is_padding.any()
    assert_same(fast.tokens, slow.tokens, model)


def test_trajectories_with_shared_keys_equal_repeated_sequences():
    model = tiny.model()
    batch, cfg = tiny.batch(3, model.config), model.config
    tokens = torch.randn(3, cfg.max_frames, cfg.object_count, cfg.vision_width)
    ids = batch["trajectory_ids"]
    fast = model.trajectory_encoder(tokens, batch["box_trajectory"], ids)
    slow = plain.trajectories(model, tokens, batch["box_trajectory"], ids)
    assert_same(fast[ids != 0], slow[ids != 0], model)


def test_last_action_block_for_first_row_equals_all_rows():
    model = tiny.model()
    batch, cfg = tiny.batch(3, model.config), model.config
    early = torch.randn(3 * cfg.max_frames, cfg.grid**2 + 1, cfg.vision_width)
    tokens = torch.randn(3, cfg.max_frames, cfg.object_count, cfg.vision_width)
    objects = ObjectTokens(tokens, batch["boxes"][..., 0] == -1)
    assert_same(model.action_encoder(early, objects), plain.actions(model, early, objects), model)


def test_matching_scores_row_by_row_equal_diagonal_of_matrix():
    for behaviour in ("intended", "released"):
        model = tiny.model(behaviour=behaviour)
        rows, keep = torch.randn(6, 2, 64), (torch.rand(6, 2, 2, 64) > 0.5).float()
        head = model.matching_head
        assert_same(head(rows, keep), plain.matching_scores(head, rows, keep), model)


def test_vocabulary_head_from_the_left_equals_right():
    model = tiny.model()
    hidden, embedding = torch.randn(5, 64), model.clip.token_embedding.weight
    head = model.vocabulary_head
    assert_same(head(hidden, embedding), plain.vocabulary_logits(head, hidden, embedding), model)


def test_last_fusion_layer_for_read_rows_equals_all_rows():
    model = tiny.model()
    batch = tiny.batch(3, model.config)
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    lengths = batch["text_lengths"]
    fast = model.matching_rows(video, text, batch["text_mask"], lengths)
    context = model.fusion.context(video)
    rows = plain.fusion(model.fusion, context, text, batch["text_mask"], lengths - 1)
    index = torch.stack([torch.full_like(lengths, model.fusion.mean_row), context.tokens.shape[1] + lengths - 1], dim=1)
    slow = rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def test_trimmed_batch_equals_untrimmed():
    model = tiny.model()
    items = [tiny.sample(i, model.config, words=3 + i, boxes=2) for i in range(3)]
    trimmed = tiny.collate(items)
    full = dict(trimmed)
    for name in ("text_ids", "text_mask", "mlm_mask", "noun_mask", "verb_mask", "trajectory_ids"):
        full[name] = torch.stack([item[name] for item in items])
    assert full["text_ids"].shape[1] > trimmed["text_ids"].shape[1]
    assert full["trajectory_ids"].shape[1] > trimmed["trajectory_ids"].shape[1]
    columns = full["text_ids"].shape[1] - 1
    old = trimmed["text_ids"].shape[1] - 1
    full["plm_index"] = trimmed["plm_index"] // old * columns + trimmed["plm_index"] % old
    a, b = model(trimmed), model(full)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)


def test_grad_checkpoint_changes_no_number():
    model = tiny.model()
    batch = tiny.batch(3, model.config)
    plain_total = tiny.total(model(batch))
    plain_total.backward()
    reference = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.set_grad_checkpoint(True)
    again = tiny.total(model(batch))
    again.backward()
    torch.testing.assert_close(plain_total, again)
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, reference[name], msg=name)
