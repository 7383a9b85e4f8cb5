"""A CLIP with random weights has the names, shapes and start values of OpenAI's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from utils.models.random_clip import PRESETS, ClipSizes, half_weights, random_state_dict, save_archive

SMALL = ClipSizes(32, 8, 64, 2, 48, 128, 3, context_length=20, vocab_size=300)


def test_archive_gives_back_the_state_dict(tmp_path):
    state = random_state_dict(SMALL, seed=1)
    save_archive(state, tmp_path / "sub" / "clip.pt")
    loaded = torch.jit.load(tmp_path / "sub" / "clip.pt").state_dict()
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["clip.pt"]


def test_names_and_shapes_are_openais():
    state = random_state_dict(SMALL)
    assert state["visual.conv1.weight"].shape == (64, 3, 8, 8)
    assert state["visual.positional_embedding"].shape == (17, 64)
    assert state["visual.proj"].shape == (64, 48)
    assert state["text_projection"].shape == (128, 48)
    assert state["positional_embedding"].shape == (20, 128)
    assert state["token_embedding.weight"].shape == (300, 128)
    assert state["transformer.resblocks.2.mlp.c_fc.weight"].shape == (512, 128)
    assert state["visual.transformer.resblocks.1.attn.in_proj_weight"].shape == (192, 64)
    assert "visual.transformer.resblocks.2.ln_1.weight" not in state
    assert (state["input_resolution"], state["context_length"], state["vocab_size"]) == (32, 20, 300)


def test_vit_b_16_has_the_parameters_of_openais_file():
    state = random_state_dict(PRESETS["ViT-B-16"])
    assert sum(value.numel() for value in state.values() if value.is_floating_point()) == 149_620_737
    assert state["visual.positional_embedding"].shape == (197, 768)


def test_initial_values_follow_clips_rule():
    state = random_state_dict(ClipSizes(), seed=0)
    assert state["logit_scale"].item() == pytest.approx(math.log(1 / 0.07))
    assert state["token_embedding.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    attention = state["transformer.resblocks.0.attn.in_proj_weight"]
    assert attention.std().item() == pytest.approx(128**-0.5, rel=0.05)
    projection = state["visual.transformer.resblocks.0.mlp.c_proj.weight"]
    assert projection.std().item() == pytest.approx(128**-0.5 * 8**-0.5, rel=0.05)
    assert torch.equal(state["visual.ln_pre.weight"], torch.ones(128))


def test_embeddings_start_as_many_times_larger_as_asked():
    state = random_state_dict(replace(SMALL, embedding_gain=10))
    plain = random_state_dict(SMALL)
    for name in ("token_embedding.weight", "positional_embedding"):
        torch.testing.assert_close(state[name], plain[name] * 10)
    assert torch.equal(state["visual.positional_embedding"], plain["visual.positional_embedding"])


def test_only_heads_of_another_width_than_openais_are_stated():
    assert "head_width" not in random_state_dict(SMALL)
    assert random_state_dict(replace(SMALL, head_width=16))["head_width"] == 16
    with pytest.raises(ValueError, match="--head_width 48"):
        replace(SMALL, head_width=48)


def test_seed_decides_the_weights():
    one, same, other = (random_state_dict(SMALL, seed)["visual.proj"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_half_precision_leaves_norms_and_embeddings_whole():
    state = half_weights(random_state_dict(SMALL))
    assert state["visual.conv1.weight"].dtype == state["text_projection"].dtype == torch.float16
    assert state["transformer.resblocks.0.attn.in_proj_bias"].dtype == torch.float16
    assert state["transformer.resblocks.0.ln_1.weight"].dtype == torch.float32
    assert state["token_embedding.weight"].dtype == torch.float32
