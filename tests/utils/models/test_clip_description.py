"""What open_clip's configurations say of a CLIP, and what they say that is refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from modules.config import PIXEL_MEAN, PIXEL_STD, VOCAB_SIZE
from utils.models import clip_description
from utils.models.clip_description import (
    Description,
    Settings,
    check_vocabulary,
    from_open_clip,
    from_table,
    head_width,
    table_files,
)
from utils.runtime.checkpoint import CheckpointError

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 1024,
        "quick_gelu": False,
        "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
}
PARTS = {"model": ("model_cfg",), "vision": ("model_cfg", "vision_cfg"), "text": ("model_cfg", "text_cfg")}
PARTS |= {"pixels": ("preprocess_cfg",)}
HOSTILE = [None, True, 0, -1, 1.5, "many", [], [1, 2], [[1]], {"a": 1}, math.nan, math.inf, 1 << 31, 10**400]


def changed(part: str, **values: Any) -> dict[str, Any]:
    """The configuration with other values in a part of it."""
    content = copy.deepcopy(CONFIG)
    place = content
    for name in PARTS[part]:
        place = place[name]
    place.update(values)
    return content


def test_everything_that_acts_on_features_is_read():
    found = from_open_clip(CONFIG, "some file")
    assert (found.activation, found.head_width, found.text_head_width) == ("gelu", 80, 64)
    assert (found.pixel_mean, found.pixel_std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert found.sizes == {
        "embed_dim": 1024, "image_resolution": 224, "patch_size": 14, "vision_width": 1280, "vision_layers": 32,
        "context_length": 77, "vocab_size": 49408, "text_width": 1024, "text_layers": 24,
    }  # fmt: skip
    assert found.source == "some file" and found.remarks == ()
    assert found.fields().keys() == {"activation", "head_width", "text_head_width", "pixel_mean", "pixel_std"}


def test_what_it_does_not_say_is_open_clip_s_default():
    found = from_open_clip({"vision_cfg": {}, "text_cfg": {}}, "file")
    usual = from_table("ViT-B-16")
    assert found == Description("file", "gelu", 64, 64, PIXEL_MEAN, PIXEL_STD, usual.sizes)
    assert from_open_clip({**CONFIG["model_cfg"], "quick_gelu": True}, "file").activation == "quick_gelu"


def test_one_number_for_all_colours_and_squares_by_both_sides_are_understood():
    found = from_open_clip(changed("pixels", mean=0.5, std=[0.5, 0.5, 1]), "file")
    assert (found.pixel_mean, found.pixel_std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 1.0))
    assert from_open_clip(changed("vision", image_size=[224, 224], patch_size=[14, 14]), "file").sizes == (
        from_open_clip(CONFIG, "file").sizes
    )


def test_another_way_to_prepare_pictures_is_remarked():
    content = changed("pixels", interpolation="bilinear", resize_mode="squash", size=224, mode="RGB", fill_color=0)
    one, two = from_open_clip(content, "file").remarks
    assert one == "file, preprocess_cfg: interpolation 'bilinear' there; here bicubic, and the centre is cut out"
    assert "resize_mode 'squash' there" in two
    usual = changed("pixels", interpolation="bicubic", resize_mode="shortest")
    assert from_open_clip(usual, "file").remarks == ()


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("model", {"init_logit_scale": 4.6, "cast_dtype": "fp16", "custom_text": None, "init_logit_bias": None}),
        ("vision", {"mlp_ratio": 4.0, "ls_init_value": None, "patch_dropout": 0.5, "pool_type": "tok"}),
        ("vision", {"timm_model_name": None, "timm_pool": "avg", "attn_pooler_queries": 256, "no_ln_pre": False}),
        ("vision", {"attentional_pool": False, "input_patchnorm": False, "something_new": 0, "more": []}),
        ("vision", {"norm_kwargs": {"eps": 1e-5}, "act_kwargs": {}, "block_type": "default"}),
        ("text", {"pad_id": 1, "eos_id": 2, "hf_model_name": None, "embed_cls": False, "proj_type": "linear"}),
        ("text", {"pool_type": "eos", "eos_id": VOCAB_SIZE - 1}),
    ],
    ids=str,
)
def test_settings_that_act_on_nothing_are_allowed(part: str, values: dict[str, Any]):
    assert from_open_clip(changed(part, **values), "file") == from_open_clip(CONFIG, "file")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("model", {"multimodal_cfg": {}}, "CoCa"),
        ("model", {"init_logit_bias": -10}, "SigLIP"),
        ("model", {"custom_text": True}, "a text tower of its own"),
        ("model", {"nonscalar_logit_scale": True}, "the setting nonscalar_logit_scale"),
        ("vision", {"timm_model_name": "eva02_base"}, "an image tower of timm"),
        ("vision", {"layers": [3, 4, 6, 3]}, "a ResNet"),
        ("vision", {"mlp_ratio": 4.3637}, "mlp_ratio '4.3637'"),
        ("vision", {"mlp_ratio": math.nan}, "mlp_ratio 'nan'"),
        ("vision", {"ls_init_value": 1e-5}, "LayerScale"),
        ("vision", {"pool_type": "avg"}, "pool_type 'avg'"),
        ("vision", {"no_ln_pre": True}, "no_ln_pre 'True'"),
        ("vision", {"no_ln_pre": 1}, "no_ln_pre '1'"),
        ("vision", {"pos_embed_type": "sin_cos_2d"}, "pos_embed_type 'sin_cos_2d'"),
        ("vision", {"attentional_pool": True}, "the setting attentional_pool"),
        ("vision", {"something_new": "x"}, "the setting something_new"),
        ("vision", {"norm_kwargs": {"eps": 1e-6}}, "norm_kwargs"),
        ("vision", {"act_kwargs": {"approximate": "tanh"}}, "act_kwargs"),
        ("text", {"hf_model_name": "xlm-roberta-base"}, "a text tower of Hugging Face"),
        ("text", {"hf_tokenizer_name": "x"}, "another tokenizer"),
        ("text", {"no_causal_mask": True}, "no causal mask"),
        ("text", {"proj_type": "none"}, "proj_type 'none'"),
        ("text", {"pool_type": "last"}, "pool_type 'last'"),
        ("text", {"pool_type": "eos", "eos_id": 2}, "another end token"),
        ("text", {"pool_type": "eos"}, "eos_id 2"),
        ("text", {"ls_init_value": 1e-5}, "LayerScale"),
        ("text", {"embed_cls": True}, "the setting embed_cls"),
        ("pixels", {"mode": "L"}, "mode 'L'"),
        ("pixels", {"something_new": 3}, "the setting something_new"),
    ],
    ids=str,
)
def test_a_setting_that_is_computed_otherwise_is_refused_by_name(part: str, values: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match="is not what this project's CLIP computes. CLIP with") as caught:
        from_open_clip(changed(part, **values), "some file")
    assert str(caught.value).startswith("some file") and message in str(caught.value)


SIZES = [
    ("model", "embed_dim"), ("vision", "image_size"), ("vision", "patch_size"), ("vision", "width"),
    ("vision", "layers"), ("vision", "head_width"), ("text", "context_length"), ("text", "vocab_size"),
    ("text", "width"), ("text", "layers"), ("text", "heads"),
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize(("part", "name"), SIZES)
def test_a_size_that_is_none_is_an_error_that_names_it(part: str, name: str, value: Any):
    with pytest.raises(CheckpointError, match="^some file") as caught:
        from_open_clip(changed(part, **{name: value}), "some file")
    assert name in str(caught.value) or "ResNet" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [True, "yes", [1, 2, 3, 4], ["a", 1, 2], [True, 1, 1], {"r": 1}, [1, 2, math.nan]])
@pytest.mark.parametrize("name", ["mean", "std"])
def test_pixel_values_that_are_none_are_an_error(name: str, value: Any):
    with pytest.raises(CheckpointError, match=rf"some file, preprocess_cfg: {name} .* is not three numbers"):
        from_open_clip(changed("pixels", **{name: value}), "some file")


def test_a_deviation_of_nothing_is_an_error_and_a_mean_of_nothing_is_none():
    for value in (-1, [0.5, 0, 0.5]):
        with pytest.raises(CheckpointError, match="must be above 0"):
            from_open_clip(changed("pixels", std=value), "file")
    for value in ([0, 0, 0], 0):
        assert from_open_clip(changed("pixels", mean=value), "file").pixel_mean == (0.0, 0.0, 0.0)
    for value in (1001, [0, 0, -1001], [10**400] * 3, 1e308):
        with pytest.raises(CheckpointError, match="is not three numbers"):
            from_open_clip(changed("pixels", mean=value), "file")


@pytest.mark.parametrize("value", [None, 0, 1, "true", [], {}], ids=str)
def test_an_activation_that_is_neither_is_an_error(value: Any):
    with pytest.raises(CheckpointError, match="quick_gelu .* is neither true nor false"):
        from_open_clip(changed("model", quick_gelu=value), "file")


@pytest.mark.parametrize("part", ["vision_cfg", "text_cfg"])
@pytest.mark.parametrize("value", [None, [], "x", 7, [[1]]], ids=str)
def test_a_tower_that_is_no_object_is_an_error(part: str, value: Any):
    with pytest.raises(CheckpointError, match=rf"file, {part}: .* is no object with settings"):
        from_open_clip(changed("model", **{part: value}), "file")


@pytest.mark.parametrize("content", [{}, {"model_cfg": None}, {"model_cfg": {}}, {"model_cfg": [1]}], ids=str)
def test_a_configuration_without_towers_is_an_error(content: dict[str, Any]):
    with pytest.raises(CheckpointError, match="^file.* is no object with settings"):
        from_open_clip(content, "file")


def test_heads_divide_their_tower_evenly():
    assert head_width(640, 10, "file") == 64 and head_width(64, 1, "file") == 64 == head_width(64 * 64, 64, "file")
    for heads in (0, 7, 641, -1):
        with pytest.raises(CheckpointError, match=f"file: a width of 640 cannot be divided into {heads} heads"):
            head_width(640, heads, "file")
    with pytest.raises(CheckpointError, match="a width of 1280 cannot be divided into 14 heads"):
        from_open_clip(changed("vision", head_width=88), "file")
    with pytest.raises(CheckpointError, match="text_cfg: a width of 1024 cannot be divided into 12 heads"):
        from_open_clip(changed("text", heads=12), "file")


def test_more_words_than_the_tokenizer_has_are_of_another():
    check_vocabulary(VOCAB_SIZE, "file")
    check_vocabulary(100, "file")
    with pytest.raises(CheckpointError, match="a vocabulary of 49,409, CLIP's tokenizer has 49,408: it is of another"):
        from_open_clip(changed("text", vocab_size=VOCAB_SIZE + 1), "file")


def test_settings_are_asked_for_one_by_one():
    settings = Settings({"a": 1, "b": None, "c": [64, 64], "d": True}, "file")
    assert settings.take("a") == 1 and settings.take("a", 5) == 5, "a second time it is not there"
    assert settings.size("c", 1) == 64 and settings.size("absent", 3) == 3
    with pytest.raises(CheckpointError, match="file: the setting d is not what this project's CLIP computes"):
        settings.end()
    settings.must_be("d", False, True)
    settings.end()


# -- open_clip's table


def test_names_of_the_table_are_read_with_their_heads():
    heads = {"ViT-B-32": (64, 64), "ViT-L-14": (64, 64), "ViT-H-14": (80, 64), "ViT-B-16-plus": (64, 64)}
    for name, widths in heads.items():
        found = from_table(name)
        assert (found.activation, found.head_width, found.text_head_width) == ("gelu", *widths)
        assert found.source == f"--clip_model {name}"
    assert from_table("ViT-B/16-quickgelu").activation == "quick_gelu", "a name with / as OpenAI writes it"
    assert from_table("ViT-B-16-plus").sizes["text_width"] == 640


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-61", "not in open_clip's table, which has for instance ViT-B-"),
        ("", "not in open_clip's table, which has for instance ViT-B-16, ViT-B-16-quickgelu"),
        ("../ViT-B-16", "not in open_clip's table"),
        ("x" * 500, "not in open_clip's table"),
        ("RN50", "--clip_model RN50, vision_cfg: a ResNet"),
        ("ViT-B-16-SigLIP", "SigLIP|timm|custom_text"),
        ("coca_ViT-B-32", "CoCa"),
        ("EVA02-B-16", "timm|custom_text"),
        ("ViT-bigG-14", "mlp_ratio"),
    ],
)
def test_another_name_is_an_error_that_says_why(name: str, message: str):
    with pytest.raises(CheckpointError, match=message):
        from_table(name)


def test_without_the_package_no_name_is_known(monkeypatch: pytest.MonkeyPatch):
    assert len(table_files()) > 100
    monkeypatch.setattr(clip_description.importlib.util, "find_spec", lambda name: None)
    assert table_files() == {}
    with pytest.raises(CheckpointError, match="--clip_model ViT-B-16: not in open_clip's table"):
        from_table("ViT-B-16")
