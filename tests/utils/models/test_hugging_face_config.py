"""What Hugging Face's config.json and the files of its processors say of a CLIP, and what is refused."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from modules.config import PIXEL_MEAN, PIXEL_STD
from utils.models.hugging_face_config import TEXT_DEFAULTS, VISION_DEFAULTS, from_hugging_face, is_hugging_face
from utils.runtime.checkpoint import CheckpointError

CONFIG: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
        "hidden_act": "gelu",
    },
    "vision_config": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "num_hidden_layers": 32,
        "patch_size": 14, "hidden_act": "gelu",
    },
}  # fmt: skip
HOSTILE = [None, True, 0, -1, 1.5, "many", [], [1, 2], [[1]], {"a": 1}, math.nan, math.inf, 1 << 31, 10**400]
NO_PROCESSOR = "no preprocessor_config.json; pixels are normalised as OpenAI's CLIP"


def changed(part: str | None, **values: Any) -> dict[str, Any]:
    """The configuration with other values, in a tower or outside both."""
    content = copy.deepcopy(CONFIG)
    (content[part] if part else content).update(values)
    return content


def read(content: dict[str, Any], folder: Path = Path("nowhere"), **processor: Any) -> Any:
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return from_hugging_face(content, folder / "config.json")


def test_everything_that_acts_on_features_is_read():
    found = read(CONFIG)
    assert (found.activation, found.head_width, found.text_head_width) == ("gelu", 80, 64)
    assert found.sizes == {
        "embed_dim": 1024, "image_resolution": 224, "patch_size": 14, "vision_width": 1280, "vision_layers": 32,
        "context_length": 77, "vocab_size": 49408, "text_width": 1024, "text_layers": 24,
    }  # fmt: skip
    assert found.source == "nowhere/config.json"
    assert (found.pixel_mean, found.pixel_std) == (PIXEL_MEAN, PIXEL_STD) and NO_PROCESSOR in found.remarks[0]


def test_the_defaults_are_those_of_transformers():
    transformers = pytest.importorskip("transformers", reason="transformers states its own defaults")
    for mine, theirs in (
        (TEXT_DEFAULTS, transformers.CLIPTextConfig()),
        (VISION_DEFAULTS, transformers.CLIPVisionConfig()),
    ):
        assert {name: getattr(theirs, name) for name in mine} == mine
    found = read({"model_type": "clip"})
    assert (found.activation, found.head_width, found.text_head_width) == ("quick_gelu", 64, 64)
    assert found.sizes["patch_size"] == 32 and found.sizes["embed_dim"] == transformers.CLIPConfig().projection_dim


def test_a_whole_configuration_that_transformers_writes_is_read():
    transformers = pytest.importorskip("transformers", reason="transformers writes it")
    towers = {name: CONFIG[name] for name in ("text_config", "vision_config")}
    content = json.loads(transformers.CLIPConfig(**towers, projection_dim=1024).to_json_string(use_diff=False))
    assert read(content).sizes == read(CONFIG).sizes and read(content).fields() == read(CONFIG).fields()


def test_a_former_dictionary_of_a_tower_wins_as_in_transformers():
    former = {**CONFIG["text_config"], "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    found = read({**CONFIG, "text_config_dict": former})
    assert found.sizes["text_width"] == 512 and found.text_head_width == 64
    assert read({**CONFIG, "text_config_dict": None, "vision_config_dict": None}) == read(CONFIG)
    less = {name: value for name, value in CONFIG["text_config"].items() if name != "num_hidden_layers"}
    assert read({**CONFIG, "text_config_dict": less}).sizes["text_layers"] == 12, "the default and not the newer 24"


@pytest.mark.parametrize(
    "content",
    [{"model_type": "clip"}, {"model_type": None}, {"text_config": {}, "vision_config": {}}],
    ids=str,
)
def test_what_is_of_transformers_is_known(content: dict[str, Any]):
    assert is_hugging_face(content)
    assert not is_hugging_face({"task": "pretrain", "arguments": {}}) and not is_hugging_face({"text_config": {}})


@pytest.mark.parametrize(
    "values",
    [
        {"torch_dtype": "float16", "architectures": ["CLIPModel"], "transformers_version": "4.4", "_commit_hash": "a"},
        {"logit_scale_init_value": 2.6, "initializer_factor": 1.0, "auto_map": {"AutoModel": "x.Y"}},
    ],
    ids=str,
)
def test_settings_that_act_on_nothing_are_allowed(values: dict[str, Any]):
    assert read(changed(None, **values)) == read(CONFIG)
    assert read(changed("text_config", attention_dropout=0.1, bos_token_id=0, eos_token_id=2)) == read(CONFIG)
    assert read(changed("vision_config", projection_dim=3, output_attentions=False)) == read(CONFIG)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (None, {"model_type": "siglip"}, "a model of the kind 'siglip', not clip"),
        (None, {"model_type": None}, "a model of the kind 'None'"),
        (None, {"model_type": ["clip"]}, "a model of the kind"),
        (None, {"something_new": 1}, "the setting something_new"),
        ("text_config", {"something_new": 1}, "the setting something_new"),
        ("vision_config", {"use_rope": True}, "the setting use_rope"),
        ("vision_config", {"num_channels": 1}, "num_channels '1'"),
        ("vision_config", {"intermediate_size": 4096}, "a perceptron of another width"),
        ("text_config", {"intermediate_size": None}, "a perceptron of another width"),
        ("text_config", {"layer_norm_eps": 1e-6}, "another layer norm"),
        ("vision_config", {"layer_norm_eps": "1e-5"}, "another layer norm"),
        ("text_config", {"eos_token_id": 49406}, "another end token"),
        ("text_config", {"eos_token_id": [49407]}, "another end token"),
        ("text_config", {"vocab_size": 100}, "another end token"),
        ("text_config", {"hidden_act": "quick_gelu"}, "beside 'gelu' of the visual tower"),
    ],
    ids=str,
)
def test_a_setting_that_is_computed_otherwise_is_refused_by_name(part: str | None, values: dict, message: str):
    with pytest.raises(CheckpointError, match=r"^nowhere/config\.json.* CLIP with OpenAI's vision") as caught:
        read(changed(part, **values))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["gelu_new", "gelu_pytorch_tanh", "relu", "GELU", None, 1, ["gelu"], {"a": 1}])
def test_an_activation_that_is_neither_is_refused(name: Any):
    content = changed("text_config", hidden_act=name)
    content["vision_config"]["hidden_act"] = name
    with pytest.raises(CheckpointError, match="text_config: hidden_act .* is not what this project's CLIP computes"):
        read(content)


SIZES = [
    (None, "projection_dim"),
    *[("vision_config", name) for name in ("image_size", "patch_size", "hidden_size", "num_hidden_layers")],
    ("vision_config", "num_attention_heads"),
    *[("text_config", name) for name in ("max_position_embeddings", "vocab_size", "hidden_size")],
    *[("text_config", name) for name in ("num_hidden_layers", "num_attention_heads")],
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize(("part", "name"), SIZES)
def test_a_size_that_is_none_is_an_error_that_names_the_file(part: str | None, name: str, value: Any):
    with pytest.raises(CheckpointError, match=r"^nowhere/config\.json") as caught:
        read(changed(part, **{name: value}))
    assert (name if name != "hidden_size" else "_size") in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("part", ["text_config", "vision_config", "text_config_dict", "vision_config_dict"])
@pytest.mark.parametrize("value", ["x", 7, [[1]], True], ids=str)
def test_a_tower_that_is_no_object_is_an_error(part: str, value: Any):
    with pytest.raises(CheckpointError, match=rf"config\.json, {part}: .* is no object with settings"):
        read({**CONFIG, part: value})


def test_heads_that_do_not_divide_their_tower_are_an_error():
    with pytest.raises(CheckpointError, match="vision_config: a width of 1280 cannot be divided into 12 heads"):
        read(changed("vision_config", num_attention_heads=12))


def test_a_vocabulary_of_another_tokenizer_is_an_error():
    with pytest.raises(CheckpointError, match="text_config: a vocabulary of 250,002, CLIP's tokenizer has 49,408"):
        read(changed("text_config", vocab_size=250002, eos_token_id=2))


# -- pixels

PROCESSOR: dict[str, Any] = {
    "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_center_crop": True, "resample": 3,
    "size": {"shortest_edge": 224}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
}  # fmt: skip


@pytest.mark.parametrize("is_whole", [False, True], ids=["preprocessor_config.json", "processor_config.json"])
def test_mean_and_deviation_are_those_of_the_processor(tmp_path: Path, is_whole: bool):
    name, content = ("processor_config.json", {"image_processor": PROCESSOR}) if is_whole else ("", PROCESSOR)
    (tmp_path / (name or "preprocessor_config.json")).write_text(json.dumps(content))
    found = read(CONFIG, tmp_path)
    assert (found.pixel_mean, found.pixel_std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)) and found.remarks == ()


def test_a_processor_without_pictures_says_nothing_of_them(tmp_path: Path):
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert NO_PROCESSOR in read(CONFIG, tmp_path).remarks[0]


def test_pixels_that_are_not_normalised_have_a_mean_of_nothing(tmp_path: Path):
    found = read(CONFIG, tmp_path, **{**PROCESSOR, "do_normalize": False})
    assert (found.pixel_mean, found.pixel_std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("values", "remark"),
    [
        ({"resample": 2}, "pictures are resized otherwise there; here bicubic"),
        ({"do_center_crop": False}, "pictures are not cropped there; here the centre is cut out"),
        ({"size": {"height": 224, "width": 224}}, "pictures are not cropped there"),
    ],
    ids=str,
)
def test_another_way_to_prepare_pictures_is_remarked(tmp_path: Path, values: dict[str, Any], remark: str):
    (found,) = read(CONFIG, tmp_path, **{**PROCESSOR, **values}).remarks
    assert str(tmp_path / "preprocessor_config.json") in found and remark in found


@pytest.mark.parametrize(
    "values",
    [
        {"do_rescale": False},
        {"do_rescale": 1},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": "1"},
        {"rescale_factor": None},
    ],
    ids=str,
)
def test_pixels_of_another_range_are_refused(tmp_path: Path, values: dict[str, Any]):
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: (do_rescale|rescale_factor)"):
        read(CONFIG, tmp_path, **{**PROCESSOR, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_mean": [1, 2]}, "image_mean .* is not three numbers"),
        ({"image_mean": "half"}, "image_mean .* is not three numbers"),
        ({"image_mean": [True, 0, 0]}, "image_mean .* is not three numbers"),
        ({"image_mean": [10**9, 0, 0]}, "image_mean .* is not three numbers"),
        ({"image_mean": [math.nan, 0, 0]}, "NaN"),
        ({"image_std": [math.inf, 1, 1]}, "Infinity"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std .* must be above 0"),
        ({"image_std": {"r": 1}}, "image_std .* is not three numbers"),
    ],
    ids=str,
)
def test_pixel_values_that_are_none_are_an_error(tmp_path: Path, values: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json.*{message}"):
        read(CONFIG, tmp_path, **{**PROCESSOR, **values})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[
            (name, text)
            for name in ("preprocessor_config.json", "processor_config.json")
            for text in ("[1]", '"x"', "{")
        ],
        ("processor_config.json", '{"image_processor": 7}'),
    ],
)
def test_a_processor_s_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        read(CONFIG, tmp_path)
