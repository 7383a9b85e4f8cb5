"""Initial values of the parameters, those of the released code, and what a new model takes over from CLIP."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.backbone import Backbone
from modules.config import ModelConfig

StateDict = Mapping[str, Tensor]

TELLING = {  # entries that tell the sizes of a CLIP, and their dimensions
    "visual.conv1.weight": (4, 5),
    "visual.positional_embedding": (2,),
    "token_embedding.weight": (2,),
    "text_projection": (2,),
    "positional_embedding": (2,),
}


def initialise(model: Backbone) -> None:
    """Draw every parameter from its initial distribution (torch's global generator; seed it first).

    Linear and embedding weights N(0, .02), biases 0; then what modules draw themselves: a module with parameters of its
    own has a method `draw()` for them.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in model.modules():
        draw = getattr(module, "draw", None)
        if callable(draw):
            draw()


def config_from_clip(state: StateDict, **choices: object) -> ModelConfig:
    """Sizes of a CLIP state dict (OpenAI's keys), with the caller's own choices for the rest.

    Only what shapes tell: widths of heads, activation and pixels are of the choices, else `ModelConfig`'s defaults.

    Raises:
        ValueError: the state dict is not a ViT CLIP; names the first key that is missing.
    """
    for key, dimensions in TELLING.items():
        if key not in state:
            raise ValueError(f"not a CLIP ViT state dict: it has no entry {key}")
        if state[key].ndim not in dimensions:
            raise ValueError(f"not a CLIP ViT state dict: {key} has {state[key].ndim} dimensions")
    patch = state["visual.conv1.weight"].shape[-1]
    grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    sizes = {
        "image_resolution": grid * patch,
        "patch_size": patch,
        "vision_width": state["visual.conv1.weight"].shape[0],
        "vision_layers": count_blocks(state, "visual.transformer."),
        "embed_dim": state["text_projection"].shape[1],
        "context_length": state["positional_embedding"].shape[0],
        "vocab_size": state["token_embedding.weight"].shape[0],
        "text_width": state["token_embedding.weight"].shape[1],
        "text_layers": count_blocks(state, "transformer."),
        "linear_patch": "3d" if state["visual.conv1.weight"].ndim == 5 else "2d",
    }
    return ModelConfig(**{**sizes, **choices})


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """A visual table of positions for a picture of another size: (1 + G·G, D) -> (1 + grid·grid, D), [CLS] first.

    Bicubic and antialiased, as open_clip does; one of that size already is returned as it is.

    Raises:
        ValueError: it is not that of a square picture.
    """
    before = math.isqrt(max(0, table.shape[0] - 1)) if table.ndim == 2 else 0
    if not before or before**2 + 1 != table.shape[0]:
        raise ValueError(f"a table of positions of shape {tuple(table.shape)} is not that of a square picture")
    if before == grid:
        return table
    patches = table[1:].float().view(1, before, before, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", antialias=True)
    return torch.cat([table[:1].float(), patches.flatten(2)[0].t()])


def count_blocks(state: StateDict, prefix: str) -> int:
    """Number of residual blocks stored under `prefix`."""
    start = prefix + "resblocks."
    return len({key[len(start) :].split(".")[0] for key in state if key.startswith(start)})


def load_clip(model: Backbone, state: StateDict, given: set[str] | None = None) -> list[str]:
    """Copy CLIP's weights, and what starts from them, into the model.

    CLIP's own towers take their entries. Other modules say in `starts_from` which part of CLIP their initial values
    come from; where CLIP has nothing of the same shape, they keep their own.

    Args:
        state: OpenAI's keys.
        given: names of parameters that a checkpoint has already set; these are never overwritten.

    Returns:
        Names of the parameters that were set.

    Raises:
        ValueError: as `check_clip`.
    """
    given = given or set()
    check_clip(model, state, given)
    own = {f"clip.{name}": name for name, _ in model.clip.named_parameters()}
    sources = own | _sources(model)
    done = []
    for name, parameter in model.named_parameters():
        if name in given or name not in sources:
            continue
        key = sources[name]
        value = state.get(key)
        if value is not None:
            value = _fit(value.float(), parameter, is_positions=name not in own and key == "positional_embedding")
        if value is not None and value.shape == parameter.shape:
            with torch.no_grad():
                parameter.copy_(value)
            done.append(name)
    return done


def check_clip(model: Backbone, state: StateDict, given: set[str] | None = None) -> None:
    """Hold CLIP's weights against the model, whose parameters may be on the meta device; arguments as `load_clip`.

    Raises:
        ValueError: an entry of CLIP's towers is missing or of another size; all are named.
    """
    problems = []
    for key, parameter in model.clip.named_parameters():
        if f"clip.{key}" in (given or ()):
            continue
        found = "is missing"
        if key in state:
            shape = tuple(state[key].shape)
            if (*shape[:2], 3, *shape[2:]) == tuple(parameter.shape) or shape == tuple(parameter.shape):
                continue
            found = f"has shape {shape}"
        problems.append(f"{key} {found}, the model needs {tuple(parameter.shape)}")
    if problems:
        raise ValueError("the CLIP weights do not fit the model: " + "; ".join(problems))


def _sources(model: Backbone) -> dict[str, str]:
    """CLIP entry by the name of the parameter outside CLIP that starts from it."""
    keys = {id(parameter): name for name, parameter in model.clip.named_parameters()}
    found = {}
    for path, module in model.named_modules():
        if not hasattr(module, "starts_from"):
            continue
        for name, source in module.starts_from(model.clip).items():
            parts = [("", source)] if isinstance(source, nn.Parameter) else source.named_parameters()
            found.update({".".join(filter(None, (path, name, inner))): keys[id(part)] for inner, part in parts})
    return found


def _fit(value: Tensor, parameter: Tensor, *, is_positions: bool) -> Tensor:
    """A 2d patch filter becomes the centre slice of a 3d one (CLIP4Clip); a table of positions takes CLIP's first rows
    in front of its own initial ones, if they are as wide.
    """
    if value.ndim == 4 and parameter.ndim == 5:
        inflated = torch.zeros(*value.shape[:2], 3, *value.shape[2:])
        inflated[:, :, 1] = value
        return inflated
    if is_positions and value.shape[1] == parameter.shape[1]:
        return torch.cat([value[: parameter.shape[0]], parameter.detach().cpu()[value.shape[0] :]])
    return value
