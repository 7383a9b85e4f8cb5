"""CLIP as users of open_clip have it, and the forms that its models share with OpenAI's and CLIP4Clip's files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.push_to_hf_hub import save_config_for_hf
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from tests.clip_sources.comparison import Features, Inputs, draw_inputs, draw_weights
from tests.clip_sources.source import Shape, Written, state_of
from utils.models.random_clip import IS_QUICK_GELU, ClipSizes, half_weights, random_state_dict, save_archive

# open_clip tells the root logger of every model without weights.
logging.getLogger().addFilter(lambda record: "open_clip" not in record.pathname)

SAFE, BINARY = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
FORMS = (
    "folder",
    "folder with .bin",
    "folder with .bin and .safetensors",
    "folder, entries with module.",
    "training's checkpoint, --activation",
    "file, --clip_model",
)
TOO_LARGE = 10 * 2**30  # bytes that one row may take: the source's model and what is written of it, then this project's
COPIES = 2.2  # of the weights, at the most
PLAIN_VISION = {  # what a plain ViT says of itself, beside its sizes; another value computes something else
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "pool_type": "tok",
    "act_kwargs": None,
    "norm_kwargs": None,
    "timm_model_name": None,
}
PLAIN_TEXT = {
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "embed_cls": False,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_bias": False,
    "proj_type": "linear",
    "act_kwargs": None,
    "norm_kwargs": None,
    "hf_model_name": None,
    "hf_tokenizer_name": None,
}
PLAIN_ATTENTION = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")


def why_not_plain(config: Mapping[str, Any]) -> list[str]:
    """What keeps a model of open_clip's table from being CLIP's ViT; nothing if it is one."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    found = [
        f"vision {name} {vision[name]!r}" for name, plain in PLAIN_VISION.items() if vision.get(name, plain) != plain
    ]
    found += [f"text {name} {text[name]!r}" for name, plain in PLAIN_TEXT.items() if text.get(name, plain) != plain]
    for where, tower in (("vision", vision), ("text", text)):
        found += [f"{where} {name}" for name in PLAIN_ATTENTION if tower.get(name)]
    if isinstance(vision.get("layers"), list):
        found.insert(0, f"ResNet of layers {vision['layers']}")
    if "multimodal_cfg" in config:
        found.insert(0, "CoCa (multimodal_cfg)")
    if config.get("custom_text"):
        found.append("custom_text: its text tower is a module of its own")
    if config.get("init_logit_bias") is not None:
        found.append("a logit bias")
    if text.get("vocab_size", 49408) > 49408:
        found.append(f"a vocabulary of {text['vocab_size']}")
    return found


def table() -> dict[str, dict[str, Any]]:
    """Configurations of all models of open_clip, by name."""
    return {name: config_of(name) for name in open_clip.list_models()}


def config_of(name: str) -> dict[str, Any]:
    """A copy of a model's configuration; KeyError for a name that open_clip does not have."""
    config = open_clip.get_model_config(name)
    if config is None:
        raise KeyError(name)
    return deepcopy(config)


def config_for(shape: Shape, activation: str) -> dict[str, Any]:
    """A configuration of these sizes, as open_clip's own are written: what is the default is not in it."""
    vision = {"image_size": shape.resolution, "layers": shape.vision_layers, "width": shape.vision_width}
    heads = shape.text_width // shape.text_head
    text = {"context_length": shape.context, "vocab_size": shape.vocab, "width": shape.text_width, "heads": heads}
    head = {} if shape.vision_head == 64 else {"head_width": shape.vision_head}
    return {
        "embed_dim": shape.embed,
        **({"quick_gelu": True} if activation == "quick_gelu" else {}),
        "vision_cfg": {**vision, **head, "patch_size": shape.patch},
        "text_cfg": {**text, "layers": shape.text_layers},
    }


