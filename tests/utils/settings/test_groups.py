"""The settings that belong to no lower floor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from modules.config import ModelConfig
from tests.utils.settings.test_parser import LEAST
from utils.settings.arguments import Arguments
from utils.settings.fields import flags_of, flat_values
from utils.settings.groups import UNSUPPORTED, WITHOUT_EFFECT, DataSettings, TrainSettings, UseSettings
from utils.settings.parser import parse_arguments


def test_label_map_default_has_no_stray_quote():
    assert parse_arguments(LEAST).labelmap_path == "data/object_feature/label_map.json"


def test_every_flag_is_declared_once_and_released_ones_without_effect_are_no_settings():
    names = Counter(flag.name for flag in flags_of(Arguments))
    assert set(names.values()) == {1}
    assert not set(names) & {*WITHOUT_EFFECT, *UNSUPPORTED} and not set(WITHOUT_EFFECT) & set(UNSUPPORTED)


def test_what_a_model_saw_of_a_clip_is_known_of_the_settings_for_use_alone():
    """A trained model follows these settings of its run; places of data and of the run are none of them."""
    seen = {flag.name for flag in flags_of(UseSettings) if flag.field.metadata["seen"]}
    assert {"feature_framerate", "slice_framepos", "trajectory", "rect_order", "labelmap_path", "tagger"} <= seen
    assert not seen & {"object_path", "init_model", "device", "seed", "num_thread_reader", "train_frame_order"}
    for kind in (DataSettings, TrainSettings):
        assert not any(flag.field.metadata["seen"] for flag in flags_of(kind) if flag.owner is kind)


@pytest.mark.parametrize(("batch_size", "parts", "micro"), [(8, 1, 8), (8, 2, 4), (7, 2, 3)])
def test_a_batch_is_divided_by_the_parts_of_an_update(batch_size: int, parts: int, micro: int):
    assert TrainSettings(batch_size=batch_size, gradient_accumulation_steps=parts).micro_batch_size == micro


def test_settings_follow_the_model_that_was_built():
    settings = UseSettings()
    assert settings.model.max_frames is None
    settings.follow(ModelConfig(max_frames=3, need_object=True, sim_header="seqTransf", header_layers=2))
    flat = flat_values(settings)
    assert (flat["max_frames"], flat["need_object"], flat["sim_header"]) == (3, True, "seqTransf")
    assert flat["cross_num_hidden_layers"] == 2 and flat["fusion_layers"] == ModelConfig.fusion_layers


@pytest.mark.parametrize("values", [{"precision": "fp8"}, {"batch_size_val": 0}, {"on_bad_video": "eror"}], ids=str)
def test_settings_for_use_are_checked_too(values: dict[str, Any]):
    """Nobody parses a command line for them."""
    with pytest.raises(ValueError, match=f"--{next(iter(values))} .*: (choose one of|must be at least)"):
        UseSettings(**values)
