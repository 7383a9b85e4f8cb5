"""The comparison with other libraries notices whatever a reader of CLIP weights can get wrong."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.clip_sources.comparison import BOUND, Difference, Features, differences, draw_inputs
from tests.clip_sources.source import HALF, SHAPES, Shape

transformers = pytest.importorskip("transformers", reason="transformers (requirements-dev.txt) computes what is right")

from tests.clip_sources import hugging_face, open_clips

NOTICED = 10 * BOUND
SHAPE = SHAPES["tiny, vision heads of 12, text heads of 8"]
INPUTS = SHAPE.inputs()


def of_transformers(activation: str = "gelu", shape: Shape = SHAPE, **processor: Any) -> Features:
    model = hugging_face.clip_model(shape, activation)
    return hugging_face.features(model, INPUTS, transformers.CLIPImageProcessor(**processor))


def of_open_clip(folder: Path, preprocess: dict[str, Any] | None = None, **changes: Any) -> Features:
    config = open_clips.config_for(SHAPE, "gelu")
    for key, value in changes.items():
        config[key] = {**config[key], **value} if key.endswith("_cfg") else value
    return open_clips.features(open_clips.make_model(config, folder, preprocess), INPUTS)


def noticed(difference: Difference) -> list[str]:
    return [name for name, value in difference._asdict().items() if value > NOTICED]


def test_another_activation_is_noticed_in_both_towers(tmp_path: Path):
    assert len(noticed(differences(of_transformers("quick_gelu"), of_transformers()))) == 3
    assert len(noticed(differences(of_open_clip(tmp_path, quick_gelu=True), of_open_clip(tmp_path)))) == 3


def test_another_head_width_is_noticed_in_its_own_tower(tmp_path: Path):
    right = of_open_clip(tmp_path)
    assert noticed(differences(of_open_clip(tmp_path, vision_cfg={"head_width": 24}), right)) == ["image", "logits"]
    assert noticed(differences(of_open_clip(tmp_path, text_cfg={"heads": 2}), right)) == ["text", "logits"]
    wider = Shape(**{**vars(SHAPE), "vision_head": 24})
    assert noticed(differences(of_transformers(shape=wider), of_transformers())) == ["image", "logits"]


def test_another_mean_or_deviation_is_noticed(tmp_path: Path):
    right, settings = of_open_clip(tmp_path), ({"mean": HALF}, {"std": HALF})
    for one in settings:
        assert noticed(differences(of_open_clip(tmp_path, one), right)) == ["image", "logits"]
    for one in ({"image_mean": HALF}, {"image_std": HALF}):
        assert noticed(differences(of_transformers(**one), of_transformers())) == ["image", "logits"]


def test_channels_in_another_order_are_noticed():
    model, processor = hugging_face.clip_model(SHAPE, "gelu"), transformers.CLIPImageProcessor()
    swapped = INPUTS._replace(frames=INPUTS.frames[..., ::-1].copy())
    found = differences(
        hugging_face.features(model, swapped, processor), hugging_face.features(model, INPUTS, processor)
    )
    assert noticed(found) == ["image", "logits"]


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_cfg": {"pool_type": "avg"}},
        {"vision_cfg": {"no_ln_pre": True}},
        {"text_cfg": {"no_causal_mask": True}},
        {"text_cfg": {"pool_type": "last"}},
        {"vision_cfg": {"norm_kwargs": {"eps": 0.01}}},
    ],
    ids=str,
)
def test_settings_that_a_reader_might_drop_are_noticed(tmp_path: Path, changes: dict[str, Any]):
    assert noticed(differences(of_open_clip(tmp_path, **changes), of_open_clip(tmp_path)))


@pytest.mark.parametrize("library", ["transformers", "open_clip"])
def test_every_entry_that_is_not_read_is_noticed(tmp_path: Path, library: str):
    """But for the biases of keys: they add the same to all logits of a query, so that attention is as it was."""
    if library == "transformers":
        right, processor = hugging_face.clip_model(SHAPE, "gelu"), transformers.CLIPImageProcessor()

        def compute(model: Any) -> Features:
            return hugging_face.features(model, INPUTS, processor)
    else:
        right = open_clips.make_model(open_clips.config_for(SHAPE, "gelu"), tmp_path)

        def compute(model: Any) -> Features:
            return open_clips.features(model, INPUTS)

    expected, unnoticed = compute(right), []
    for name, parameter in right.named_parameters():
        kept = deepcopy(parameter.data)
        parameter.data.zero_()
        if not noticed(differences(compute(right), expected)) and not name.endswith("k_proj.bias"):
            unnoticed.append(name)
        parameter.data.copy_(kept)
    assert not unnoticed
    assert compute(right).image.equal(expected.image)


def test_inputs_are_of_several_lengths_and_fill_the_longest():
    inputs = draw_inputs(32, 600, 20)
    assert len(set(inputs.lengths.tolist())) >= 4 and int(inputs.lengths.max()) == 20
    assert inputs.ids.max() == 599 and all(
        int(row.argmax()) + 1 == n for row, n in zip(inputs.ids, inputs.lengths, strict=True)
    )
    assert inputs.frames.min() < 30 and inputs.frames.max() > 225


def test_other_shapes_and_nan_are_never_near():
    one = Features(*(torch.ones(2, 3) for _ in range(4)))
    assert differences(one, one).largest == 0
    assert differences(one._replace(image=torch.ones(2, 4)), one).largest == float("inf")
    assert differences(one._replace(text=torch.full((2, 3), float("nan"))), one).largest == float("inf")
