"""Names that CLIP weights have in other programs, translated to OpenAI's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from modules.released_checkpoint import is_released, our_name
from utils.models.random_clip import OPENAI_INTEGERS
from utils.runtime.checkpoint import CheckpointError

OPENAI, CLIP4CLIP, HUGGING_FACE = "OpenAI's", "CLIP4Clip's", "Hugging Face's"
# Entry by which a layout is known.
SIGNS = {
    "visual.conv1.weight": OPENAI,
    "clip.visual.conv1.weight": CLIP4CLIP,
    "vision_model.embeddings.patch_embedding.weight": HUGGING_FACE,
}
WHAT_LOADS = (
    "CLIP with OpenAI's vision transformer loads (ViT-B/32, B/16, L/14, L/14@336, H/14 and others of that form), from "
    "OpenAI, open_clip, Hugging Face and CLIP4Clip"
)
# Kinds of model that do not load, by an entry that only they have; the first that fits is told.
OTHER_KINDS = (
    (r"fusion\..+|model\.fusion\..+", "a checkpoint of this project; give its file or folder to --init_model"),
    (r"clip\.fusion_.+", "a checkpoint of the released STOA-VLP; give it to --init_model"),
    (r"(clip\.)?visual\.(layer\d|attnpool)\..+", "a CLIP with a ResNet (RN50 and others)"),
    (r"(visual|image_encoder)\.trunk\..+", "a CLIP with an image tower of timm (SigLIP, EVA02, ConvNeXt, ViTamin, …)"),
    (r"text_decoder\..+", "a CoCa"),
    (r"(visual\.)?attn_pool\..+|visual\.ln_k\..+|vision_model\.head\..+", "a model with attentional pooling"),
    (r"(text|text_model)\.transformer\.(embeddings|encoder|shared|wte)\..+", "a CLIP with a text tower of its own"),
    (r"text\..+", "a CLIP with a text tower of its own (custom_text)"),
    (r"logit_bias", "a SigLIP"),
    (r".*\.ls_?[12]\..+|.*\.lambda_?[12]", "a model with LayerScale"),
    (r"(visual|text|vision)_?(model)?\.?(blocks|encoder\.layer)\..+", "a model of another library"),
)
_HUGGING_FACE = (  # name there -> OpenAI's, first match wins; {} is the tower's prefix
    (r"text_model\.embeddings\.token_embedding\.weight", r"token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", r"positional_embedding"),
    (r"text_model\.final_layer_norm\.(weight|bias)", r"ln_final.\1"),
    (r"text_projection\.weight", r"text_projection"),
    (r"vision_model\.embeddings\.class_embedding", r"visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", r"visual.conv1.weight"),
    (r"vision_model\.embeddings\.position_embedding\.weight", r"visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.(weight|bias)", r"visual.ln_pre.\1"),  # spelled so there
    (r"vision_model\.post_layernorm\.(weight|bias)", r"visual.ln_post.\1"),
    (r"visual_projection\.weight", r"visual.proj"),
    (r"logit_scale", r"logit_scale"),
)
_HUGGING_FACE_BLOCK = re.compile(r"(text|vision)_model\.encoder\.layers\.(0|[1-9]\d*)\.(.+)")
_HUGGING_FACE_INNER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_PACKED = ("q_proj", "k_proj", "v_proj")  # in the order of OpenAI's in_proj
_BUFFERS = re.compile(r"(text|vision)_model\.embeddings\.position_ids")  # 0, 1, 2, … in files of earlier versions
_TRANSPOSED = ("text_projection", "visual.proj")  # a linear layer there


class Translated(NamedTuple):
    """Entries by OpenAI's names. header: of a similarity header of CLIP4Clip, by this project's names."""

    layout: str
    state: dict[str, Tensor]
    header: dict[str, Tensor]


def to_openai_names(entries: Mapping[str, Tensor], path: Path) -> Translated:
    """Translate the entries of a weight file.

    Raises:
        CheckpointError: the file is of another kind, which the message names, or an entry has no place.
    """
    layout = next((layout for sign, layout in SIGNS.items() if sign in entries), None)
    refuse_other_kinds(entries, path)
    if layout == HUGGING_FACE:
        return Translated(layout, _from_hugging_face(entries, path), {})
    if layout == CLIP4CLIP:
        return _from_clip4clip(entries, path)
    if layout == OPENAI:
        return Translated(layout, {key: value for key, value in entries.items() if key not in OPENAI_INTEGERS}, {})
    some = ", ".join(sorted(entries)[:3]) or "nothing"
    raise CheckpointError(
        f"{path}: not a CLIP ViT state dict: it has no entry {', '.join(SIGNS)} (it holds {some}, …). {WHAT_LOADS}"
    )


def refuse_other_kinds(entries: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError for a file of a kind that does not load, by its entries."""
    if is_released(entries):
        raise CheckpointError(f"{path}: {OTHER_KINDS[1][1]}")
    for pattern, kind in OTHER_KINDS:
        if key := next((key for key in entries if re.fullmatch(pattern, key)), None):
            remedy = "" if "--init_model" in kind else f". {WHAT_LOADS}"
            raise CheckpointError(f"{path}: {kind}, by its entry {key}{remedy}")


