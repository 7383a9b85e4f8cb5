"""CLIP as users of transformers have it: models with drawn weights, and the folders that are made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipConfig,
    SiglipModel,
    logging,
)

from tests.clip_sources.comparison import Features, Inputs, draw_weights
from tests.clip_sources.source import HALF, Shape, Written, state_of

BINARY = "pytorch_model.bin"
Rewrite = Callable[[dict[str, Any]], None]

logging.set_verbosity_error()
logging.disable_progress_bar()

FORMS = (
    "folder",
    "folder with preprocessor",
    "folder with processor",
    "folder of parts",
    "folder of parts, .bin",
    "folder with .bin",
    "folder, bfloat16",
    "folder, half precision",
    "folder as on the hub",
)


def config(shape: Shape, activation: str, vision: Mapping[str, Any], text: Mapping[str, Any]) -> Any:
    """A configuration of these sizes; what is in `vision` and `text` wins."""
    heads = shape.text_width // shape.text_head
    common = {"hidden_act": activation, "projection_dim": shape.embed}
    text_sizes = {
        "hidden_size": shape.text_width,
        "intermediate_size": 4 * shape.text_width,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "bos_token_id": shape.vocab - 2,
        "eos_token_id": shape.vocab - 1,
    }
    vision_sizes = {
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_width // shape.vision_head,
        "image_size": shape.resolution,
        "patch_size": shape.patch,
    }
    return CLIPConfig(
        text_config={**common, **text_sizes, **text},
        vision_config={**common, **vision_sizes, **vision},
        projection_dim=shape.embed,
    )


def clip_model(
    shape: Shape, activation: str, vision: Mapping[str, Any] | None = None, text: Mapping[str, Any] | None = None
) -> Any:
    """A CLIPModel with drawn weights."""
    model = CLIPModel(config(shape, activation, vision or {}, text or {})).eval()
    draw_weights(model)
    return model


def write(
    folder: Path,
    shape: Shape,
    activation: str,
    form: str,
    *,
    processor: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    rewrite: Rewrite | None = None,
) -> Written:
    """A folder in one of FORMS, with what CLIPModel and the image processor make of the inputs once it is loaded.

    Args:
        processor: settings of the image processor instead of CLIP's.
        vision, text: entries of the towers' configurations instead of what the sizes mean.
        rewrite: changes the content of config.json.
    """
    model = clip_model(shape, activation, vision, text)
    dtypes = {"folder, half precision": torch.float16, "folder, bfloat16": torch.bfloat16}
    save(model.to(dtypes.get(form, torch.float32)), folder, shape, form, processor)
    del model
    if rewrite is not None:
        content = json.loads((folder / "config.json").read_text())
        rewrite(content)
        (folder / "config.json").write_text(json.dumps(content))
    return read_back(folder, shape.inputs())


def read_back(folder: Path, inputs: Inputs) -> Written:
    """A folder with what transformers makes of the inputs, in full precision."""
    model = CLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    return Written(folder, inputs, features(model, inputs, image_processor(folder)))


def without_defaults(content: dict[str, Any]) -> None:
    """Leave out of a config.json what transformers takes for granted, as some of those on the hub do."""
    for name, kind in (("text_config", CLIPTextConfig), ("vision_config", CLIPVisionConfig)):
        default = kind().to_dict()
        content[name] = {key: value for key, value in content[name].items() if default.get(key) != value}
    assert not {"hidden_act", "layer_norm_eps"} & {*content["text_config"], *content["vision_config"]}


def with_former_names(content: dict[str, Any]) -> None:
    """Say everything a second time where the first versions of transformers looked, as some of those on the hub do."""
    for name in ("text_config", "vision_config"):
        content[f"{name}_dict"] = dict(content[name])


def contradicted(content: dict[str, Any]) -> None:
    """State the other activation where the first versions of transformers looked, whose word counts."""
    other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}[content["text_config"]["hidden_act"]]
    for name in ("text_config", "vision_config"):
        content[f"{name}_dict"] = {**content[name], "hidden_act": other}


def without_end_token(content: dict[str, Any]) -> None:
    """Leave the end token to transformers, which then reads CLIP's whole vocabulary's."""
    del content["text_config"]["eos_token_id"]


def save(model: Any, folder: Path, shape: Shape, form: str, processor: Mapping[str, Any] | None = None) -> None:
    """Save a model as its users do; a form that has no processor's file gets one where `processor` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    sides = {"shortest_edge": shape.resolution}, {"height": shape.resolution, "width": shape.resolution}
    images = CLIPImageProcessor(size=sides[0], crop_size=sides[1], **(processor or {}))
    if form.endswith(".bin"):
        model.config.save_pretrained(folder)
        _save_parts(state_of(model), folder) if "parts" in form else torch.save(state_of(model), folder / BINARY)
    elif form == "folder of parts":
        size = sum(value.nbytes for value in model.state_dict().values())
        model.save_pretrained(folder, max_shard_size=f"{max(1, size // 4000)}KB")
        assert (folder / "model.safetensors.index.json").is_file() and not (folder / "model.safetensors").exists()
    else:
        model.save_pretrained(folder)
    if form == "folder as on the hub":
        _as_version_4(model, folder, shape)
    elif form == "folder with processor":
        vocabulary = {"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
        CLIPProcessor(image_processor=images, tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[])).save_pretrained(
            folder
        )
        assert (folder / "processor_config.json").is_file()
    elif form == "folder with preprocessor" or processor:
        images.save_pretrained(folder)


