"""Names of other programs become OpenAI's, each entry has a place, and other kinds of model are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from modules.similarity import build_similarity
from tests import tiny
from tests.utils.checkpoints import released_state
from tests.utils.models.small_clip import STATE, equal
from utils.models.clip_layouts import CLIP4CLIP, HUGGING_FACE, OPENAI, OTHER_KINDS, WHAT_LOADS, to_openai_names
from utils.models.random_clip import IS_QUICK_GELU, OPENAI_INTEGERS
from utils.runtime.checkpoint import CheckpointError

PATH = Path("some/clip.pt")
TOWERS = {name: value for name, value in STATE.items() if name not in (*OPENAI_INTEGERS, IS_QUICK_GELU)}
OF_A_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
OUTSIDE = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "logit_scale": "logit_scale",
}


def hugging_face() -> dict[str, Tensor]:
    """The small CLIP by Hugging Face's names."""
    state = {OUTSIDE[name]: value for name, value in TOWERS.items() if name in OUTSIDE}
    state["text_projection.weight"] = TOWERS["text_projection"].t()
    state["visual_projection.weight"] = TOWERS["visual.proj"].t()
    for name, value in TOWERS.items():
        before, found, rest = name.partition("transformer.resblocks.")
        if not found:
            continue
        layer, _, inner = rest.partition(".")
        block = f"{'vision' if before else 'text'}_model.encoder.layers.{layer}"
        if inner.startswith("attn.in_proj_"):
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                state[f"{block}.self_attn.{letter}_proj.{inner.removeprefix('attn.in_proj_')}"] = part
        else:
            place, _, kind = inner.rpartition(".")
            state[f"{block}.{OF_A_BLOCK[place]}.{kind}"] = value
    return state


def clip4clip() -> dict[str, Tensor]:
    return {f"clip.{name}": value for name, value in TOWERS.items()}


