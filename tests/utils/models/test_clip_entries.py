"""CLIP weights with an entry more or less, of another shape or under another prefix never load in silence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.clip_sources import catalogue
from tests.clip_sources.comparison import BOUND, differences, load_ours, our_features
from tests.clip_sources.source import SHAPES, Written
from utils.models.random_clip import save_archive
from utils.models.torchscript_archive import read_torchscript
from utils.runtime.checkpoint import CheckpointError

pytest.importorskip("transformers", reason="transformers (requirements-dev.txt) writes what is read here")

from tests.clip_sources import hugging_face, open_clips

TINY = SHAPES["tiny"]
State = dict[str, Tensor]
LAYOUTS = ("transformers", "transformers, .bin", "open_clip", "file and flag", "TorchScript", "CLIP4Clip")
STATEMENTS = ("input_resolution", "context_length", "vocab_size", "activation", "head_width")  # no weights


class Layout(NamedTuple):
    """A sound source, its entries, and how other entries are put in their place."""

    written: Written
    state: State
    put: Callable[[State], None]

    def attempt(self, state: State) -> str:
        """What the reader says of other entries; "" if it takes them and computes the same, else "SILENT"."""
        self.put(state)
        try:
            model = load_ours(self.written.archive, self.written.flags, self.written.inputs)
        except (CheckpointError, ValueError) as error:
            return str(error)
        assert self.written.reference is not None
        found = differences(our_features(model, self.written.inputs), self.written.reference)
        return "" if found.largest <= BOUND else "SILENT"


def make(kind: str, folder: Path) -> Layout:
    config = open_clips.config_for(TINY, "gelu")
    if kind.startswith("transformers"):
        form = "folder with .bin" if kind.endswith(".bin") else "folder"
        written = hugging_face.write(folder, TINY, "gelu", form)
        path = folder / ("pytorch_model.bin" if kind.endswith(".bin") else "model.safetensors")
    elif kind == "open_clip":
        written = open_clips.write(folder, config, catalogue.FOLDER)
        path = written.archive / open_clips.SAFE
    elif kind == "file and flag":
        written = open_clips.write(folder, config, "training's checkpoint, --activation")
        path = written.archive
    elif kind == "TorchScript":
        written = open_clips.write_archive(folder, TINY, "")
        return Layout(written, read_torchscript(written.archive), lambda state: save_archive(state, written.archive))
    else:
        written = open_clips.write_clip4clip(folder, TINY)
        path = written.archive
    if path.suffix == ".safetensors":
        return Layout(written, load_file(path), lambda state: save_file(state, path))
    return Layout(written, _unwrapped(path), lambda state: torch.save(state, path))


def _unwrapped(path: Path) -> State:
    content = torch.load(path, weights_only=True)
    return dict(content.get("state_dict", content))


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    return make(request.param, tmp_path)


def weights(state: State) -> list[str]:
    """Entries that are weights; of the blocks, which are alike, those of the second of both towers."""
    inside = re.compile(r"\b(resblocks|layers)\.(?!1\.)")
    return [name for name in state if name not in STATEMENTS and not inside.search(name)]


def is_size(layout: Layout, name: str) -> bool:
    """Whether the rows of an entry alone tell a size, that of the vocabulary or the longest text."""
    bare = name.removeprefix("module.").removeprefix("clip.")
    return layout.written.archive.is_file() and bare in ("token_embedding.weight", "positional_embedding")


def test_a_sound_one_loads(layout: Layout):
    assert layout.attempt(dict(layout.state)) == ""


@pytest.mark.slow
def test_an_entry_less_is_an_error_wherever_it_is(layout: Layout):
    taken = []
    for name in weights(layout.state):
        said = layout.attempt({key: value for key, value in layout.state.items() if key != name})
        if layout.written.archive.name not in said:
            taken.append((name, said))
    assert not taken


@pytest.mark.parametrize(
    "name",
    [
        "visual.ln_extra.weight",
        "visual.transformer.resblocks.0.ls_1.gamma",
        "transformer.resblocks.1.attn.in_proj_bias_2",
        "vision_model.encoder.layers.0.self_attn.q_proj.lora_A",
        "text_model.embeddings.extra",
        "logit_bias",
        "visual.conv1.bias",
        "classifier.weight",
        "ema.text_projection",
    ],
)
def test_an_entry_more_is_an_error_that_names_it(layout: Layout, name: str):
    wrap = next(iter(layout.state)).partition(".")[0]
    name = f"{wrap}.{name}" if wrap in ("clip", "module") else name
    said = layout.attempt({**layout.state, name: torch.full((3,), 0.5)})
    assert name.removeprefix("clip.").removeprefix("module.") in said, said or "taken"
    assert layout.written.archive.name in said


def test_a_layer_more_is_an_error(layout: Layout):
    last = [name for name in layout.state if re.search(r"\b(resblocks|layers)\.1\.", name)]
    assert len(last) >= 24
    for tower in ("vis", ""):
        more = {
            re.sub(r"\b(resblocks|layers)\.1\.", r"\1.7.", name): layout.state[name].clone()
            for name in last
            if ("vis" in name) == bool(tower)
        }
        assert more and layout.written.archive.name in layout.attempt({**layout.state, **more})


@pytest.mark.slow
def test_an_entry_of_another_shape_is_an_error_wherever_it_is(layout: Layout):
    taken = []
    for number, name in enumerate(weights(layout.state)):
        value = layout.state[name]
        if value.ndim < 2:
            other = value.repeat(2)
        elif is_size(layout, name):
            other = torch.cat([value, value], dim=1)
        else:
            other = (torch.cat([value, value]), value[:-1], value.flatten())[number % 3]
        said = layout.attempt({**layout.state, name: other.clone()})
        if layout.written.archive.name not in said:
            taken.append((name, tuple(other.shape), said))
    assert not taken


def test_a_square_matrix_of_another_kind_is_an_error(layout: Layout):
    """Whole numbers, truth values and complex numbers are no weights."""
    name = next(name for name in weights(layout.state) if name.endswith(("c_fc.weight", "fc1.weight")))
    for dtype in (torch.int8, torch.bool, torch.complex64):
        said = layout.attempt({**layout.state, name: layout.state[name].to(dtype)})
        assert layout.written.archive.name in said, said or f"{dtype} taken"


@pytest.mark.parametrize("prefix", ["model.", "clip_model.", "base_model.model.", "module.module.", "_orig_mod.", "x"])
def test_another_prefix_is_an_error_or_is_understood(layout: Layout, prefix: str):
    said = layout.attempt({prefix + name: value for name, value in layout.state.items()})
    assert said == "" or layout.written.archive.name in said


@pytest.mark.parametrize("part", ["vis", "text", "1."])
def test_a_prefix_of_some_entries_alone_is_an_error(layout: Layout, part: str):
    for prefix in ("module.", "clip.", "model."):
        state = {(prefix if part in name else "") + name: value for name, value in layout.state.items()}
        assert layout.written.archive.name in layout.attempt(state)


def test_entries_of_two_layouts_in_one_file_are_an_error(layout: Layout, tmp_path: Path):
    is_of_transformers = any(name.startswith("text_model.") for name in layout.state)
    other = make("open_clip" if is_of_transformers else "transformers", tmp_path / "other").state
    # A module of TorchScript cannot have a parameter and a module of one name.
    more = {name: value for name, value in other.items() if not name.startswith("text_projection")}
    assert layout.written.archive.name in layout.attempt({**more, **layout.state})
