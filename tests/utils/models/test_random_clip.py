"""A CLIP with random weights has the names, shapes and start values of OpenAI's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from modules.config import ModelConfig
from modules.module_clip import CLIP
from utils.models.clip_description import from_table
from utils.models.random_clip import (
    PRESETS,
    ClipSizes,
    half_weights,
    is_random_archive,
    random_state_dict,
    save_archive,
)

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


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "demo"])
def test_presets_are_the_models_of_open_clip_s_table(name: str):
    sizes = PRESETS[name]
    stated = from_table(name if sizes.activation == "gelu" else f"{name}-quickgelu")
    assert {size: getattr(sizes, size) for size in stated.sizes} == stated.sizes
    assert (sizes.head_width, sizes.text_head_width or sizes.head_width) == (stated.head_width, stated.text_head_width)
    assert sizes.activation == stated.activation and len(PRESETS) == 6


def test_the_largest_preset_has_the_parameters_of_open_clip_s_vit_h_14():
    sizes = PRESETS["ViT-H-14"]
    with torch.device("meta"):
        config = ModelConfig(**{name: getattr(sizes, name) for name in from_table("ViT-H-14").sizes})
        assert sum(parameter.numel() for parameter in CLIP(config).parameters()) == 986_109_441


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


def test_text_heads_are_stated_where_they_are_others():
    assert "text_head_width" not in random_state_dict(replace(SMALL, head_width=16, text_head_width=16))
    for widths in ((64, 32), (16, 64)):
        state = random_state_dict(replace(SMALL, head_width=widths[0], text_head_width=widths[1]))
        assert (state.get("head_width", 64), state["text_head_width"]) == widths
    replace(SMALL, vision_width=160, head_width=80, text_head_width=64)
    for wrong in (48, 0, -1):
        with pytest.raises(ValueError, match="--text_(width|head_width)"):
            replace(SMALL, text_head_width=wrong)


def test_the_activation_is_stated():
    assert random_state_dict(SMALL)["quick_gelu"] == 1
    assert random_state_dict(replace(SMALL, activation="gelu"))["quick_gelu"] == 0
    with pytest.raises(ValueError, match="--activation relu: choose one of gelu, quick_gelu"):
        replace(SMALL, activation="relu")


def test_archives_of_before_are_known_by_their_class_and_untrained_norms():
    state = random_state_dict(SMALL)
    ours = "__torch__.torch.nn.modules.module.Module"
    assert is_random_archive(ours, state)
    assert is_random_archive("__torch__.torch.nn.modules.module.___torch_mangle_7.Module", state)
    assert not is_random_archive("__torch__.multimodal.model.multimodal_transformer.Multimodal", state)
    assert not is_random_archive(f"{ours}List", state)
    for name, value in (("ln_final.weight", torch.full((128,), 1.01)), ("ln_final.bias", torch.full((128,), 0.01))):
        assert not is_random_archive(ours, {**state, name: value})
    for name in ("ln_final.weight", "ln_final.bias", "input_resolution"):
        assert not is_random_archive(ours, {key: value for key, value in state.items() if key != name})


def test_seed_decides_the_weights():
    one, same, other = (random_state_dict(SMALL, seed)["visual.proj"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_half_precision_leaves_norms_and_embeddings_whole():
    state = half_weights(random_state_dict(SMALL))
    assert state["visual.conv1.weight"].dtype == state["text_projection"].dtype == torch.float16
    assert state["transformer.resblocks.0.attn.in_proj_bias"].dtype == torch.float16
    assert state["transformer.resblocks.0.ln_1.weight"].dtype == torch.float32
    assert state["token_embedding.weight"].dtype == torch.float32
