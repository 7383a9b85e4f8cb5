"""Every source that the table has, each with what has to happen. A library is imported when its first row is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.clip_sources.source import EITHER, HALF, LOADS, REFUSED, SHAPES, Shape, Source, Written

TINY = SHAPES["tiny"]
UNEVEN = replace(TINY, resolution=35)
FULL = ("ViT-B/16", "ViT-B/32", "ViT-L/14", "ViT-H/14, two layers")
FOLDER = "folder"
HALVES = {"image_mean": list(HALF), "image_std": list(HALF)}


def hugging_face(
    name: str,
    form: str = FOLDER,
    activation: str = "quick_gelu",
    shape: Shape | None = None,
    outcome: str = LOADS,
    message: str = "",
    **changes: Any,
) -> Source:
    """A CLIPModel's folder; `changes` are those of `hugging_face.write`, `rewrite` by its name there."""

    def make(folder: Path) -> Written:
        from tests.clip_sources import hugging_face

        rewrite = getattr(hugging_face, changes.get("rewrite", ""), None)
        return hugging_face.write(folder, shape or SHAPES[name], activation, form, **{**changes, "rewrite": rewrite})

    return Source(name, "transformers", form, activation, make, outcome, message)


def open_clip(
    name: str,
    form: str = FOLDER,
    activation: str = "gelu",
    shape: Shape | None = None,
    outcome: str = LOADS,
    message: str = "",
    changes: Mapping[str, Any] | None = None,
    table_name: str = "",
    preprocess: Mapping[str, Any] | None = None,
) -> Source:
    """A model of open_clip; `changes` of its configuration, where `vision_cfg` and `text_cfg` add to what is there."""

    def make(folder: Path) -> Written:
        from tests.clip_sources import open_clips

        config = open_clips.config_of(table_name) if table_name else {}
        config = config or open_clips.config_for(shape or SHAPES[name], activation)
        for key, value in (changes or {}).items():
            config[key] = {**config.get(key, {}), **value} if key.endswith("_cfg") else value
        return open_clips.write(
            folder, config, form, name=table_name, preprocess=preprocess, compare=outcome != REFUSED
        )

    return Source(name, "open_clip", form, activation, make, outcome, message)


def made(
    name: str, library: str, form: str, activation: str, module: str, function: str, *arguments: Any, **rest: Any
) -> Source:
    """A source that a function of one of the two modules writes."""

    def make(folder: Path) -> Written:
        from importlib import import_module

        return getattr(import_module(f"tests.clip_sources.{module}"), function)(folder, *arguments)

    return Source(name, library, form, activation, make, **rest)


def by_name(name: str) -> Source:
    """One model of open_clip's table, which has to load if its configuration is that of CLIP's ViT."""
    from tests.clip_sources import open_clips

    config = open_clips.config_of(name)
    refused = bool(open_clips.why_not_plain(config))
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    outcome = REFUSED if refused else LOADS
    return made(name, "open_clip", FOLDER, activation, "open_clips", "write_by_name", name, outcome=outcome)


def user_folder(folder: Path) -> Source:
    """A user's own folder of transformers, whatever is in it."""
    from tests.clip_sources import hugging_face

    def make(_: Path) -> Written:
        return hugging_face.write_user_folder(folder)

    return Source(folder.name, "transformers", FOLDER, "", make, EITHER)


def sized() -> list[Source]:
    """At full size."""
    rows = [hugging_face(name) for name in FULL if "H/14" not in name]
    rows += [hugging_face("ViT-B/16", activation="gelu"), hugging_face("ViT-H/14, two layers", activation="gelu")]
    rows += [open_clip(name) for name in FULL]
    rows += [open_clip("ViT-B/16", activation="quick_gelu", table_name="ViT-B-16-quickgelu")]
    rows += [open_clip("ViT-B/16", "file, --clip_model", table_name="ViT-B-16")]
    rows += [
        made(
            "ViT-B/16", "OpenAI", "TorchScript", "quick_gelu", "open_clips", "write_archive", *(SHAPES["ViT-B/16"], "")
        )
    ]
    return rows