def _from_hugging_face(entries: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, value in entries.items():
        if _BUFFERS.fullmatch(key):
            continue
        name = _openai_name(key)
        if name is None:
            strange.append(key)
        elif name.rpartition(".")[2] in _PACKED:
            place, _, which = name.rpartition(".")
            parts.setdefault(place, {})[which] = value
        else:
            is_linear = name in _TRANSPOSED and value.ndim == 2
            state[name] = value.t().contiguous() if is_linear else value
    if strange:
        raise no_place(strange, path)
    for place, found in parts.items():
        lacking = [f"{which} of {place}" for which in _PACKED if which not in found]
        shapes = {tuple(value.shape) for value in found.values()}
        if lacking or len(shapes) > 1 or () in shapes:
            raise CheckpointError(f"{path}: no entry {', '.join(lacking)}" if lacking else f"{path}: {place}: {shapes}")
        state[place] = torch.cat([found[which] for which in _PACKED])
    return state


def _openai_name(key: str) -> str | None:
    """OpenAI's name of an entry, "….in_proj_weight.q_proj" for a part of a packed one; None if it has no place."""
    for pattern, replacement in _HUGGING_FACE:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, replacement, key)
    if not (found := _HUGGING_FACE_BLOCK.fullmatch(key)):
        return None
    tower, layer, rest = found.groups()
    block = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{layer}"
    inner, _, kind = rest.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    if inner.removeprefix("self_attn.") in _PACKED and inner.startswith("self_attn."):
        return f"{block}.attn.in_proj_{kind}.{inner.removeprefix('self_attn.')}"
    return f"{block}.{_HUGGING_FACE_INNER[inner]}.{kind}" if inner in _HUGGING_FACE_INNER else None


def _from_clip4clip(entries: Mapping[str, Tensor], path: Path) -> Translated:
    """CLIP under `clip.`, a similarity header beside it. With --linear_patch 3d the patch layer there is `conv2`."""
    state = {key.removeprefix("clip."): value for key, value in entries.items() if key.startswith("clip.")}
    if "visual.conv2.weight" in state:
        state["visual.conv1.weight"] = state.pop("visual.conv2.weight")
    others = {key: our_name(key) or "" for key in entries if not key.startswith("clip.")}
    if strange := [key for key, name in others.items() if not name.startswith("similarity.")]:
        raise no_place(strange, path)
    header = {name: entries[key].float() for key, name in others.items()}
    if any(name.startswith("similarity.lstm.") for name in header):
        header.pop("similarity.frame_position_embeddings.weight", None)  # stored beside the LSTM, read by nothing
    return Translated(CLIP4CLIP, state, header)


def no_place(keys: list[str], path: Path) -> CheckpointError:
    """The error for entries that this project's CLIP has no place for."""
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return CheckpointError(f"{path}: no place for its entries {', '.join(sorted(keys)[:5])}{more}. {WHAT_LOADS}")
