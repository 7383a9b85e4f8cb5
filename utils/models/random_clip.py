"""A CLIP with random weights of any size, with the keys of OpenAI's archives."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn

from dataloaders.files import atomic_path
from modules.config import ACTIVATIONS, HEAD_WIDTH, QUICK_GELU

# Integers in an archive that say of it what its tensors do not.
STATED_HEAD_WIDTH, STATED_TEXT_HEAD_WIDTH, IS_QUICK_GELU = "head_width", "text_head_width", "quick_gelu"
OPENAI_INTEGERS = ("input_resolution", "context_length", "vocab_size")
PLAIN_MODULE = re.compile(r"__torch__\.torch\.nn\.modules\.module\.(___torch_mangle_\d+\.)?Module")


@dataclass(frozen=True)
class ClipSizes:
    """Sizes of a CLIP with a vision transformer.

    Attributes:
        image_resolution: side of the square input, in pixels.
        patch_size: side of a patch, in pixels.
        vision_width, vision_layers: image tower.
        embed_dim: width of the shared space.
        text_width, text_layers: text tower.
        context_length: text positions.
        vocab_size: text tokens; 49408 for the whole of CLIP's tokenizer, fewer for its first merges.
        head_width: of the attention. OpenAI's archives do not state it, theirs is 64; another one is stated.
        text_head_width: of the text tower's, where it is another than the image tower's.
        activation: "quick_gelu" or "gelu".
        embedding_gain: token and text position embeddings start so many times larger than CLIP's.
    """

    image_resolution: int = 64
    patch_size: int = 16
    vision_width: int = 128
    vision_layers: int = 4
    embed_dim: int = 128
    text_width: int = 128
    text_layers: int = 2
    context_length: int = 77
    vocab_size: int = 49408
    head_width: int = HEAD_WIDTH
    embedding_gain: int = 1
    activation: str = QUICK_GELU
    text_head_width: int | None = None

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"--activation {self.activation}: choose one of {', '.join(ACTIVATIONS)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"--{field.name} must be at least 1")
        if self.image_resolution % self.patch_size:
            raise ValueError(f"--image_resolution must be a multiple of --patch_size ({self.patch_size})")
        text_heads = "head_width" if self.text_head_width is None else "text_head_width"
        for name, heads in (("vision_width", "head_width"), ("text_width", text_heads)):
            width, of_head = getattr(self, name), getattr(self, heads)
            if width > of_head and width % of_head:
                raise ValueError(f"--{name} {width} must be a multiple of --{heads} {of_head}, or less")


PRESETS = {
    # Logits over all of CLIP's tokens would take as long as all the rest of so small a model. Two heads of 64 are too
    # few to keep things apart, and embeddings of CLIP's start values drown in what the first blocks add to them.
    "demo": ClipSizes(vocab_size=8192, head_width=16, embedding_gain=20),
    "ViT-B-32": ClipSizes(224, 32, 768, 12, 512, 512, 12),
    "ViT-B-16": ClipSizes(224, 16, 768, 12, 512, 512, 12),
    "ViT-L-14": ClipSizes(224, 14, 1024, 24, 768, 768, 12),
    "ViT-L-14-336": ClipSizes(336, 14, 1024, 24, 768, 768, 12),
    "ViT-H-14": ClipSizes(224, 14, 1280, 32, 1024, 1024, 24, head_width=80, activation="gelu", text_head_width=64),
}


def random_state_dict(sizes: ClipSizes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights with OpenAI's names and the standard deviations of its `CLIP.initialize_parameters`.

    That function leaves the blocks of a vision transformer to PyTorch's defaults; here both towers have the text
    tower's rule. Biases are 0.

    Returns:
        Floating tensors, the three integers that OpenAI's files hold beside them, and three that they do not:
        `head_width` where it is not 64, `text_head_width` where it is another, and `quick_gelu`, 1 or 0.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(std: float, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * std

    vision, text, patch = sizes.vision_width, sizes.text_width, sizes.patch_size
    patches = (sizes.image_resolution // patch) ** 2
    state = {
        "visual.class_embedding": normal(vision**-0.5, vision),
        "visual.positional_embedding": normal(vision**-0.5, patches + 1, vision),
        "visual.proj": normal(vision**-0.5, vision, sizes.embed_dim),
        # The variance of PyTorch's default for a convolution.
        "visual.conv1.weight": normal((3 * 3 * patch**2) ** -0.5, vision, 3, patch, patch),
        **_layer_norm("visual.ln_pre", vision),
        **_layer_norm("visual.ln_post", vision),
    }
    for tower, width, layers in (("visual.", vision, sizes.vision_layers), ("", text, sizes.text_layers)):
        output_std = width**-0.5 * (2 * layers) ** -0.5
        for layer in range(layers):
            block = f"{tower}transformer.resblocks.{layer}"
            state |= {
                f"{block}.attn.in_proj_weight": normal(width**-0.5, 3 * width, width),
                f"{block}.attn.in_proj_bias": torch.zeros(3 * width),
                f"{block}.attn.out_proj.weight": normal(output_std, width, width),
                f"{block}.attn.out_proj.bias": torch.zeros(width),
                **_layer_norm(f"{block}.ln_1", width),
                f"{block}.mlp.c_fc.weight": normal((2 * width) ** -0.5, 4 * width, width),
                f"{block}.mlp.c_fc.bias": torch.zeros(4 * width),
                f"{block}.mlp.c_proj.weight": normal(output_std, width, 4 * width),
                f"{block}.mlp.c_proj.bias": torch.zeros(width),
                **_layer_norm(f"{block}.ln_2", width),
            }
    if sizes.head_width != HEAD_WIDTH:
        state[STATED_HEAD_WIDTH] = torch.tensor(sizes.head_width)
    if sizes.text_head_width not in (None, sizes.head_width):
        state[STATED_TEXT_HEAD_WIDTH] = torch.tensor(sizes.text_head_width)
    return state | {
        IS_QUICK_GELU: torch.tensor(int(sizes.activation == QUICK_GELU)),
        "token_embedding.weight": normal(0.02 * sizes.embedding_gain, sizes.vocab_size, text),
        "positional_embedding": normal(0.01 * sizes.embedding_gain, sizes.context_length, text),
        **_layer_norm("ln_final", text),
        "text_projection": normal(text**-0.5, text, sizes.embed_dim),
        "logit_scale": torch.tensor(math.log(1 / 0.07)),
        "input_resolution": torch.tensor(sizes.image_resolution),
        "context_length": torch.tensor(sizes.context_length),
        "vocab_size": torch.tensor(sizes.vocab_size),
    }


def _layer_norm(name: str, width: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}


def half_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with the tensors in half precision that OpenAI's files hold so: linear, convolution, projections."""
    suffixes = ("attn.in_proj_weight", "attn.in_proj_bias", "visual.proj", "text_projection", "conv1.weight")
    layers = ("out_proj.weight", "out_proj.bias", "c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")
    return {name: value.half() if name.endswith((*suffixes, *layers)) else value for name, value in state.items()}


def save_archive(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state dict as a TorchScript file: `torch.jit.load(path).state_dict()` gives it back.

    Raises:
        OSError: the file cannot be written.
    """
    root = nn.Module()
    for name, value in state.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = getattr(module, parent)
        if value.is_floating_point():
            module.register_parameter(leaf, nn.Parameter(value))
        else:
            module.register_buffer(leaf, value)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # The format is OpenAI's; that TorchScript is on its way out changes nothing about it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            torch.jit.save(torch.jit.script(root), str(temporary))
        except RuntimeError as error:
            raise OSError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from error


def is_random_archive(root_class: str, state: Mapping[str, torch.Tensor]) -> bool:
    """Whether a TorchScript file has the form of those that `save_archive` wrote before they stated an activation.

    Other programs trace a class of their own; and layer norms that nobody has trained are of no trained model.
    """
    weight, bias = state.get("ln_final.weight"), state.get("ln_final.bias")
    if (
        not PLAIN_MODULE.fullmatch(root_class)
        or not set(OPENAI_INTEGERS) <= set(state)
        or weight is None
        or bias is None
    ):
        return False
    return bool((weight == 1).all()) and not bool(bias.any())
