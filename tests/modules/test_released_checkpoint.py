"""The released checkpoint's names, sizes and what of it is used."""

from __future__ import annotations

import pytest
import torch

from modules.config import Behaviour
from modules.released_checkpoint import config_from_released, convert, is_released, our_name
from modules.tasks.pretrain import PretrainModel
from tests.golden import DATA, Golden
from tests.golden_data import recipe


def released_state() -> dict[str, torch.Tensor]:
    keys = Golden(DATA / "tiny-seed0").meta["keys"]
    return {k: torch.as_tensor(recipe.weight(k, s, 0)) for k, s in keys.items()}


def test_every_released_key_of_the_full_size_table_is_known():
    keys = list(Golden(DATA / "tiny-seed0").meta["keys"])
    assert all(our_name(key) is not None for key in keys)
    dead = {
        "clip.lm_head.weight",
        "clip.fusion_transformer.resblocks.6.ln_1.bias",
        "obj_proj",
        "clip.object_fusion.conv1.weight",
        "clip.object_fusion.transformer.resblocks.1.ln_1.bias",
        "clip.object_text_fusion_positional_embedding",
    }
    assert all(our_name(key) == "" for key in dead)
    assert our_name("somebody.elses.key") is None


def test_released_state_converts_with_dead_and_unknown_keys_listed():
    state = {**released_state(), "extra.head.weight": torch.zeros(2)}
    assert is_released(state)
    config = config_from_released(state, need_object=True, use_action=True)
    assert (config.object_count, config.num_actions, config.max_frames, config.vision_width) == (10, 4, 12, 64)
    result = convert(state, PretrainModel(config, Behaviour.preset("released")))
    assert result.unknown == ["extra.head.weight"] and "obj_proj" in result.dropped and not result.unused
    without = convert(state, PretrainModel(config_from_released(state), Behaviour.preset("released")))
    assert "clip.object_action" in without.unused


def test_missing_live_key_is_an_error_that_names_it():
    state = released_state()
    config = config_from_released(state, need_object=True, use_action=True)
    del state["clip.fusion_proj"]
    with pytest.raises(ValueError, match="no entry for vocabulary_head.proj"):
        convert(state, PretrainModel(config, Behaviour()))


def test_legacy_layer_norm_names_are_understood():
    state = {k.replace(".ln_final.weight", ".ln_final.gamma"): v for k, v in released_state().items()}
    config = config_from_released(state, need_object=True, use_action=True)
    assert "clip.ln_final.weight" in convert(state, PretrainModel(config, Behaviour())).state
