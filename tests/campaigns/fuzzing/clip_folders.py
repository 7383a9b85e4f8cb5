"""Readers of CLIP weights as open_clip and Hugging Face have them: folders with a configuration beside the tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tests.campaigns.fuzzing.archives import tensors_of_safetensors
from tests.campaigns.fuzzing.forms import JSON, NAN, known, rearranged
from tests.campaigns.fuzzing.mutators import KNOWN_TEXT, cut_short
from tests.campaigns.fuzzing.reader import Expected, Mutator, Reader
from tests.campaigns.fuzzing.weights import CLIP, ERRORS, FROM_CLIP, load_model
from utils.models.random_clip import IS_QUICK_GELU, OPENAI_INTEGERS, random_state_dict

BAD_SIZES = (0, -1, 7, "x", None, NAN, 1.5, True, [1], {}, 2**70, 10**5000)
BAD_PIXELS = ([], False, "x", [1, 2], [1, 2, 3, 4], [1, 2, NAN], [1, "x", 3], {}, True, [[1], 2, 3])
NAMES = {
    r"visual\.transformer\.resblocks": "vision_model.encoder.layers",
    r"^transformer\.resblocks": "text_model.encoder.layers",
    r"attn\.out_proj": "self_attn.out_proj",
    r"ln_1": "layer_norm1",
    r"ln_2": "layer_norm2",
    r"mlp\.c_fc": "mlp.fc1",
    r"mlp\.c_proj": "mlp.fc2",
    r"^token_embedding": "text_model.embeddings.token_embedding",
    r"^positional_embedding": "text_model.embeddings.position_embedding.weight",
    r"^ln_final": "text_model.final_layer_norm",
    r"^text_projection": "text_projection.weight",
    r"^visual\.class_embedding": "vision_model.embeddings.class_embedding",
    r"^visual\.conv1": "vision_model.embeddings.patch_embedding",
    r"^visual\.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    r"^visual\.ln_pre": "vision_model.pre_layrnorm",
    r"^visual\.ln_post": "vision_model.post_layernorm",
    r"^visual\.proj": "visual_projection.weight",
}


def openai_state() -> dict[str, Tensor]:
    """The entries of the two towers alone."""
    return {k: v for k, v in random_state_dict(CLIP).items() if k not in (*OPENAI_INTEGERS, IS_QUICK_GELU)}


def hugging_face_state() -> dict[str, Tensor]:
    """The same by Hugging Face's names, of which queries, keys and values have one each."""
    state = {}
    for key, value in openai_state().items():
        name = key
        for pattern, replacement in NAMES.items():
            name = re.sub(pattern, replacement, name)
        if "in_proj" in name:
            kind = name.rpartition("_")[2]
            for which, part in zip("qkv", value.chunk(3), strict=True):
                state[re.sub(r"attn\.in_proj_\w+", f"self_attn.{which}_proj.{kind}", name)] = part.clone()
        else:
            state[name] = value.t().contiguous() if "projection.weight" in name else value
    return state


def _tower(width: int, layers: int) -> dict[str, Any]:
    return {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
            "num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-5}  # fmt: skip


def make_hugging_face(folder: Path) -> None:
    """A small GELU model in parts, with another mean than CLIP's."""
    text = _tower(64, 1) | {"vocab_size": 100, "eos_token_id": 99, "max_position_embeddings": 32}
    vision = _tower(64, 2) | {"image_size": 32, "patch_size": 8}
    content = {"model_type": "clip", "projection_dim": 64, "text_config": text, "vision_config": vision}
    (folder / "config.json").write_text(json.dumps(content))
    pixels = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    state = hugging_face_state()
    places = {key: f"model-{1 + index % 2:05}-of-00002.safetensors" for index, key in enumerate(state)}
    for name in set(places.values()):
        save_file({key: value for key, value in state.items() if places[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def make_open_clip(folder: Path) -> None:
    """The same as open_clip has it."""
    vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}
    text = {"context_length": 32, "vocab_size": 100, "width": 64, "heads": 2, "layers": 1}
    model = {"embed_dim": 64, "quick_gelu": False, "vision_cfg": vision, "text_cfg": text}
    content = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(openai_state(), folder / "open_clip_model.safetensors")


def _set(places: Mapping[tuple[str, ...], tuple[Any, ...]]) -> Any:
    """A change that puts a value out of range in one of the places, given by the keys that lead there."""

    def change(value: Any, draw: Random) -> None:
        *path, last = draw.choice(sorted(places))
        values = places[(*path, last)]
        for key in path:
            value = value[key]
        before = value.get(last)
        value[last] = draw.choice([one for one in values if one is not before and one != before])

    return change


def _json(places: Mapping[tuple[str, ...], tuple[Any, ...]]) -> tuple[Mutator, ...]:
    out_of_range = known(JSON, "a value out of range", Expected.REFUSED, _set(places))
    return (*KNOWN_TEXT, rearranged(JSON), cut_short(), out_of_range)


SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
TOWER: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(SIZES, BAD_SIZES),
    "hidden_act": ("gelu_new", "relu", None, 5, []),
    "layer_norm_eps": (1e-6, "x", None, NAN),
    "some_new_setting": (True, 3, "x"),
}
OF_CONFIG = {
    **{(tower, name): values for tower in ("text_config", "vision_config") for name, values in TOWER.items()},
    ("vision_config", "image_size"): BAD_SIZES,
    ("vision_config", "num_channels"): BAD_SIZES,
    ("text_config", "eos_token_id"): (5, "x", None, [99], NAN),
    ("projection_dim",): BAD_SIZES,
    ("model_type",): ("siglip", None, 5, "clip_text_model"),
}
OF_PIXELS = {("image_mean",): BAD_PIXELS, ("image_std",): (*BAD_PIXELS, [0, 1, 1], [-1, 1, 1])}
OF_OPEN_CLIP = {
    **{("model_cfg", "vision_cfg", name): BAD_SIZES for name in ("width", "layers", "patch_size", "image_size")},
    **{("model_cfg", "text_cfg", name): BAD_SIZES for name in ("width", "layers", "heads", "vocab_size")},
    ("model_cfg", "vision_cfg", "head_width"): (0, -1, "x", None, NAN, 1.5, [1]),
    ("model_cfg", "vision_cfg", "ls_init_value"): (0.1, "x", [1]),
    ("model_cfg", "vision_cfg", "pool_type"): ("avg", None, 5),
    ("model_cfg", "text_cfg", "no_causal_mask"): (True, "x", 5),
    ("model_cfg", "quick_gelu"): ("x", 1, None, []),
    ("model_cfg", "some_new_setting"): (True, 3, "x"),
    ("preprocess_cfg", "mean"): BAD_PIXELS,
    ("preprocess_cfg", "std"): (*BAD_PIXELS, [0, 1, 1]),
}


def _reader(name: str, make: Any, files: dict[str, tuple[Mutator, ...]]) -> Reader:
    return Reader(name, make, files, lambda folder: load_model(folder, **FROM_CLIP), ERRORS, inputs=1000, seconds=20,
                  megabytes=600)  # fmt: skip


READERS = (
    _reader(
        "clip-hugging-face",
        make_hugging_face,
        {
            "config.json": _json(OF_CONFIG),
            "preprocessor_config.json": _json(OF_PIXELS),
            "model.safetensors.index.json": (*KNOWN_TEXT, rearranged(JSON), cut_short()),
            "model-00001-of-00002.safetensors": (tensors_of_safetensors, cut_short()),
        },
    ),
    _reader("clip-open-clip", make_open_clip, {"open_clip_config.json": _json(OF_OPEN_CLIP)}),
)
