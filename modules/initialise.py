"""Initial values of the parameters, those of the released code, and what a new model takes over from CLIP."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from modules.backbone import Backbone
from modules.config import HEAD_WIDTH, ModelConfig

StateDict = Mapping[str, Tensor]


def initialise(model: Backbone) -> None:
    """Draw every parameter from its initial distribution (torch's global generator; seed it first).

    Linear and embedding weights N(0, .02), packed attention weights Xavier as torch's MultiheadAttention, biases 0,
    position tables N(0, .01), raw embeddings and projection matrices N(0, 1) / sqrt(width).
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        leaf = name.split(".")[-1]
        if leaf == "in_proj_weight":
            nn.init.xavier_uniform_(parameter)
        elif leaf in ("positional_embedding", "frame_embedding"):
            nn.init.normal_(parameter, std=0.01)
        elif leaf in ("proj", "text_projection", "match", "unmatch", "queries", "cls_embedding", "class_embedding"):
            fan = parameter.shape[0] if leaf in ("proj", "text_projection") else parameter.shape[-1]
            nn.init.normal_(parameter, std=fan**-0.5)


def config_from_clip(state: StateDict, **choices: object) -> ModelConfig:
    """Sizes of a CLIP state dict (OpenAI's keys), with the caller's own choices for the rest.

    Heads are as wide as OpenAI's unless the entry `head_width` says otherwise (utils/make_random_clip.py).

    Raises:
        ValueError: the state dict is not a ViT CLIP; names the first key that is missing.
    """
    for key in ("visual.conv1.weight", "visual.positional_embedding", "token_embedding.weight", "text_projection"):
        if key not in state:
            raise ValueError(f"not a CLIP ViT state dict: it has no entry {key}")
    patch = state["visual.conv1.weight"].shape[-1]
    grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    sizes = {
        "head_width": int(state.get("head_width", HEAD_WIDTH)),
        "image_resolution": grid * patch,
        "patch_size": patch,
        "vision_width": state["visual.conv1.weight"].shape[0],
        "vision_layers": count_blocks(state, "visual.transformer."),
        "embed_dim": state["text_projection"].shape[1],
        "context_length": state["positional_embedding"].shape[0],
        "vocab_size": state["token_embedding.weight"].shape[0],
        "text_width": state["token_embedding.weight"].shape[1],
        "text_layers": count_blocks(state, "transformer."),
    }
    return ModelConfig(**{**sizes, **choices})


def count_blocks(state: StateDict, prefix: str) -> int:
    """Number of residual blocks stored under `prefix`."""
    start = prefix + "resblocks."
    return len({key[len(start) :].split(".")[0] for key in state if key.startswith(start)})


def load_clip(model: Backbone, state: StateDict, given: set[str] | None = None) -> list[str]:
    """Copy CLIP's weights, and what starts from them, into the model.

    CLIP's own towers take their entries. Fusion blocks and sequence headers start from the text blocks, their positions
    from CLIP's (first rows). Trajectory and action blocks start from the last two visual blocks, with the visual
    tower's ln_post and projection.

    Args:
        state: OpenAI's keys.
        given: names of parameters that a checkpoint has already set; these are never overwritten.

    Returns:
        Names of the parameters that were set.

    Raises:
        ValueError: an entry of CLIP's towers is missing or of another size; all are named.
    """
    given = given or set()
    targets = dict(model.named_parameters())
    problems, done = [], []
    for name, parameter in targets.items():
        source = _source_of(model, name)
        if name in given or source is None:
            continue
        value = state.get(source[0])
        if value is None:
            if name.startswith("clip."):
                problems.append(f"{source[0]} is missing")
            continue
        value = source[1](value.float(), parameter)
        if value.shape != parameter.shape:
            if name.startswith("clip."):
                problems.append(f"{source[0]} has shape {tuple(value.shape)}, the model needs {tuple(parameter.shape)}")
            continue
        with torch.no_grad():
            parameter.copy_(value)
        done.append(name)
    if problems:
        raise ValueError("the CLIP weights do not fit the model: " + "; ".join(problems))
    return done


def _source_of(model: Backbone, name: str) -> tuple[str, Callable[[Tensor, Tensor], Tensor]] | None:
    """CLIP entry that a parameter starts from, and how its value is fitted; None when CLIP has nothing for it."""
    last = model.config.vision_layers - 1
    if name == "clip.visual.conv1.weight" and model.config.linear_patch == "3d":
        return "visual.conv1.weight", _inflate
    if name.startswith("clip."):
        return name.removeprefix("clip."), _same
    moves = {
        "fusion.blocks.": "transformer.resblocks.",
        "trajectory_encoder.block.": f"visual.transformer.resblocks.{last - 1}.",
        "action_encoder.blocks.0.": f"visual.transformer.resblocks.{last - 1}.",
        "action_encoder.blocks.1.": f"visual.transformer.resblocks.{last}.",
        "trajectory_encoder.ln_post.": "visual.ln_post.",
        "action_encoder.ln_post.": "visual.ln_post.",
        "similarity.transformer.resblocks.": "transformer.resblocks.",
    }
    for prefix, source in moves.items():
        if name.startswith(prefix):
            return source + name[len(prefix) :], _same
    if name in ("trajectory_encoder.proj", "action_encoder.proj"):
        return "visual.proj", _same
    if name in (
        "fusion.positional_embedding",
        "similarity.position_embeddings.weight",
        "similarity.frame_position_embeddings.weight",
    ):
        return "positional_embedding", _first_rows
    return None


def _same(value: Tensor, parameter: Tensor) -> Tensor:
    return value


def _inflate(value: Tensor, parameter: Tensor) -> Tensor:
    """2d patch filter -> 3d filter whose centre slice it is (CLIP4Clip)."""
    inflated = torch.zeros(*value.shape[:2], 3, *value.shape[2:])
    inflated[:, :, 1] = value
    return inflated


def _first_rows(value: Tensor, parameter: Tensor) -> Tensor:
    """CLIP's rows in front of the parameter's own initial rows; other widths leave the parameter as it is."""
    if value.shape[1] != parameter.shape[1]:
        return parameter.detach()
    return torch.cat([value[: parameter.shape[0]], parameter.detach()[value.shape[0] :]])
