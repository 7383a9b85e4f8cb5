"""Settings and their ranges, choices over a checkpoint, and sizes that contradict each other."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pytest

from modules.config import (
    PIXEL_MEAN,
    PIXEL_STD,
    UNSTATED,
    Behaviour,
    ModelChoices,
    ModelConfig,
    check_settings,
    from_dict,
    setting,
)
from tests import tiny


@dataclass
class Group:
    """One setting of every kind."""

    kind: str | None = setting("a", "choices", choices=("a", "b"))
    rate: float | None = setting(0.5, "bounds", minimum=0, maximum=1)
    size: float | None = setting(1, "an open bound", above=0, flag="the_size")
    weights: dict[str, float] = setting({"vtm": 1.0}, "a dictionary")
    whole: int = setting(1, "a whole number")
    plain: int = -5


def test_bounds_themselves_are_allowed_and_nothing_always():
    for rate in (0, 1):
        check_settings(Group(rate=rate))
    check_settings(Group(kind=None, rate=None, size=None))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "c"}, "--kind c: choose one of a, b"),
        ({"rate": -0.1}, "--rate -0.1: must be at least 0"),
        ({"rate": 1.1}, "--rate 1.1: must be at most 1"),
        ({"rate": float("nan")}, "--rate nan: must be a number or null"),
        ({"rate": "0.5"}, "--rate '0.5': must be a number or null"),
        ({"rate": [1]}, r"--rate \[1\]: must be a number or null"),
        ({"rate": True}, "--rate True: must be a number or null"),
        ({"size": 0}, "--the_size 0: must be above 0"),
        ({"size": float("inf")}, "--the_size inf: must be a number or null"),
        ({"kind": 5}, "--kind 5: must be text or null"),
        ({"weights": {"vtm": None}}, "--weights None: must be a number"),
        ({"weights": None}, r"--weights None: must be a dictionary of numbers"),
        ({"whole": None}, "--whole None: must be a whole number"),
        ({"whole": 1.5}, "--whole 1.5: must be a whole number"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_an_error_that_names_the_flag(values: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_settings(Group(**values))


def test_a_dictionary_is_not_shared_between_instances():
    first, second = Group(), Group()
    first.weights["mlm"] = 2.0
    assert second.weights == {"vtm": 1.0} == Group().weights


def test_what_is_known_of_a_setting_is_kept():
    known = {field.name: field.metadata for field in dataclasses.fields(Group)}
    assert known["kind"]["help"] == "choices" and known["kind"]["choices"] == ("a", "b")
    assert known["size"]["flag"] == "the_size" and known["rate"]["flag"] is None
    assert not known["kind"]["seen"] and not known["kind"]["of_tensors"] and not known["plain"]
    of_tensors = {field.name for field in dataclasses.fields(ModelChoices) if field.metadata["of_tensors"]}
    assert of_tensors == {"activation", "fusion_layers", "linear_patch"}


def test_choices_are_fields_of_the_configuration():
    chosen, sizes = ({field.name for field in dataclasses.fields(cls)} for cls in (ModelChoices, ModelConfig))
    assert chosen < sizes


def test_given_is_what_was_chosen():
    assert ModelChoices().given() == {
        "dropout": 0.5,
        "need_object": False,
        "use_action": False,
        "action_only": False,
    }
    given = ModelChoices(max_frames=4, sim_header="seqLSTM", object_layer=0).given()
    assert (given["max_frames"], given["sim_header"], given["object_layer"]) == (4, "seqLSTM", 0)
    assert "max_words" not in given


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"need_object": False, "use_action": False, "object_layer": 0},
        {"action_only": True, "object_layer": -2},
        {"object_fuse": "attention", "linear_patch": "3d"},
        {"sim_header": "tightTransf", "header_layers": 2, "max_words": 7},
    ],
    ids=str,
)
def test_choices_of_a_model_make_the_same_model_of_its_own_checkpoint(choices: dict[str, Any]):
    config = tiny.config(**choices)
    assert ModelChoices.of(config).over(config) == config


def test_what_is_chosen_wins_over_the_checkpoint_and_the_rest_is_its_own():
    saved = tiny.config(sim_header="seqTransf", answers=("yes", "no"))
    config = ModelChoices(max_frames=2, need_object=True, object_count=7, num_actions=3).over(saved)
    assert (config.max_frames, config.object_count, config.num_actions) == (2, 7, 3)
    assert (config.max_words, config.sim_header, config.answers) == (12, "seqTransf", ("yes", "no"))
    assert (config.use_action, config.dropout) == (False, 0.5), "these have no value of the checkpoint's own"
    assert saved == tiny.config(sim_header="seqTransf", answers=("yes", "no"))


def test_sizes_of_stored_tensors_stay():
    saved = tiny.config()
    config = ModelChoices(fusion_layers=9, linear_patch="3d", header_layers=2, max_frames=2).over(saved)
    assert (config.fusion_layers, config.linear_patch) == (saved.fusion_layers, "2d")
    assert (config.header_layers, config.max_frames) == (2, 2)


def test_a_model_without_objects_keeps_room_for_them():
    saved = tiny.config()
    config = ModelChoices(object_count=7, num_actions=9).over(saved)
    assert (config.object_count, config.num_actions) == (saved.object_count, saved.num_actions)
    assert not config.need_object and config.fusion_positions == saved.fusion_positions


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"use_action": True}, "--use_action needs --need_object"),
        ({"action_only": True}, "--action_only needs --need_object"),
        ({"need_object": True, "object_layer": 0}, "--object_layer 0 with --object_fuse fusion"),
        ({"max_words": 2}, "--max_words 2: must be at least 3"),
        ({"header_layers": 0}, "--cross_num_hidden_layers 0: must be at least 1"),
        ({"sim_header": "meanQ"}, "--sim_header meanQ: choose one of meanP"),
    ],
    ids=str,
)
def test_impossible_choices_name_their_flags(choices: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ModelChoices(**choices)


def test_objects_may_be_read_nowhere_where_they_do_not_have_to_leave_the_tower():
    assert ModelChoices(need_object=True, object_layer=0, object_fuse="attention").object_layer == 0
    assert tiny.config(object_layer=0, object_fuse="attention", use_action=False).object_blocks == ()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"object_fuse": "both"}, "object_fuse='both': choose one of fusion, attention"),
        ({"sim_header": "meanQ"}, "sim_header='meanQ': choose one of meanP"),
        ({"linear_patch": "1d"}, "linear_patch='1d': choose one of 2d, 3d"),
        ({"image_resolution": 33}, "image_resolution 33 is no multiple of patch_size 8"),
        ({"vision_layers": 1}, "vision_layers must be at least 2"),
        ({"max_words": 21}, "max_words 21 exceeds the text tower's 20 positions"),
        ({"object_layer": 5}, "object_layer 5: the visual tower has 4 blocks"),
        ({"object_layer": -5}, "object_layer -5: the visual tower has 4 blocks"),
        ({"head_width": 0}, "head_width 0: no int"),
        ({"need_object": False}, "use_action and action_only need need_object"),
        ({"object_layer": 0}, "object_layer=0 would have no object tokens"),
    ],
    ids=str,
)
def test_sizes_that_contradict_each_other_are_an_error(sizes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        tiny.config(**sizes)


@pytest.mark.parametrize(("layer", "blocks"), [(None, (3,)), (1, (0,)), (4, (3,)), (-1, (0,)), (-3, (0, 1, 2))])
def test_objects_are_read_at_one_block_or_at_the_first_ones(layer: int | None, blocks: tuple[int, ...]):
    assert tiny.config(object_layer=layer).object_blocks == blocks
    assert tiny.config(object_layer=layer, need_object=False, use_action=False).object_blocks == ()


@pytest.mark.parametrize(
    ("choices", "trajectories", "actions"),
    [
        ({}, True, True),
        ({"use_action": False}, True, False),
        ({"action_only": True}, False, True),
        ({"action_only": True, "use_action": False}, False, True),
        ({"object_fuse": "attention"}, False, False),
        ({"need_object": False, "use_action": False}, False, False),
    ],
    ids=str,
)
def test_parts_in_the_fusion_encoder_and_a_position_table_that_fits_them_all(choices, trajectories, actions):
    config = tiny.config(**choices)
    assert (config.has_trajectories, config.has_actions) == (trajectories, actions)
    assert config.fusion_positions == 3 + 1 + 8 + 2 + 20 + 1


def test_sizes_that_follow_from_others():
    config = tiny.config()
    assert (config.grid, config.num_trajectories, config.start_token, config.end_token) == (4, 8, 98, 99)


def test_released_behaviour_departs_from_the_intended_one_everywhere():
    intended, released = vars(Behaviour.preset("intended")), vars(Behaviour.preset("released"))
    assert intended == vars(Behaviour())
    assert not [name for name, value in released.items() if value == intended[name]]
    with pytest.raises(ValueError, match="matching_loss 'other': choose one of released, contrastive"):
        Behaviour(matching_loss="other")
    with pytest.raises(ValueError, match="behaviour 'other': choose intended or released"):
        Behaviour.preset("other")


def test_a_configuration_comes_back_from_its_plain_form():
    config = tiny.config(answers=("yes", "no"), object_layer=-2)
    assert from_dict(ModelConfig, json.loads(json.dumps(dataclasses.asdict(config)))) == config
    released = Behaviour.preset("released")
    assert from_dict(Behaviour, dataclasses.asdict(released)) == released


def test_a_file_of_before_is_of_a_model_with_the_released_negatives_and_matching_loss():
    for preset in ("intended", "released"):
        saved = dataclasses.asdict(Behaviour.preset(preset))
        assert from_dict(Behaviour, saved) == Behaviour.preset(preset)
        for name in UNSTATED:
            del saved[name]
        expected = dataclasses.replace(Behaviour.preset(preset), same_clip_negatives=True, matching_loss="released")
        assert from_dict(Behaviour, saved) == expected


OF_CLIP = {
    "activation": "gelu", "head_width": 80, "text_head_width": 64, "pixel_mean": (0.5, 0.5, 0.0),
    "pixel_std": (0.5, 1, 0.25),
}  # fmt: skip


def test_what_a_clip_is_beside_its_tensors_comes_back_from_a_file():
    config = tiny.config(**OF_CLIP)
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    assert plain["pixel_mean"] == [0.5, 0.5, 0.0] and from_dict(ModelConfig, plain) == config
    assert {name: getattr(config, name) for name in OF_CLIP} == OF_CLIP and config.text_heads_width == 64


def test_a_checkpoint_of_before_is_quick_gelu_with_clip_s_pixels_and_its_own_heads():
    plain = dataclasses.asdict(tiny.config())
    for name in ("activation", "text_head_width", "pixel_mean", "pixel_std"):
        del plain[name]
    for width in (64, 16):
        config = from_dict(ModelConfig, {**plain, "head_width": width})
        assert (config.activation, config.head_width, config.text_heads_width) == ("quick_gelu", width, width)
        assert (config.pixel_mean, config.pixel_std) == (PIXEL_MEAN, PIXEL_STD)
    del plain["head_width"]
    assert from_dict(ModelConfig, plain) == tiny.config() and tiny.config().head_width == 64


def test_text_heads_of_the_same_width_are_one_form():
    assert tiny.config(head_width=16, text_head_width=16) == tiny.config(head_width=16)


@pytest.mark.parametrize("value", [None, True, 0, -1, 1.5, "half", [], [0.5, 0.5], [0.5] * 4, ["a", 1, 2], [None] * 3])
@pytest.mark.parametrize("name", ["pixel_mean", "pixel_std"])
def test_pixels_of_a_hostile_file_are_refused(name: str, value: Any):
    with pytest.raises(ValueError, match=f"^{name} "):
        tiny.config(**{name: value})


@pytest.mark.parametrize("one", [True, float("nan"), float("inf"), -1001, 10**400, "0.5", [0.5]], ids=str)
@pytest.mark.parametrize("name", ["pixel_mean", "pixel_std"])
def test_each_colour_has_a_number(name: str, one: Any):
    with pytest.raises(ValueError, match=f"^{name} "):
        tiny.config(**{name: [0.5, one, 0.5]})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"pixel_std": [0.5, 0, 0.5]}, r"pixel_std \(0.5, 0, 0.5\): must be above 0"),
        ({"pixel_std": [0.5, -0.1, 0.5]}, "pixel_std .* must be above 0"),
        ({"activation": "relu"}, "activation='relu': choose one of gelu, quick_gelu"),
        ({"activation": None}, "activation None: no str"),
        ({"activation": ["gelu"]}, r"activation \['gelu'\]: no str"),
        ({"text_head_width": 0}, "text_head_width 0: no int"),
        ({"text_head_width": True}, "text_head_width True: no int"),
        ({"text_head_width": 64.0}, "text_head_width 64.0: no int"),
        ({"text_head_width": 1 << 32}, "text_head_width 4294967296: no int"),
        ({"head_width": None}, "head_width None: no int"),
    ],
    ids=str,
)
def test_a_clip_that_no_file_can_mean_is_an_error(sizes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        tiny.config(**sizes)


def test_unknown_names_in_a_plain_form_are_an_error():
    with pytest.raises(ValueError, match="ModelConfig: unknown fields depth, width; was the file .* newer version"):
        from_dict(ModelConfig, {"width": 1, "max_frames": 2, "depth": 3})


def test_a_size_that_is_of_the_training_now_is_left_out_of_an_earlier_checkpoint():
    values = dataclasses.asdict(tiny.config())
    assert from_dict(ModelConfig, {**values, "frame_dropout": 0.3}) == tiny.config()
    assert "frame_dropout" not in values