def _save_parts(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write two files and their index, as earlier versions did with large models."""
    names = list(state)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    places = {}
    for number, half in enumerate(halves, start=1):
        part = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: state[name] for name in half}, folder / part)
        places |= dict.fromkeys(half, part)
    (folder / f"{BINARY}.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def _as_version_4(model: Any, folder: Path, shape: Shape) -> None:
    """Rewrite a folder as most of those on the hub are: tables of places as entries, an end token that is not it."""
    places = {"text_model": shape.context, "vision_model": (shape.resolution // shape.patch) ** 2 + 1}
    rows = {f"{name}.embeddings.position_ids": torch.arange(count)[None] for name, count in places.items()}
    save_file(state_of(model) | rows, folder / "model.safetensors", {"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    content["text_config"] |= {"eos_token_id": 2, "bos_token_id": 0, "dropout": 0.0, "top_k": 50, "use_cache": True}
    content["vision_config"] |= {"dropout": 0.0, "top_k": 50, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    content |= {"text_config_dict": None, "vision_config_dict": None, "torch_dtype": "float32"}
    content |= {"transformers_version": None, "initializer_factor": 1.0}
    (folder / "config.json").write_text(json.dumps(content, indent=2))
    images = {
        "crop_size": shape.resolution,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": shape.resolution,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images, indent=2))


def image_processor(folder: Path) -> Any:
    """The folder's image processor as its users load it; CLIP's own where it has none."""
    has_one = any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))
    return CLIPImageProcessor.from_pretrained(folder) if has_one else CLIPImageProcessor()


@torch.no_grad()
def features(model: Any, inputs: Inputs, processor: Any) -> Features:
    """What CLIPModel makes of the inputs: texts are padded with the end token, as its tokenizer does."""
    frames = list(inputs.frames)
    pixels = processor(images=frames, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    mask = torch.arange(inputs.ids.shape[1]) < inputs.lengths[:, None]
    ids = torch.where(mask, inputs.ids, inputs.ids.max())
    image = model.get_image_features(pixel_values=pixels).pooler_output
    text = model.get_text_features(input_ids=ids, attention_mask=mask.long()).pooler_output
    both = model(input_ids=ids, pixel_values=pixels, attention_mask=mask.long())
    return Features(image, text, both.logits_per_text, both.logits_per_image)


def write_user_folder(folder: Path) -> Written:
    """A folder that a user has, with what transformers makes of it."""
    content = CLIPConfig.from_pretrained(folder, local_files_only=True)
    text, vision = content.text_config, content.vision_config
    shape = Shape(vision.image_size, vocab=text.vocab_size, context=text.max_position_embeddings)
    return read_back(folder, shape.inputs())


def write_siglip(folder: Path, shape: Shape) -> Written:
    """A small SigLIP."""
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": shape.vocab, "max_position_embeddings": shape.context, "projection_size": 64}
    vision = {**sizes, "image_size": shape.resolution, "patch_size": shape.patch}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    draw_weights(model)
    save(model, folder, shape, "folder with preprocessor", {"image_mean": HALF, "image_std": HALF})
    return Written(folder, shape.inputs())


def write_tower(folder: Path, shape: Shape, tower: str) -> Written:
    """The folder of one tower alone: "text" or "vision"."""
    whole = config(shape, "gelu", {}, {}).to_dict()
    if tower == "text":
        model = CLIPTextModelWithProjection(CLIPTextConfig(**whole["text_config"]))
    else:
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**whole["vision_config"]))
    save(model, folder, shape, "folder")
    return Written(folder, shape.inputs())