def small() -> list[Source]:
    """Small ones in every form, with odd widths and means."""
    rows = []
    for form in (
        "folder with preprocessor",
        "folder with processor",
        "folder of parts",
        "folder of parts, .bin",
        "folder, bfloat16",
        "folder with .bin",
        "folder, half precision",
        "folder as on the hub",
    ):
        rows += [hugging_face("tiny", form), hugging_face("tiny", form, "gelu")]
    for form in (
        "folder with .bin",
        "folder with .bin and .safetensors",
        "folder, entries with module.",
        "training's checkpoint, --activation",
    ):
        rows += [open_clip("tiny", form), open_clip("tiny", form, "quick_gelu")]
    for name in SHAPES:
        if name.startswith("tiny"):
            rows += [hugging_face(name), hugging_face(name, activation="gelu")]
            rows += [open_clip(name), open_clip(name, activation="quick_gelu")]
    for form in ("folder with preprocessor", "folder with processor"):
        rows.append(hugging_face("tiny, mean and deviation 0.5", form, shape=TINY, processor=HALVES))
    usual = Shape(32, 8, 48, 2, 4, 40, 32, 2, 4, 600, 20)  # transformers takes 12 and 8 heads for granted
    rows.append(hugging_face("tiny, config.json without defaults", shape=usual, rewrite="without_defaults"))
    for activation in ("gelu", "quick_gelu"):
        rows.append(
            hugging_face(
                "tiny, config.json with text_config_dict", FOLDER, activation, TINY, rewrite="with_former_names"
            )
        )
    mean = {"mean": HALF, "std": HALF}
    rows.append(open_clip("tiny, mean and deviation 0.5", shape=TINY, preprocess=mean))
    for form, activation in (
        ("", "quick_gelu"),
        ("half precision", "quick_gelu"),
        ("of before", "quick_gelu"),
        ("", "gelu"),
    ):
        title = f"TorchScript{', ' * bool(form)}{form}"
        arguments = ("tiny", "OpenAI", title, activation, "open_clips", "write_archive", TINY, form, activation)
        rows.append(made(*arguments))
    sixteen = SHAPES["tiny, patches of 7, heads of 16"]
    rows.append(
        made("tiny, heads of 16", "OpenAI", "TorchScript", "quick_gelu", "open_clips", "write_archive", sixteen, "")
    )
    rows.append(made("tiny", "CLIP4Clip", "entries with clip.", "quick_gelu", "open_clips", "write_clip4clip", TINY))
    return rows


def refused_of_transformers() -> list[Source]:
    """What transformers has and no CLIP of OpenAI's kind computes."""

    def refused(name: str, message: str = "", outcome: str = REFUSED, form: str = FOLDER, **changes: Any) -> Source:
        activation, shape = changes.pop("activation", "gelu"), changes.pop("shape", TINY)
        return hugging_face(name, form, activation, shape, outcome, message, **changes)

    rows = [
        refused("hidden_act gelu_new", "gelu_new", activation="gelu_new"),
        refused("hidden_act of one tower alone", "quick_gelu", text={"hidden_act": "quick_gelu"}),
        refused("layer_norm_eps 1e-3", "layer_norm_eps", vision={"layer_norm_eps": 1e-3}),
        refused("layer_norm_eps 1e-3 in text", "layer_norm_eps", text={"layer_norm_eps": 1e-3}),
        refused("intermediate_size three times", "intermediate_size", vision={"intermediate_size": 192}),
        refused("intermediate_size of text", "intermediate_size", text={"intermediate_size": 128}),
        refused("another eos_token_id", "eos_token_id", text={"eos_token_id": 5}),
        refused("text_config_dict says otherwise", "", EITHER, rewrite="contradicted"),
        refused("no eos_token_id with a small vocabulary", "", EITHER, rewrite="without_end_token"),
        refused("pictures that patches do not fill", "", EITHER, shape=UNEVEN),
        refused("no normalisation", "", EITHER, processor={"do_normalize": False}),
        refused("pixels from -1 to 1", "", EITHER, processor={"rescale_factor": 1 / 127.5}),
    ]
    for title, function, arguments in (
        ("SigLIP", "write_siglip", (TINY,)),
        ("text tower alone", "write_tower", (TINY, "text")),
        ("vision tower alone", "write_tower", (TINY, "vision")),
    ):
        arguments = (title, "transformers", FOLDER, "gelu", "hugging_face", function, *arguments)
        rows.append(made(*arguments, outcome=REFUSED, message="siglip" if title == "SigLIP" else "clip_.*_model"))
    return rows


