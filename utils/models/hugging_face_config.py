"""What a CLIP is beside its tensors, by Hugging Face's config.json and preprocessor_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.config import PIXEL_MEAN, PIXEL_STD, QUICK_GELU, VOCAB_SIZE
from utils.models.clip_description import Description, Settings, check_vocabulary, head_width
from utils.models.clip_layouts import WHAT_LOADS
from utils.models.weight_files import read_configuration
from utils.runtime.checkpoint import CheckpointError

# Of transformers' CLIPTextConfig and CLIPVisionConfig, where the file does not say: it keeps what differs from them.
TEXT_DEFAULTS = {
    "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
    "max_position_embeddings": 77, "vocab_size": VOCAB_SIZE, "hidden_act": QUICK_GELU, "layer_norm_eps": 1e-5,
    "eos_token_id": VOCAB_SIZE - 1,
}  # fmt: skip
VISION_DEFAULTS = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": QUICK_GELU, "layer_norm_eps": 1e-5,
}  # fmt: skip
LEGACY_END = 2  # in configurations of before 2023, where the token of the highest id is taken
ACTIVATIONS = {QUICK_GELU: QUICK_GELU, "gelu": "gelu"}
# What transformers writes of training, of generating text and of itself; nothing of it acts on a CLIP's features.
WITHOUT_EFFECT = frozenset({
    "_attn_implementation_autoset", "_name_or_path", "architectures", "attention_dropout", "attn_implementation",
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id", "dropout", "dtype",
    "early_stopping", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing",
    "id2label", "initializer_factor", "initializer_range", "label2id", "length_penalty", "max_length", "min_length",
    "model_type", "num_beam_groups", "num_beams", "num_return_sequences", "pad_token_id", "prefix", "problem_type",
    "projection_dim", "repetition_penalty", "return_dict", "sep_token_id", "suppress_tokens", "task_specific_params",
    "temperature", "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torch_dtype", "transformers_version",
    "typical_p", "use_cache",
})  # fmt: skip
OF_THE_WHOLE = frozenset({"_commit_hash", "logit_scale_init_value", "auto_map"})
BICUBIC = 3  # Pillow's number


def is_hugging_face(content: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of transformers, and not of a run of this project or of another program."""
    return "model_type" in content or ("text_config" in content and "vision_config" in content)


def from_hugging_face(content: Mapping[str, Any], path: Path) -> Description:
    """Description by the config.json at `path` and what describes the preparation of pictures beside it.

    Raises:
        CheckpointError: it is of a model that computes otherwise; the message names the setting.
    """
    whole = Settings(content, str(path))
    if (kind := whole.take("model_type", "clip")) != "clip":
        raise CheckpointError(f"{path}: a model of the kind {str(kind)[:60]!r}, not clip. {WHAT_LOADS}")
    text, vision = _tower(whole, "text_config", TEXT_DEFAULTS), _tower(whole, "vision_config", VISION_DEFAULTS)
    vision.must_be("num_channels", 3)
    sizes = {
        "embed_dim": whole.size("projection_dim", 512),
        "image_resolution": vision.size("image_size", 224),
        "patch_size": vision.size("patch_size", 32),
        "vision_width": vision.size("hidden_size", 768),
        "vision_layers": vision.size("num_hidden_layers", 12),
        "context_length": text.size("max_position_embeddings", 77),
        "vocab_size": text.size("vocab_size", VOCAB_SIZE),
        "text_width": text.size("hidden_size", 512),
        "text_layers": text.size("num_hidden_layers", 12),
    }
    check_vocabulary(sizes["vocab_size"], text.source)
    text.must_be("eos_token_id", sizes["vocab_size"] - 1, LEGACY_END, what="another end token")
    mean, std, remarks = _preparation(path.parent)
    described = Description(
        str(path),
        _activation(text, vision),
        head_width(sizes["vision_width"], vision.size("num_attention_heads", 12), vision.source),
        head_width(sizes["text_width"], text.size("num_attention_heads", 8), text.source),
        mean,
        std,
        sizes,
        remarks,
    )
    for part, names in ((text, WITHOUT_EFFECT), (vision, WITHOUT_EFFECT), (whole, WITHOUT_EFFECT | OF_THE_WHOLE)):
        for name in names:
            part.take(name)
        part.end()
    return described


def _tower(whole: Settings, name: str, defaults: Mapping[str, Any]) -> Settings:
    """Settings of a tower. A former `*_config_dict` wins, with the defaults behind it, as in transformers."""
    given, former = whole.take(name), whole.take(f"{name}_dict")
    source = f"{whole.source}, {name}"
    values = {**defaults, **Settings({} if given is None else given, source).values}
    if former is not None:
        values |= {**defaults, **Settings(former, f"{source}_dict").values}
    tower = Settings(values, source)
    tower.must_be("layer_norm_eps", 1e-5, what="another layer norm")
    width, inner = values["hidden_size"], tower.take("intermediate_size")
    if type(width) is not int or inner != 4 * width:
        raise tower.refused(f"intermediate_size {str(inner)[:60]!r} (a perceptron of another width)")
    return tower


def _activation(text: Settings, vision: Settings) -> str:
    of_text, of_vision = text.take("hidden_act"), vision.take("hidden_act")
    if of_text != of_vision:
        raise text.refused(f"hidden_act {str(of_text)[:60]!r} beside {str(of_vision)[:60]!r} of the visual tower")
    if not isinstance(of_text, str) or of_text not in ACTIVATIONS:
        raise text.refused(f"hidden_act {str(of_text)[:60]!r}")
    return ACTIVATIONS[of_text]


def _preparation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """Mean, deviation and remarks; CLIP's own without a file, as `CLIPModel.save_pretrained` writes none."""
    values, source = _processor(folder)
    if values is None:
        return (
            PIXEL_MEAN,
            PIXEL_STD,
            (f"{folder}: no preprocessor_config.json; pixels are normalised as OpenAI's CLIP",),
        )
    pixels = Settings(values, source)
    pixels.must_be("do_rescale", True, None, what="pixels from 0 to 255")
    factor = pixels.take("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or abs(factor * 255 - 1) > 1e-6:
        raise pixels.refused(f"rescale_factor {str(factor)[:60]!r}")
    mean, std = pixels.pixels("image_mean", PIXEL_MEAN), pixels.pixels("image_std", PIXEL_STD)
    if pixels.take("do_normalize", True) is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    remarks = []
    if pixels.take("resample", BICUBIC) not in (BICUBIC, None, "bicubic"):
        remarks.append(f"{source}: pictures are resized otherwise there; here bicubic")
    size = pixels.take("size")
    is_squashed = isinstance(size, dict) and "shortest_edge" not in size
    if pixels.take("do_center_crop", True) is False or is_squashed:
        remarks.append(f"{source}: pictures are not cropped there; here the centre is cut out")
    return mean, std, tuple(remarks)


def _processor(folder: Path) -> tuple[Any, str]:
    """Settings of the image processor, those in the whole processor's file before its own, and the file's name."""
    path = folder / "processor_config.json"
    if path.is_file() and (inside := read_configuration(path).get("image_processor")) is not None:
        return inside, str(path)  # as transformers has it
    path = folder / "preprocessor_config.json"
    return (read_configuration(path) if path.is_file() else None), str(path)
