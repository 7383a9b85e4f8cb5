"""Two-layer versions of the CLIPs that people have, through pre-training and retrieval with all of the model's parts.

Widths are a quarter of the real ones, so each tower keeps the width of its heads and the ratio to the others.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from modules.config import Behaviour, ModelConfig, from_dict
from modules.tasks.pretrain import PretrainModel
from tasks import eval_retrieval, pre_training
from tests.world import Downstream, World
from utils.models.random_clip import PRESETS, ClipSizes, random_state_dict, save_archive
from utils.runtime.checkpoint import load
from utils.runtime.run_log import read_metrics


class Shape(NamedTuple):
    """sizes of a weight file; heads of the image tower, and of the text tower and the fusion encoder."""

    sizes: ClipSizes
    heads: int
    text_heads: int
    is_folder: bool = False
    flags: tuple[str, ...] = ()


def quarter(preset: str, side: int, **more: Any) -> ClipSizes:
    """A preset with a quarter of its widths, two layers in each tower and pictures of a few patches."""
    of = PRESETS[preset]
    widths = (of.vision_width // 4, 2, of.embed_dim // 4, of.text_width // 4, 2)
    heads = {"head_width": of.head_width, "text_head_width": of.text_head_width, "activation": of.activation}
    return ClipSizes(side, of.patch_size, *widths, vocab_size=2000, **{**heads, **more})


SHAPES = {
    "B/32": Shape(quarter("ViT-B-32", 64), 3, 2),
    "B/32, GELU, another mean": Shape(quarter("ViT-B-32", 64, activation="gelu"), 3, 2, is_folder=True),
    "B/16": Shape(quarter("ViT-B-16", 64), 3, 2),
    "L/14": Shape(quarter("ViT-L-14", 56), 4, 3),
    "L/14@336": Shape(quarter("ViT-L-14-336", 84), 4, 3),
    "L/14 at 336": Shape(quarter("ViT-L-14", 56), 4, 3, flags=("--image_resolution", "84")),
    "H/14": Shape(quarter("ViT-H-14", 56), 4, 4, is_folder=True),
}


def write(shape: Shape, folder: Path) -> Path:
    """The weights as an archive of utils/make_random_clip.py, or as a folder of open_clip."""
    sizes, state = shape.sizes, random_state_dict(shape.sizes)
    if not shape.is_folder:
        save_archive(state, folder / "clip.pt")
        return folder / "clip.pt"
    model = {
        "embed_dim": sizes.embed_dim,
        "quick_gelu": sizes.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": sizes.image_resolution, "layers": 2, "width": sizes.vision_width,
            "head_width": sizes.head_width, "patch_size": sizes.patch_size,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 2000, "width": sizes.text_width, "heads": shape.text_heads, "layers": 2,
        },
    }  # fmt: skip
    pixels = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": pixels}))
    towers = {name: value for name, value in state.items() if value.is_floating_point()}
    torch.save(towers, folder / "open_clip_pytorch_model.bin")
    return folder


def heads_by_part(config: ModelConfig) -> dict[str, set[int]]:
    """Numbers of attention heads in each part of a model."""
    with torch.device("meta"):
        model = PretrainModel(config, Behaviour())
    parts = ("clip.visual", "clip.transformer", "trajectory_encoder", "action_encoder", "fusion")
    heads = {name: module.heads for name, module in model.named_modules() if hasattr(module, "heads")}
    found = {part: {count for name, count in heads.items() if name.startswith(f"{part}.")} for part in parts}
    assert len(heads) == 2 + 2 + 1 + 2 + 2
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_trained_and_scored_with_objects_trajectories_and_actions(
    world: World, downstream: Downstream, tmp_path: Path, name: str
):
    shape = SHAPES[name]
    weights = write(shape, tmp_path / "weights")
    train = ["--max_steps", "2", "--batch_size", "4", "--clip_archive", str(weights), *shape.flags]
    assert pre_training.main(world.flags(tmp_path / "run", *train)) == 0, (tmp_path / "run" / "log.txt").read_text()
    for line in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        losses = [line[loss] for loss in ("vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive", "loss")]
        assert all(math.isfinite(value) and value > 0 for value in losses) and line["grad_norm"] > 0

    checkpoint = tmp_path / "run" / "ckpt" / "pytorch_model.bin.2"
    config = from_dict(ModelConfig, load(checkpoint)["config"])
    vision, text = {shape.heads}, {shape.text_heads}
    assert heads_by_part(config) == {
        "clip.visual": vision, "clip.transformer": text, "trajectory_encoder": vision, "action_encoder": vision,
        "fusion": text,
    }  # fmt: skip
    assert config.activation == shape.sizes.activation
    assert config.pixel_mean == ((0.5, 0.5, 0.5) if shape.is_folder else ModelConfig.pixel_mean)
    wanted = int(shape.flags[1]) if shape.flags else shape.sizes.image_resolution
    assert config.image_resolution == wanted

    paths = downstream.paths("msrvtt")
    flags = [
        "--do_eval", "--output_dir", str(tmp_path / "scored"), "--init_model", str(checkpoint), "--clip_archive",
        str(tmp_path / "absent"), "--labelmap_path", paths["LABEL_MAP"], "--train_csv", paths["TRAIN_CSV"],
        "--val_csv", paths["TEST_CSV"], "--data_path", paths["CAPTIONS"], "--features_path", paths["VIDEOS"],
        "--object_path", paths["OBJECT_PATH"], "--need_object", "--use_action", "--num_thread_reader", "0",
        "--device", "cpu",
    ]  # fmt: skip
    assert eval_retrieval.main(flags) == 0, (tmp_path / "scored" / "log.txt").read_text()
    metrics = json.loads((tmp_path / "scored" / "metrics.json").read_bytes())["metrics"]
    assert metrics["videos"] == 7 and {"t2v_R1", "first_stage_t2v_R1"} <= set(metrics)