# Kind, what its message has to hold, and what its configuration says beside that of a plain CLIP.
KINDS_OF_OPEN_CLIP: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("LayerScale", "ls_init_value", {"vision_cfg": {"ls_init_value": 1e-4}}),
    ("LayerScale in text", "ls_init_value", {"text_cfg": {"ls_init_value": 1e-4}}),
    ("average pooling", "pool_type", {"vision_cfg": {"pool_type": "avg"}}),
    ("attentional pooling", "attentional_pool", {"vision_cfg": {"attentional_pool": True}}),
    ("no causal mask", "no_causal_mask", {"text_cfg": {"no_causal_mask": True}}),
    ("text read at its last place", "pool_type", {"text_cfg": {"pool_type": "last"}}),
    ("text read at another token", "pool_type|eos", {"text_cfg": {"pool_type": "eos", "eos_id": 2}}),
    ("class token in text", "embed_cls", {"text_cfg": {"embed_cls": True}}),
    ("no_ln_pre", "no_ln_pre", {"vision_cfg": {"no_ln_pre": True}}),
    ("mlp ratio 3", "mlp_ratio", {"vision_cfg": {"mlp_ratio": 3.0}}),
    ("mlp ratio 2 in text", "mlp_ratio", {"text_cfg": {"mlp_ratio": 2.0}}),
    ("norm_kwargs", "norm_kwargs", {"vision_cfg": {"norm_kwargs": {"eps": 1e-3}}}),
    ("act_kwargs", "act_kwargs", {"text_cfg": {"act_kwargs": {"approximate": "tanh"}}}),
    ("projection with bias", "proj_bias", {"text_cfg": {"proj_bias": True}}),
    ("qk_norm", "qk_norm", {"vision_cfg": {"qk_norm": True}}),
    ("cosine attention", "scaled_cosine_attn", {"vision_cfg": {"scaled_cosine_attn": True}}),
    ("scaled heads", "scale_heads", {"text_cfg": {"scale_heads": True}}),
    ("scale_attn", "scale_attn", {"vision_cfg": {"scale_attn": True}}),
    ("scale_attn_inner", "scale_attn_inner", {"vision_cfg": {"scale_attn_inner": True}}),
    ("scale_fc", "scale_fc", {"vision_cfg": {"scale_fc": True}}),
    ("logit bias", "logit_bias", {"init_logit_bias": -10.0}),
    ("custom text tower", "custom_text", {"custom_text": True}),
)
HARMLESS_OF_OPEN_CLIP: tuple[tuple[str, dict[str, Any]], ...] = (
    ("patches dropped in training", {"vision_cfg": {"patch_dropout": 0.5}}),
    ("positions by sine and cosine", {"vision_cfg": {"pos_embed_type": "sin_cos_2d"}}),
    ("norm behind pooling", {"vision_cfg": {"final_ln_after_pool": True}}),
    ("blocks of the other kind", {"vision_cfg": {"block_type": "custom"}, "text_cfg": {"block_type": "custom"}}),
    ("logit scale as a list", {"nonscalar_logit_scale": True}),
    ("text read at its end token", {"text_cfg": {"pool_type": "eos", "eos_id": 599}}),
)
TABLE_OF_OPEN_CLIP = (  # by name, with what the message has to hold
    ("ViT-B-16-SigLIP", "timm|vit_base_patch16_siglip"),
    ("EVA02-B-16", "timm|eva02"),
    ("MobileCLIP-S1", "timm|fastvit"),
    ("coca_ViT-B-32", "CoCa|multimodal"),
    ("RN50", "ResNet|RN50"),
    ("ViT-H-14-CLIPA", "no_ln_pre|pool_type"),
    ("ViT-bigG-14", "mlp_ratio"),
    ("ViT-L-14-worldwide", "pool_type|eos|tokenizer"),
    ("ViT-M-16-alt", "ls_init_value"),
    ("roberta-ViT-B-32", "hf_model_name|roberta"),
)


def refused_of_open_clip() -> list[Source]:
    """Models of open_clip that compute something else, and settings that change nothing, which may be taken."""
    rows = [
        open_clip(kind, shape=TINY, outcome=REFUSED, message=message, changes=changes)
        for kind, message, changes in KINDS_OF_OPEN_CLIP
    ]
    rows += [open_clip(kind, shape=TINY, outcome=EITHER, changes=changes) for kind, changes in HARMLESS_OF_OPEN_CLIP]
    rows.append(open_clip("pictures that patches do not fill", shape=UNEVEN, outcome=EITHER))
    return rows + [small_by_name(name, REFUSED, message) for name, message in TABLE_OF_OPEN_CLIP]


def small_by_name(name: str, outcome: str, message: str = "") -> Source:
    """The kind of model that a name of open_clip's table stands for, as small as its configuration lets it be."""

    def make(folder: Path) -> Written:
        from tests.clip_sources import open_clips

        config = open_clips.config_of(name)
        return open_clips.write(folder, open_clips.reduced(config), FOLDER, compare=outcome != REFUSED)

    return Source(f"{name}, reduced", "open_clip", FOLDER, "its own", make, outcome, message)


def bare() -> Source:
    """A state dict of which nothing says how it computes."""
    flags = "(?s)(--activation.*--clip_model|--clip_model.*--activation)"
    return made(
        "tiny",
        "open_clip",
        "file alone",
        "not stated",
        "open_clips",
        "write_bare",
        TINY,
        outcome=REFUSED,
        message=flags,
    )


def all_sources() -> list[Source]:
    """The whole table."""
    return unique([*sized(), *small(), bare(), *refused_of_transformers(), *refused_of_open_clip()])


def unique(sources: list[Source]) -> list[Source]:
    """Sources without those of a title that was there before."""
    return list({source.title: source for source in reversed(sources)}.values())[::-1]