def header(kind: str, prefixes: dict[str, str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A drawn similarity header by this project's names, and by CLIP4Clip's."""
    module = build_similarity(tiny.config(sim_header=kind, header_layers=2))
    ours = {f"similarity.{name}": torch.randn_like(value) for name, value in module.state_dict().items()}
    theirs = {}
    for name, value in ours.items():
        start = next(start for start in prefixes if name.startswith(f"similarity.{start}"))
        theirs[prefixes[start] + name.removeprefix(f"similarity.{start}")] = value
    return ours, theirs


HEADERS = {
    "seqLSTM": {"lstm.": "lstm_visual."},
    "seqTransf": {"transformer.": "transformerClip.", "frame_position": "frame_position"},
    "tightTransf": {
        "position_embeddings": "cross.embeddings.position_embeddings",
        "transformer.": "cross.transformer.",
        "ln_pool": "cross.pooler.ln_pool",
        "dense": "cross.pooler.dense",
        "similarity_dense": "similarity_dense",
    },
}


def test_openais_names_stay_and_its_integers_are_left_out():
    layout, state, none = to_openai_names(STATE, PATH)
    assert layout == OPENAI and not none
    assert equal(state, {**TOWERS, IS_QUICK_GELU: STATE[IS_QUICK_GELU]})


def test_hugging_face_s_names_are_translated_and_its_position_ids_left_out():
    buffers = {f"{tower}_model.embeddings.position_ids": torch.arange(20)[None] for tower in ("text", "vision")}
    for given in (hugging_face(), hugging_face() | buffers):
        layout, state, none = to_openai_names(given, PATH)
        assert layout == HUGGING_FACE and not none
        assert equal(dict(sorted(state.items())), dict(sorted(TOWERS.items())))
        assert all(value.is_contiguous() for value in state.values())


def test_half_precision_stays_as_it_is_stored():
    state = to_openai_names({name: value.half() for name, value in hugging_face().items()}, PATH).state
    assert {value.dtype for value in state.values()} == {torch.float16}


@pytest.mark.parametrize("letter", "qkv")
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_an_attention_that_lacks_a_part_is_an_error_that_names_it(letter: str, kind: str):
    state = hugging_face()
    del state[f"text_model.encoder.layers.1.self_attn.{letter}_proj.{kind}"]
    lacking = rf"no entry {letter}_proj of transformer\.resblocks\.1\.attn\.in_proj_{kind}"
    with pytest.raises(CheckpointError, match=rf"clip\.pt: {lacking}"):
        to_openai_names(state, PATH)


@pytest.mark.parametrize("value", [torch.ones(3), torch.tensor(1.0), torch.ones(64, 64)], ids=str)
def test_parts_of_an_attention_that_do_not_go_together_are_an_error(value: Tensor):
    state = hugging_face()
    state["vision_model.encoder.layers.0.self_attn.k_proj.bias"] = value
    with pytest.raises(CheckpointError, match=r"clip\.pt: visual\.transformer\.resblocks\.0\.attn\.in_proj_bias"):
        to_openai_names(state, PATH)


@pytest.mark.parametrize(
    "key",
    [
        "text_model.encoder.layers.01.layer_norm1.weight",
        "text_model.encoder.layers.0.layer_norm3.weight",
        "text_model.encoder.layers.0.layer_norm1.gamma",
        "text_model.encoder.layers.0.q_proj.weight",
        "text_model.encoder.layers.0.self_attn.rotary.weight",
        "text_model.encoder.layers.x.layer_norm1.weight",
        "audio_model.encoder.layers.0.layer_norm1.weight",
        "vision_model.embeddings.position_ids.weight",
        "vision_model.embeddings.patch_embedding.bias",
        "vision_model.pre_layernorm.weight",
        "text_projection.bias",
        "visual.conv1.bias",
        "classifier.weight",
    ],
)
def test_an_entry_of_hugging_face_s_without_a_place_is_an_error_that_names_it(key: str):
    with pytest.raises(CheckpointError, match=rf"clip\.pt: no place for its entries {key}\. CLIP with OpenAI's"):
        to_openai_names({**hugging_face(), key: torch.ones(1)}, PATH)


def test_many_entries_without_a_place_are_counted():
    strange = {f"classifier.{number}.weight": torch.ones(1) for number in range(7)}
    with pytest.raises(CheckpointError, match=r"classifier\.0\.weight, .*classifier\.4\.weight and 2 more"):
        to_openai_names(hugging_face() | strange, PATH)


# -- CLIP4Clip


def test_clip4clip_s_prefix_is_taken_off():
    layout, state, none = to_openai_names(clip4clip(), PATH)
    assert layout == CLIP4CLIP and not none and equal(state, TOWERS)


def test_clip4clip_s_patch_layer_over_three_frames_takes_the_place_of_the_other():
    deep = torch.randn(64, 3, 3, 8, 8)
    state = to_openai_names({**clip4clip(), "clip.visual.conv2.weight": deep}, PATH).state
    assert torch.equal(state["visual.conv1.weight"], deep) and "visual.conv2.weight" not in state
    assert len(state) == len(TOWERS)


@pytest.mark.parametrize("kind", HEADERS)
def test_clip4clip_s_header_has_this_project_s_names(kind: str):
    ours, theirs = header(kind, HEADERS[kind])
    _, state, found = to_openai_names({**clip4clip(), **theirs}, PATH)
    assert equal(state, TOWERS) and equal(dict(sorted(found.items())), dict(sorted(ours.items())))


def test_clip4clip_s_header_is_computed_in_full_precision():
    ours, theirs = header("seqLSTM", HEADERS["seqLSTM"])
    found = to_openai_names({**clip4clip(), **{name: value.half() for name, value in theirs.items()}}, PATH).header
    assert {value.dtype for value in found.values()} == {torch.float32} and found.keys() == ours.keys()


def test_frame_positions_that_clip4clip_stores_beside_an_lstm_are_read_by_nothing():
    ours, theirs = header("seqLSTM", HEADERS["seqLSTM"])
    positions = {"frame_position_embeddings.weight": torch.randn(20, 64)}
    assert equal(to_openai_names({**clip4clip(), **theirs, **positions}, PATH).header, ours)


@pytest.mark.parametrize(
    "key", ["obj_ln.weight", "logit_scale", "visual.proj", "cross.other.weight", "loss_fct.weight"]
)
def test_an_entry_beside_clip4clip_s_model_and_header_is_an_error(key: str):
    with pytest.raises(CheckpointError, match=rf"clip\.pt: no place for its entries {key}"):
        to_openai_names({**clip4clip(), key: torch.ones(1)}, PATH)


# -- other kinds

OTHERS = {
    "a CLIP with a ResNet": "visual.layer1.0.conv1.weight",
    "an image tower of timm": "visual.trunk.blocks.0.attn.qkv.weight",
    "a CoCa": "text_decoder.resblocks.0.ln_1.weight",
    "attentional pooling": "visual.attn_pool.query",
    "a text tower of its own, by": "text.transformer.embeddings.word_embeddings.weight",
    "(custom_text)": "text.token_embedding.weight",
    "a SigLIP": "logit_bias",
    "LayerScale": "visual.transformer.resblocks.0.ls_1.gamma",
    "another library": "visual.blocks.0.norm1.weight",
}


@pytest.mark.parametrize(("kind", "key"), OTHERS.items())
@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside a whole CLIP"])
def test_a_kind_that_does_not_load_is_named_with_those_that_do(kind: str, key: str, is_alone: bool):
    with pytest.raises(CheckpointError) as caught:
        to_openai_names({**({} if is_alone else TOWERS), key: torch.ones(1)}, PATH)
    text = str(caught.value)
    assert text.startswith(f"{PATH}: ") and kind in text
    assert f"by its entry {key}. {WHAT_LOADS}" in text


def test_every_kind_that_is_known_by_an_entry_is_met_above():
    assert len(OTHER_KINDS) == len(OTHERS) + 2, "the two others are this project's own and the released one"


def test_checkpoints_of_this_project_and_released_ones_are_sent_to_init_model():
    own = dict(tiny.model().state_dict())
    for state, kind in ((own, "a checkpoint of this project"), (released_state(), "the released STOA-VLP")):
        with pytest.raises(CheckpointError, match=kind) as caught:
            to_openai_names(state, PATH)
        assert "--init_model" in str(caught.value) and WHAT_LOADS not in str(caught.value)


@pytest.mark.parametrize("state", [{}, {"layer1.weight": torch.ones(1)}, {"visual.proj": torch.ones(1)}], ids=str)
def test_a_file_of_something_else_says_what_loads(state: dict[str, Tensor]):
    with pytest.raises(CheckpointError, match=r"clip\.pt: not a CLIP ViT state dict: it has no entry visual\.conv1"):
        to_openai_names(state, PATH)
