"""What a CLIP is beside its tensors, by the configuration of open_clip or Hugging Face that states it."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.config import MAX_PIXEL_VALUE, PIXEL_MEAN, PIXEL_STD, QUICK_GELU, VOCAB_SIZE
from utils.models.clip_layouts import WHAT_LOADS
from utils.models.weight_files import read_configuration
from utils.runtime.checkpoint import CheckpointError

TABLE_FOLDER = "model_configs"  # of the package open_clip


@dataclass(frozen=True)
class Description:
    """What a configuration states.

    Attributes:
        source: who states it, for messages.
        activation: "gelu" or "quick_gelu".
        head_width, text_head_width: of the attention of each tower.
        pixel_mean, pixel_std: of red, green and blue, from 0 to 1.
        sizes: fields of ModelConfig that the tensors tell too.
        remarks: what is prepared otherwise here than there.
    """

    source: str
    activation: str
    head_width: int
    text_head_width: int
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    pixel_std: tuple[float, ...] = PIXEL_STD
    sizes: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """The fields of ModelConfig that no tensor tells."""
        names = ("activation", "head_width", "text_head_width", "pixel_mean", "pixel_std")
        return {name: getattr(self, name) for name in names}


class Settings:
    """Settings of a configuration by name, each of which has to be asked for: what nobody asks for has no place.

    Args:
        values: as in the file.
        source: the file and the part of it, for messages.
    """

    def __init__(self, values: Any, source: str) -> None:
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{source}: {str(values)[:40]!r} is no object with settings; fetch the file again")
        self.values, self.source = dict(values), source
        self.left = dict(values)

    def take(self, name: str, default: Any = None) -> Any:
        """A setting, or its default where there is none."""
        return self.left.pop(name, default)

    def size(self, name: str, default: int) -> int:
        """A size; of a square [n, n], n.

        Raises:
            CheckpointError: it is no whole number above 0.
        """
        value = self.take(name, default)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        if type(value) is not int or not 1 <= value < 1 << 31:
            raise CheckpointError(f"{self.source}: {name} {str(value)[:60]!r} is no size that a CLIP can have")
        return value

    def pixels(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """Mean or deviation of the three colours.

        Raises:
            CheckpointError: it is not three numbers, or a deviation is not above 0.
        """
        value = self.take(name)
        numbers = default if value is None else [value] * 3 if type(value) in (int, float) else value
        is_right = isinstance(numbers, list | tuple) and len(numbers) == 3
        if not is_right or not all(type(one) in (int, float) and abs(one) <= MAX_PIXEL_VALUE for one in numbers):
            raise CheckpointError(f"{self.source}: {name} {str(value)[:60]!r} is not three numbers")
        if "std" in name and min(numbers) <= 0:
            raise CheckpointError(f"{self.source}: {name} {str(value)[:60]!r}: must be above 0")
        return tuple(map(float, numbers))

    def must_be(self, name: str, *allowed: Any, what: str = "") -> None:
        """Refuse another value than those allowed, which the first is the default of."""
        value = self.take(name, allowed[0])
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            raise self.refused(f"{name} {str(value)[:60]!r}{what and f' ({what})'}")

    def refused(self, what: str) -> CheckpointError:
        """The error for a setting that this project's CLIP does not have."""
        return CheckpointError(f"{self.source}: {what} is not what this project's CLIP computes. {WHAT_LOADS}")

    def end(self) -> None:
        """Refuse settings that nobody has asked for, unless they switch something off."""
        if strange := [name for name, value in self.left.items() if value not in (None, False, 0, [], {}, "")]:
            raise self.refused(f"the setting {', '.join(map(str, strange[:5]))}")


def head_width(width: int, heads: int, source: str) -> int:
    """Width of a head; CheckpointError where the width cannot be divided so."""
    if not 1 <= heads <= width or width % heads:
        raise CheckpointError(f"{source}: a width of {width} cannot be divided into {heads} heads")
    return width // heads


def check_vocabulary(size: int, source: str) -> None:
    """Raise CheckpointError for more words than CLIP's tokenizer has: they are of another tokenizer."""
    if size > VOCAB_SIZE:
        raise CheckpointError(
            f"{source}: a vocabulary of {size:,}, CLIP's tokenizer has {VOCAB_SIZE:,}: it is of another. {WHAT_LOADS}"
        )


