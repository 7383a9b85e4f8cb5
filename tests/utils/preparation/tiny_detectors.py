"""Small detectors of transformers with drawn weights, each a folder as people have them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import open_clip
import torch

SIZES = {"shortest_edge": 64, "longest_edge": 96}
CLASSES = {place: "N/A" if place % 3 == 0 else f"thing {place}" for place in range(40)}
WORDS = ("a", "red", "dog", "cat", "street", "sign", "st", "bernard", "man", "running")


def save(folder: Path, model: Any, *processors: Any) -> Path:
    """A folder as `save_pretrained` writes it."""
    model.save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    return folder


def spread(layer: Any, std: float) -> None:
    """Draw weights so wide that boxes and classes differ, and not so wide that they are all at an end."""
    torch.nn.init.normal_(layer.weight, std=std)


def save_detr(folder: Path) -> Path:
    """A closed set of classes, among them numbers that stand for none."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    config = DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, d_model=16, num_queries=12, encoder_layers=1,
        decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        init_std=2.0, id2label=CLASSES,
    )  # fmt: skip
    model = DetrForObjectDetection(config)
    spread(model.bbox_predictor.layers[-1], 0.01)
    return save(folder, model, DetrImageProcessor(size=SIZES))


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """CLIP's tokens and merges, from open_clip's file."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    path = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [tuple(line.split()) for line in lines]
    signs = list(bytes_to_unicode().values())
    tokens = [*signs, *(f"{sign}</w>" for sign in signs), *("".join(pair) for pair in merges)]
    names = [*tokens, "<|startoftext|>", "<|endoftext|>"]
    return {name: place for place, name in enumerate(names)}, merges


def save_owl(folder: Path, side: int = 32) -> Path:
    """OWLv2 with CLIP's tokenizer, which pads with 0 as the released ones do."""
    from transformers import CLIPTokenizer, Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": side, "patch_size": 8}
    config = Owlv2Config(text_config={**sizes, "initializer_range": 1.0}, vision_config=vision, projection_dim=16)
    model = Owlv2ForObjectDetection(config)
    spread(model.class_head.logit_scale, 1.0)
    spread(model.box_head.dense2, 0.02)
    vocabulary, merges = clip_vocabulary()
    tokenizer = CLIPTokenizer(vocabulary, merges, pad_token="!", model_max_length=16)
    pictures = Owlv2ImageProcessor(size={"height": side, "width": side})
    return save(folder, model, Owlv2Processor(pictures, tokenizer))


def save_grounding_dino(folder: Path, max_text_len: int = 16) -> Path:
    """Grounding DINO with a tokenizer of a few words."""
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    torch.manual_seed(0)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS, "##s"]
    vocabulary = {name: place for place, name in enumerate(names)}
    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, num_queries=12, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        max_text_len=max_text_len,
    )  # fmt: skip
    processor = GroundingDinoProcessor(GroundingDinoImageProcessor(size=SIZES), BertTokenizer(vocabulary))
    model = GroundingDinoForObjectDetection(config)
    spread(model.model.query_position_embeddings, 1.0)
    spread(model.bbox_embed[0].layers[-1], 0.3)
    for part in (layer.text_enhancer_layer.layer_norm_after for layer in model.model.encoder.layers):
        torch.nn.init.constant_(part.weight, 0.1)  # so that scores are not all 1
    return save(folder, model, processor)


def edit_config(folder: Path, **changes: Any) -> None:
    """Change a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