def reduced(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same kind of model, two layers deep and two heads wide: everything but sizes stays."""
    config = deepcopy(dict(config))
    vision, text = config["vision_cfg"], config["text_cfg"]
    config["embed_dim"] = 64
    if isinstance(vision.get("layers"), list):
        vision.update(layers=[1, 1, 1, 1], width=16, image_size=64)
    elif "timm_model_name" not in vision:
        vision.update(layers=2, width=2 * vision.get("head_width", 64), image_size=2 * vision["patch_size"])
    parts = [text, config["multimodal_cfg"]] if "multimodal_cfg" in config else [text]
    for part in [part for part in parts if "hf_model_name" not in part]:
        part.update(width=64, heads=2, layers=2, vocab_size=600)
    return config


def build(config: Mapping[str, Any], spare: Path) -> Any:
    """The model of a configuration; text towers of transformers, which it would fetch, are tiny ones made here."""
    config = deepcopy(dict(config))
    if "hf_model_name" in config["text_cfg"]:
        from transformers import RobertaConfig

        RobertaConfig(
            vocab_size=600, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        ).save_pretrained(spare)
        config["text_cfg"] |= {"hf_model_name": str(spare), "hf_model_pretrained": False}
    is_custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    kinds = {(False, False): open_clip.CLIP, (True, False): open_clip.CustomTextCLIP, (True, True): open_clip.CoCa}
    return kinds[is_custom, "multimodal_cfg" in config](**config).eval()


def make_model(config: Mapping[str, Any], spare: Path, preprocess: Mapping[str, Any] | None = None) -> Any:
    """The model of a configuration, with drawn weights and CLIP's preparation of images, or another one."""
    model = build(config, spare)
    settings = {**vars(PreprocessCfg(size=model.visual.image_size)), **(preprocess or {})}
    open_clip.model.set_model_preprocess_cfg(model, settings)
    draw_weights(model)
    return model


def write(
    folder: Path,
    config: Mapping[str, Any],
    form: str,
    *,
    name: str = "",
    preprocess: Mapping[str, Any] | None = None,
    compare: bool = True,
) -> Written:
    """Weights in one of FORMS, with what open_clip makes of the inputs.

    Args:
        config: of the model, as open_clip_config.json has it.
        name: of the model in open_clip's table, for --clip_model.
        preprocess: mean, std or other settings instead of CLIP's.
        compare: False where the model has to be refused.
    """
    model = make_model(config, folder / "spare", preprocess)
    archive, flags = save(model, folder / "model", config, form, name)
    inputs = inputs_for(config)
    return Written(archive, inputs, features(model, inputs) if compare else None, flags)


def inputs_for(config: Mapping[str, Any]) -> Inputs:
    """Frames and texts of a configuration's sizes; CLIP's where it has another kind of tower."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    vocab = min(text.get("vocab_size", 49408), 49408)
    return draw_inputs(vision.get("image_size", 224), vocab, text.get("context_length", 77))


def save(model: Any, folder: Path, config: Mapping[str, Any], form: str, name: str = "") -> tuple[Path, dict[str, str]]:
    """Save a model in one of FORMS; returns the path that its user names, and the flags beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    state = state_of(model)
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    if form == "training's checkpoint, --activation":
        wrapped = {f"module.{key}": value for key, value in state.items()}
        checkpoint = {"epoch": 3, "name": "run", "state_dict": wrapped, "optimizer": {"state": {}, "param_groups": []}}
        torch.save(checkpoint, folder / "epoch_3.pt")
        return folder / "epoch_3.pt", {"activation": activation}
    if form == "file, --clip_model":
        save_file(state, folder / "weights.safetensors")
        return folder / "weights.safetensors", {"clip_model": name}
    if form == "folder, entries with module.":
        state = {f"module.{key}": value for key, value in state.items()}
    if form != "folder with .bin":
        save_file(state, folder / SAFE)
    if form in ("folder with .bin", "folder with .bin and .safetensors"):
        torch.save(state, folder / BINARY)
    save_config_for_hf(model, folder / "open_clip_config.json", dict(config))
    return folder, {}


@torch.no_grad()
def features(model: Any, inputs: Inputs) -> Features:
    """What open_clip's model makes of the inputs, through its own preparation of images."""
    prepare = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    pixels = torch.stack([prepare(Image.fromarray(frame)) for frame in inputs.frames])
    image_logits, text_logits = model.get_logits(pixels, inputs.ids)
    return Features(model.encode_image(pixels), model.encode_text(inputs.ids), text_logits, image_logits)


def write_by_name(folder: Path, name: str) -> Written:
    """A model of open_clip's table at full size, with less of it where that takes too much memory."""
    config = config_of(name)
    note = "with a tiny text tower, since its own would be fetched" if "hf_model_name" in config["text_cfg"] else ""
    with torch.device("meta"):
        size = 4 * sum(parameter.numel() for parameter in build(config, folder / "spare").parameters())
    if COPIES * size > TOO_LARGE:
        note = f"{size / 2**30:.1f} GB at full size: " + ("a small trunk" if _is_timm(config) else "two layers, narrow")
    built = config
    if COPIES * size > TOO_LARGE:
        built = reduced(config)
        if _is_timm(config):
            built["vision_cfg"] |= {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token"}
    written = write(folder, built, FORMS[0], compare=not why_not_plain(config))
    if _is_timm(config) and built is not config:
        path = written.archive / "open_clip_config.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "model_cfg": config}))
    return written._replace(note=note)


def _is_timm(config: Mapping[str, Any]) -> bool:
    return "timm_model_name" in config["vision_cfg"]


def write_archive(folder: Path, shape: Shape, form: str, activation: str = "quick_gelu") -> Written:
    """OpenAI's own form, a TorchScript archive, as utils/make_random_clip.py writes it or wrote it before.

    Args:
        form: "half precision" for tensors as OpenAI's files have them; "of before" states no activation; "" else.
    """
    model = make_model(config_for(shape, activation), folder)
    if form == "of before":  # known by layer norms that nobody has trained
        model.ln_final.weight.data.fill_(1)
        model.ln_final.bias.data.zero_()
    sizes = ClipSizes(
        shape.resolution,
        shape.patch,
        shape.vision_width,
        shape.vision_layers,
        shape.embed,
        shape.text_width,
        shape.text_layers,
        shape.context,
        shape.vocab,
        shape.vision_head,
        activation=activation,
    )
    state = {**random_state_dict(sizes), **state_of(model)}
    if form == "of before":
        del state[IS_QUICK_GELU]
    if form == "half precision":
        state = half_weights(state)
        model.load_state_dict({name: state[name].float() for name in model.state_dict()})
    save_archive(state, folder / "ViT.pt")
    inputs = shape.inputs()
    return Written(folder / "ViT.pt", inputs, features(model, inputs))


def write_clip4clip(folder: Path, shape: Shape) -> Written:
    """A CLIP4Clip checkpoint with mean pooling, as its training saves it."""
    model = make_model(config_for(shape, "quick_gelu"), folder)
    torch.save({f"clip.{key}": value for key, value in state_of(model).items()}, folder / "pytorch_model.bin.4")
    inputs = shape.inputs()
    return Written(folder / "pytorch_model.bin.4", inputs, features(model, inputs))


def write_bare(folder: Path, shape: Shape) -> Written:
    """A state dict alone, of which nothing says how it computes."""
    save_file(state_of(make_model(config_for(shape, "gelu"), folder)), folder / "weights.safetensors")
    return Written(folder / "weights.safetensors", shape.inputs())
