"""Translation of the released code's state dict to this project's parameter names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from modules.backbone import Backbone
from modules.config import ModelConfig
from modules.initialise import config_from_clip

# Released prefix or name -> ours, first match wins. Only block 0 of object_fusion and blocks 0..5 of the fusion
# transformer ever ran.
_LIVE: tuple[tuple[str, str], ...] = (
    (r"clip\.fusion_positional_embedding", r"fusion.positional_embedding"),
    (r"clip\.fusion_transformer\.resblocks\.([0-5])\.(.+)", r"fusion.blocks.\1.\2"),
    (r"clip\.fusion_proj", r"vocabulary_head.proj"),
    (r"clip\.fusion_logit_bias", r"vocabulary_head.bias"),
    (r"clip\.fusion_match_matrix", r"matching_head.match"),
    (r"clip\.fusion_unmatch_matrix", r"matching_head.unmatch"),
    (r"clip\.object_frame_pos_emb", r"object_encoder.frame_embedding"),
    (r"clip\.object_cls_embedding", r"trajectory_encoder.cls_embedding"),
    (r"clip\.object_action", r"action_encoder.queries"),
    (r"clip\.visual\.transformer\.object_encoder\.box_categories", r"object_encoder.slot_embedding"),
    (r"clip\.visual\.transformer\.object_encoder\.patch_to_d\.(.+)", r"object_encoder.patch_mlp.\1"),
    (r"clip\.visual\.transformer\.object_encoder\.c_coord_to_feature\.(.+)", r"object_encoder.box_mlp.\1"),
    (r"clip\.object_fusion\.transformer\.resblocks\.0\.(.+)", r"trajectory_encoder.block.\1"),
    (r"clip\.object_fusion\.(ln_post\..+|proj)", r"trajectory_encoder.\1"),
    (r"clip\.object_act_fusion\.transformer\.resblocks\.([01])\.(.+)", r"action_encoder.blocks.\1.\2"),
    (r"clip\.object_act_fusion\.(ln_post\..+|proj)", r"action_encoder.\1"),
    (r"lstm_visual\.(.+)", r"similarity.lstm.\1"),
    (r"transformerClip\.(.+)", r"similarity.transformer.\1"),
    (r"frame_position_embeddings\.weight", r"similarity.frame_position_embeddings.weight"),
    (r"cross\.embeddings\.position_embeddings\.weight", r"similarity.position_embeddings.weight"),
    (r"cross\.transformer\.(.+)", r"similarity.transformer.\1"),
    (r"cross\.pooler\.(.+)", r"similarity.\1"),
    (r"similarity_dense\.(.+)", r"similarity.similarity_dense.\1"),
)
# Stored by the released code, but read by none of its losses.
_DEAD: tuple[str, ...] = (
    r"clip\.lm_head\..+",
    r"clip\.object_alignment_proj",
    r"clip\.object_logit_bias",
    r"clip\.object_fusion_positional_embedding",
    r"clip\.object_text_fusion_positional_embedding",
    r"clip\.fusion_transformer\.resblocks\.\d+\..+",
    r"clip\.object_fusion\..+",
    r"clip\.object_act_fusion\..+",
    r"obj_ln\..+",
    r"obj_proj",
)
_CLIP = (
    r"clip\.(visual\..+|transformer\..+|token_embedding\.weight|positional_embedding|ln_final\..+"
    r"|text_projection|logit_scale)"
)
TELLING = {  # entries that tell sizes, and how many dimensions they have at least
    "clip.visual.transformer.object_encoder.box_categories": 3,
    "clip.object_action": 2,
    "clip.visual.conv1.weight": 4,
}
_LEGACY_ENDINGS = {".gamma": ".weight", ".beta": ".bias"}


@dataclass
class Conversion:
    """A translated state dict, by our names, and the released keys that are not in it.

    dropped: keys that no released loss reads. unknown: keys outside the table. unused: keys of parts that the model
    does not have.
    """

    state: dict[str, Tensor]
    dropped: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def entries(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a file that the released code wrote, which wraps them or does not."""
    inner = state.get("model_state_dict")
    weights = inner if isinstance(inner, dict) else state
    return {key: value for key, value in weights.items() if isinstance(value, Tensor)}


def is_released(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the released names."""
    return "clip.fusion_positional_embedding" in state


def present_key(key: str) -> str:
    """A released key as later files have it: layer norms of old ones end in gamma and beta."""
    for old, new in _LEGACY_ENDINGS.items():
        if key.endswith(old):
            return key.removesuffix(old) + new
    return key


def our_name(key: str) -> str | None:
    """Our name of a released key; "" for one that no released loss reads, None for an unknown one."""
    for pattern, replacement in _LIVE:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, replacement, key)
    if any(re.fullmatch(pattern, key) for pattern in _DEAD):
        return ""
    return key if re.fullmatch(_CLIP, key) else None


def released_names(keys: list[str]) -> dict[str, str]:
    """Our name -> released key, for those of the released `keys` that have one."""
    return {name: key for key in keys if (name := our_name(key))}


def config_from_released(state: Mapping[str, Tensor], **choices: object) -> ModelConfig:
    """Sizes of a released state dict, with the caller's choices for what no shape tells (layers, modes, words)."""
    clip = {key.removeprefix("clip."): value for key, value in state.items() if key.startswith("clip.")}
    visual = {key: value for key, value in clip.items() if "object_encoder" not in key}
    for key, dimensions in TELLING.items():
        if key not in state or state[key].ndim < dimensions:
            raise ValueError(f"not a whole released checkpoint: no entry {key} of {dimensions} dimensions")
    frames, count, _ = state["clip.visual.transformer.object_encoder.box_categories"].shape
    sizes: dict[str, object] = {
        "max_frames": frames,
        "object_count": count,
        "num_actions": state["clip.object_action"].shape[-2],
    }
    return config_from_clip(visual, **{**sizes, **choices})


def convert(released: Mapping[str, Tensor], model: Backbone) -> Conversion:
    """Translate a released state dict for `model`.

    Raises:
        ValueError: a parameter of the model has no entry, or one of another size; all are named. Similarity headers
            and the answer classifier are left out of this check: the released checkpoint has meanP, which has no
            parameters, and answers by vocabulary.
    """
    wanted = dict(model.named_parameters())
    result = Conversion({})
    for key, value in released.items():
        key = present_key(key)
        name = our_name(key)
        if name is None:
            result.unknown.append(key)
        elif name == "":
            result.dropped.append(key)
        elif name not in wanted:
            result.unused.append(key)
        else:
            result.state[name] = _fit(name, value.float(), wanted[name])
    back = {name: key for key in released if (name := our_name(key))}
    problems = [
        f"no entry for {name}"
        for name in wanted
        if name not in result.state and not name.startswith(("similarity.", "answer_head."))
    ]
    problems += [
        f"{back[name]} has shape {tuple(value.shape)}, the model needs {tuple(wanted[name].shape)}"
        for name, value in result.state.items()
        if value.shape != wanted[name].shape
    ]
    if problems:
        raise ValueError("the released checkpoint does not fit the model: " + "; ".join(problems))
    return result


def _fit(name: str, value: Tensor, parameter: Tensor) -> Tensor:
    """Drop rows of the released position table that no layout can reach, and the leading 1s of the action queries."""
    if name == "fusion.positional_embedding":
        return value[: parameter.shape[0]]
    if name == "action_encoder.queries":
        return value.flatten(0, -2)
    return value
