"""Initial values, and what is taken over from CLIP."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor

from modules.backbone import Backbone
from modules.config import Behaviour
from modules.initialise import config_from_clip, initialise, load_clip, resize_positions
from modules.tasks.pretrain import PretrainModel
from tests import tiny


def clip_state(model: Backbone) -> dict[str, torch.Tensor]:
    """The model's towers under CLIP's names."""
    return {k.removeprefix("clip."): v.clone() for k, v in model.state_dict().items() if k.startswith("clip.")}


def test_sizes_come_from_the_clip_state_dict():
    assert config_from_clip(clip_state(tiny.model()), **{k: v for k, v in tiny.SIZES.items() if k not in (
        "image_resolution", "patch_size", "vision_width", "vision_layers", "embed_dim", "context_length", "vocab_size",
        "text_width", "text_layers")}) == tiny.config()  # fmt: skip


def test_clip_fills_its_towers_and_what_starts_from_them():
    source, model = tiny.model(seed=1), tiny.model(seed=2)
    done = load_clip(model, clip_state(source))
    state, clip = model.state_dict(), clip_state(source)
    assert torch.equal(state["clip.visual.conv1.weight"], clip["visual.conv1.weight"])
    assert torch.equal(state["fusion.blocks.2.mlp.c_fc.weight"], clip["transformer.resblocks.2.mlp.c_fc.weight"])
    for ours, theirs in (
        ("trajectory_encoder.block", 2),
        ("action_encoder.blocks.0", 2),
        ("action_encoder.blocks.1", 3),
    ):
        key = "attn.in_proj_weight"
        assert torch.equal(state[f"{ours}.{key}"], clip[f"visual.transformer.resblocks.{theirs}.{key}"])
    assert torch.equal(state["action_encoder.proj"], clip["visual.proj"])
    rows = len(clip["positional_embedding"])
    assert torch.equal(state["fusion.positional_embedding"][:rows], clip["positional_embedding"])
    assert "vocabulary_head.proj" not in done and "object_encoder.slot_embedding" not in done


def test_clip_never_overwrites_what_a_checkpoint_gave():
    source, model = tiny.model(seed=1), tiny.model(seed=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    given = set(before) - {"clip.ln_final.weight"}
    assert load_clip(model, clip_state(source), given) == ["clip.ln_final.weight"]
    after = model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in given)


def test_clip_of_other_sizes_is_an_error_naming_both_shapes():
    with pytest.raises(ValueError, match=r"token_embedding.weight has shape \(100, 64\), the model needs \(90, 64\)"):
        load_clip(tiny.model(vocab_size=90), clip_state(tiny.model()))


def test_no_clip_is_an_error():
    with pytest.raises(ValueError, match="not a CLIP ViT state dict.*visual.conv1.weight"):
        config_from_clip({"layer1.weight": torch.zeros(1)})


def test_3d_patches_start_as_the_2d_ones():
    flat = tiny.model(need_object=False, use_action=False)
    deep = tiny.model(need_object=False, use_action=False, linear_patch="3d")
    load_clip(deep, clip_state(flat))
    video = tiny.batch(2, flat.config)["video"]
    torch.testing.assert_close(deep.clip.visual(video).frame_features, flat.clip.visual(video).frame_features)


def test_initial_values_follow_the_released_code():
    torch.manual_seed(0)
    model = PretrainModel(tiny.config(), Behaviour())
    initialise(model)
    assert model.object_encoder.slot_embedding.abs().max() == 0
    assert abs(model.fusion.blocks[0].mlp.c_fc.weight.std().item() - 0.02) < 0.002
    assert abs(model.vocabulary_head.proj.std().item() - 64**-0.5) < 0.01
    assert abs(model.action_encoder.queries.std().item() - 64**-0.5) < 0.03
    assert abs(model.fusion.positional_embedding.std().item() - 0.01) < 0.001
    assert model.vocabulary_head.bias.abs().max() == 0
    assert all(torch.isfinite(p).all() for p in model.parameters())


# -- tables of positions


def of_open_clip(table: Tensor, grid: int) -> Tensor:
    """What open_clip makes of a table for a picture of another size."""
    state = {"visual.positional_embedding": table.clone()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=(grid, grid))))
    return state["visual.positional_embedding"]


@pytest.mark.parametrize(("before", "grid"), [(14, 24), (24, 14), (7, 14), (16, 24), (2, 3), (3, 1), (1, 4), (5, 5)])
def test_positions_are_interpolated_as_open_clip_does(before: int, grid: int):
    table = torch.randn(1 + before**2, 6)
    found = resize_positions(table, grid)
    assert found.shape == (1 + grid**2, 6) and torch.equal(found[0], table[0]), "[CLS] has no place in the picture"
    torch.testing.assert_close(found, of_open_clip(table, grid), rtol=1e-6, atol=1e-6)


def test_a_table_of_its_own_size_is_returned_as_it_is():
    table = torch.randn(17, 6)
    assert resize_positions(table, 4) is table


def test_positions_in_half_precision_are_interpolated_in_full():
    table = torch.randn(17, 6).half()
    found = resize_positions(table, 6)
    assert found.dtype == torch.float32 and torch.equal(found, resize_positions(table.float(), 6))


def test_a_smooth_table_stays_smooth():
    rows = torch.arange(8.0)
    grid = torch.stack(torch.meshgrid(rows, rows, indexing="ij"), dim=-1).flatten(0, 1)
    found = resize_positions(torch.cat([torch.zeros(1, 2), grid]), 16)[1:].view(16, 16, 2)
    inner = found[4:12, 4:12]
    torch.testing.assert_close(inner[1:, :, 0] - inner[:-1, :, 0], torch.full((7, 8), 0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(inner[:, 1:, 1] - inner[:, :-1, 1], torch.full((8, 7), 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize("shape", [(0, 6), (1, 6), (3, 6), (16, 6), (17,), (17, 6, 1), ()], ids=str)
def test_a_table_of_no_square_picture_is_an_error(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="is not that of a square picture"):
        resize_positions(torch.zeros(shape), 4)


def test_a_patch_layer_over_three_frames_is_told_by_its_shape():
    deep = tiny.model(need_object=False, use_action=False, linear_patch="3d")
    words = {"max_words": 12}
    assert config_from_clip(clip_state(deep), **words).linear_patch == "3d"
    assert config_from_clip(clip_state(deep), **words, linear_patch="2d").linear_patch == "2d"
    assert config_from_clip(clip_state(tiny.model()), **words).linear_patch == "2d"