def from_open_clip(content: Mapping[str, Any], source: str) -> Description:
    """Description by open_clip's configuration: of a file `open_clip_config.json`, or of its table.

    Raises:
        CheckpointError: it is of a model that computes otherwise; the message names the setting.
    """
    whole = Settings(content, source)
    model = Settings(whole.take("model_cfg", content), source)
    pixels = Settings(whole.take("preprocess_cfg", {}), f"{source}, preprocess_cfg")
    vision = Settings(model.take("vision_cfg"), f"{source}, vision_cfg")
    text = Settings(model.take("text_cfg"), f"{source}, text_cfg")
    _refuse_other_towers(model, vision, text)
    sizes = {"embed_dim": model.size("embed_dim", 512), **_vision_sizes(vision), **_text_sizes(text)}
    width, asked = sizes["vision_width"], vision.size("head_width", 64)
    described = Description(
        source,
        _open_clip_activation(model),
        head_width(width, width // asked, vision.source),
        head_width(sizes["text_width"], text.size("heads", 8), text.source),
        pixels.pixels("mean", PIXEL_MEAN),
        pixels.pixels("std", PIXEL_STD),
        sizes,
        _open_clip_preparation(pixels),
    )
    for part in (model, vision, text, pixels):
        part.end()
    return described


def _refuse_other_towers(model: Settings, vision: Settings, text: Settings) -> None:
    if "multimodal_cfg" in model.left:
        raise model.refused("multimodal_cfg (CoCa)")
    if vision.take("timm_model_name"):
        raise vision.refused(f"an image tower of timm ({vision.values['timm_model_name']})")
    if isinstance(vision.values.get("layers"), list):
        raise vision.refused("a ResNet (RN50 and others)")
    if text.take("hf_model_name"):
        raise text.refused(f"a text tower of Hugging Face ({text.values['hf_model_name']})")
    if model.take("init_logit_bias") is not None:
        raise model.refused("init_logit_bias (SigLIP)")
    model.must_be("custom_text", False, None, what="a text tower of its own")
    for name in ("init_logit_scale", "cast_dtype"):
        model.take(name)
    for tower in (vision, text):
        tower.must_be("mlp_ratio", 4, what="a perceptron of another width")
        tower.must_be("ls_init_value", None, what="LayerScale")
        tower.must_be("act_kwargs", None, {})
        tower.must_be("norm_kwargs", None, {}, {"eps": 1e-5})
        tower.must_be("block_type", None, "default")
    vision.must_be("pool_type", "tok", what="another pooling")
    vision.must_be("no_ln_pre", False, what="no layer norm before the blocks")
    vision.must_be("pos_embed_type", "learnable")
    text.must_be("no_causal_mask", False, what="no causal mask")
    text.must_be("proj_type", "linear")
    text.must_be("hf_tokenizer_name", None, what="another tokenizer")
    text.must_be("pool_type", "argmax", "eos", what="another pooling")
    if text.values.get("pool_type") == "eos" and text.values.get("eos_id") != text.values.get("vocab_size", 0) - 1:
        raise text.refused(f"eos_id {text.values.get('eos_id', 2)!r} (another end token)")
    for tower, names in ((vision, VISION_WITHOUT_EFFECT), (text, TEXT_WITHOUT_EFFECT)):
        for name in names:
            tower.take(name)


# Of training alone, or read with a setting that is refused.
VISION_WITHOUT_EFFECT = (
    "patch_dropout", "attn_pooler_queries", "attn_pooler_heads", "timm_model_pretrained", "timm_pool", "timm_proj",
    "timm_drop_path",
)  # fmt: skip
TEXT_WITHOUT_EFFECT = ("pad_id", "eos_id", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type")


def _vision_sizes(vision: Settings) -> dict[str, int]:
    return {
        "image_resolution": vision.size("image_size", 224),
        "patch_size": vision.size("patch_size", 16),
        "vision_width": vision.size("width", 768),
        "vision_layers": vision.size("layers", 12),
    }


def _text_sizes(text: Settings) -> dict[str, int]:
    sizes = {
        "context_length": text.size("context_length", 77),
        "vocab_size": text.size("vocab_size", VOCAB_SIZE),
        "text_width": text.size("width", 512),
        "text_layers": text.size("layers", 12),
    }
    check_vocabulary(sizes["vocab_size"], text.source)
    return sizes


def _open_clip_activation(model: Settings) -> str:
    is_quick = model.take("quick_gelu", False)
    if not isinstance(is_quick, bool):
        raise CheckpointError(f"{model.source}: quick_gelu {str(is_quick)[:60]!r} is neither true nor false")
    return QUICK_GELU if is_quick else "gelu"


def _open_clip_preparation(pixels: Settings) -> tuple[str, ...]:
    """Remarks on what is prepared otherwise; size and colour of the border follow from the rest."""
    pixels.must_be("mode", "RGB")
    for name in ("size", "fill_color"):
        pixels.take(name)
    asked = {"interpolation": pixels.take("interpolation"), "resize_mode": pixels.take("resize_mode")}
    usual = {"interpolation": ("bicubic", "random"), "resize_mode": ("shortest",)}
    return tuple(
        f"{pixels.source}: {name} {value!r} there; here {usual[name][0]}, and the centre is cut out"
        for name, value in asked.items()
        if value is not None and value not in usual[name]
    )


def from_table(name: str) -> Description:
    """Description by a name of open_clip's own table, whose files are read; the package is not imported.

    Raises:
        CheckpointError: no such name (close ones are told), no such package, or a model that computes otherwise.
    """
    files = table_files()
    path = files.get(name.replace("/", "-"))
    if path is None:
        close = ", ".join(difflib.get_close_matches(name, files, n=3, cutoff=0.4)) or "ViT-B-16, ViT-B-16-quickgelu"
        raise CheckpointError(f"--clip_model {name}: not in open_clip's table, which has for instance {close}")
    return from_open_clip(read_configuration(path), f"--clip_model {name}")


def all_of_table() -> Iterator[Description]:
    """Descriptions of the models in open_clip's table that compute as this project's CLIP does."""
    for name, path in table_files().items():
        with contextlib.suppress(CheckpointError):
            yield from_open_clip(read_configuration(path), f"--clip_model {name}")


def table_files() -> dict[str, Path]:
    """Files of open_clip's table by name; none without the package."""
    spec = importlib.util.find_spec("open_clip")
    folders = (spec.submodule_search_locations or []) if spec else []
    return {path.stem: path for folder in folders for path in sorted((Path(folder) / TABLE_FOLDER).glob("*.json"))}
