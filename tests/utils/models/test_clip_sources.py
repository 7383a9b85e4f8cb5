"""Weights of every library that has CLIP are loaded as that library computes, or refused with what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.tasks.retrieval import RetrievalModel
from tests.clip_sources import catalogue
from tests.clip_sources.comparison import BOUND, differences, load_ours, our_features, settings_for
from tests.clip_sources.rows import line, try_source
from tests.clip_sources.source import LOADS, REFUSED, SHAPES, Source, Written, state_of
from utils.inference.loading import use_settings
from utils.models import clip_weights
from utils.models.random_clip import save_archive
from utils.models.setup import setup_model
from utils.runtime.checkpoint import CheckpointError

pytest.importorskip("transformers", reason="transformers (requirements-dev.txt) computes what is right")

from tests.clip_sources import hugging_face, open_clips

TINY = SHAPES["tiny"]
SOURCES = catalogue.unique(
    [*catalogue.small(), catalogue.bare(), *catalogue.refused_of_transformers(), *catalogue.refused_of_open_clip()]
)
H14 = replace(TINY, vision_width=160, vision_head=80, text_width=128, embed=128)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.title.replace("/", " "))
def test_a_source_has_its_outcome(source: Source):
    row = try_source(source)
    assert not row.fault, line(row)


@pytest.mark.parametrize(
    "name", [name for name in open_clips.table() if "timm_model_name" not in open_clips.config_of(name)["vision_cfg"]]
)
def test_every_model_of_open_clips_table_loads_right_or_is_refused(name: str):
    refused = bool(open_clips.why_not_plain(open_clips.config_of(name)))
    row = try_source(catalogue.small_by_name(name, REFUSED if refused else LOADS))
    assert not row.fault, line(row)


def test_heads_of_80_beside_text_heads_of_64():
    for source in (catalogue.open_clip("H/14", shape=H14), catalogue.hugging_face("H/14", "folder", "gelu", H14)):
        row = try_source(source)
        assert not row.fault, line(row)


def same(written: Written, model: Any) -> bool:
    """Whether a model computes what the source's library does."""
    assert written.reference is not None
    return differences(our_features(model, written.inputs), written.reference).largest <= BOUND


def as_init_model(written: Written) -> Any:
    """The model that `Predictor(path)` builds."""
    given = settings_for(written.flags, written.inputs).model.given()
    settings = use_settings(written.archive, {**{k: v for k, v in given.items() if v}, **written.flags})
    return setup_model(RetrievalModel, settings, [].append).eval()


@pytest.mark.parametrize("form", ["folder with preprocessor", "folder of parts"])
def test_a_folder_of_transformers_may_be_given_as_init_model(tmp_path: Path, form: str):
    written = hugging_face.write(tmp_path, TINY, "gelu", form, processor=catalogue.HALVES)
    assert same(written, as_init_model(written))


def test_a_folder_of_open_clip_may_be_given_as_init_model(tmp_path: Path):
    written = open_clips.write(tmp_path, open_clips.config_for(TINY, "gelu"), catalogue.FOLDER)
    assert same(written, as_init_model(written))
    file = written._replace(archive=written.archive / open_clips.SAFE, flags={"activation": "gelu"})
    assert same(file, as_init_model(file))


def test_a_file_inside_a_folder_is_read_with_the_configuration_beside_it(tmp_path: Path):
    first = hugging_face.write(tmp_path / "hf", TINY, "gelu", "folder", processor=catalogue.HALVES)
    second = open_clips.write(tmp_path / "oc", open_clips.config_for(TINY, "gelu"), catalogue.FOLDER)
    for written, name in ((first, "model.safetensors"), (second, open_clips.SAFE)):
        assert same(written, load_ours(written.archive / name, {}, written.inputs))


@pytest.mark.parametrize("form", ["folder with preprocessor", "folder of parts"])
def test_a_folder_of_links_loads_as_the_cache_of_the_hub_has_them(tmp_path: Path, form: str):
    written = hugging_face.write(tmp_path / "plain", TINY, "gelu", form)
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(written.archive.iterdir())):
        file.rename(blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{number:040x}")
    assert same(written, load_ours(snapshot, {}, written.inputs))


def test_a_folder_of_both_libraries_is_read_as_one_of_them(tmp_path: Path):
    """LAION's on the hub hold the files of both; a file that is named is read with its own configuration."""
    second = hugging_face.write(tmp_path / "hf", TINY, "quick_gelu", "folder with preprocessor")
    first = open_clips.write(tmp_path, open_clips.config_for(TINY, "gelu"), "folder with .bin and .safetensors")
    for file in second.archive.iterdir():
        file.rename(first.archive / file.name)
    model = load_ours(first.archive, {}, first.inputs)
    assert same(first, model) or same(second, model)
    for written, name in ((first, open_clips.SAFE), (first, open_clips.BINARY), (second, "model.safetensors")):
        assert same(written, load_ours(first.archive / name, {}, first.inputs))


def test_of_two_image_processors_that_of_transformers_choice_counts(tmp_path: Path):
    """Where two files describe it and contradict each other, transformers takes processor_config.json."""
    hugging_face.write(tmp_path, TINY, "gelu", "folder with processor", processor=catalogue.HALVES)
    whole = json.loads((tmp_path / "processor_config.json").read_text())
    other = {**whole["image_processor"], "image_mean": [0.1, 0.2, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(other))
    written = hugging_face.read_back(tmp_path, TINY.inputs())
    try:
        model = load_ours(tmp_path, {}, written.inputs)
    except CheckpointError as error:
        assert "processor_config.json" in str(error)
    else:
        assert same(written, model)


def bare(folder: Path, activation: str = "gelu", suffix: str = "safetensors") -> Written:
    """A state dict alone, and what open_clip makes of it with an activation."""
    folder.mkdir(parents=True, exist_ok=True)
    model = open_clips.make_model(open_clips.config_for(TINY, activation), folder)
    path = folder / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(state_of(model), path)
    return Written(path, TINY.inputs(), open_clips.features(model, TINY.inputs()))


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "bin"])
@pytest.mark.parametrize("flag", ["clip_archive", "init_model"])
def test_a_file_whose_activation_nothing_states_is_refused_with_the_flags(tmp_path: Path, suffix: str, flag: str):
    written = bare(tmp_path, suffix=suffix)
    with pytest.raises(CheckpointError, match=rf"(?s)weights\.{suffix}") as caught:
        load_ours(written.archive, {}, written.inputs) if flag == "clip_archive" else as_init_model(written)
    assert "--activation" in str(caught.value) and "--clip_model" in str(caught.value)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_a_file_loads_with_the_flag_that_states_its_activation(tmp_path: Path, suffix: str, activation: str):
    written = bare(tmp_path, activation, suffix)
    assert same(written, load_ours(written.archive, {"activation": activation}, written.inputs))
    other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}[activation]
    assert not same(written, load_ours(written.archive, {"activation": other}, written.inputs))


def test_a_file_with_heads_of_80_is_right_or_refused_with_a_flag_that_states_no_width(tmp_path: Path):
    """As many layers as no model of open_clip's table has, and nothing says how wide the heads are."""
    shape = replace(TINY, vision_width=1280, vision_layers=2, vision_head=80)
    model = open_clips.make_model(open_clips.config_for(shape, "gelu"), tmp_path)
    save_file(state_of(model), tmp_path / "weights.safetensors")
    written = Written(tmp_path / "weights.safetensors", shape.inputs(), open_clips.features(model, shape.inputs()))
    try:
        loaded = load_ours(written.archive, {"activation": "gelu"}, written.inputs)
    except CheckpointError as error:
        assert "weights.safetensors" in str(error) and "heads" in str(error)
    else:
        assert same(written, loaded)


CONTRADICTIONS: list[tuple[str, Mapping[str, Any], str]] = [
    ("transformers", {"activation": "quick_gelu"}, "activation"),
    ("transformers", {"clip_model": "ViT-B-16"}, "clip_model"),
    ("open_clip", {"activation": "quick_gelu"}, "activation"),
    ("open_clip", {"clip_model": "ViT-B-16-quickgelu"}, "clip_model"),
    ("file", {"clip_model": "ViT-B-16-quickgelu", "activation": "gelu"}, "activation"),
    ("file", {"clip_model": "ViT-B-16"}, "clip_model|ViT-B-16"),
    ("file", {"clip_model": "RN50"}, "RN50"),
    ("file", {"clip_model": "ViT-B-16-SigLIP"}, "SigLIP"),
    ("file", {"clip_model": "../../etc/ViT-B-16"}, "clip_model"),
    ("file", {"clip_model": "no-such-model"}, "no-such-model"),
]


@pytest.mark.parametrize(("kind", "flags", "message"), CONTRADICTIONS, ids=str)
def test_flags_that_contradict_what_is_there_are_an_error(
    tmp_path: Path, kind: str, flags: Mapping[str, Any], message: str
):
    if kind == "transformers":
        written = hugging_face.write(tmp_path, TINY, "gelu", "folder")
    elif kind == "open_clip":
        written = open_clips.write(tmp_path, open_clips.config_for(TINY, "gelu"), catalogue.FOLDER)
    else:
        written = bare(tmp_path)
    with pytest.raises((CheckpointError, ValueError), match=f"(?s){message}"):
        load_ours(written.archive, flags, written.inputs)


@pytest.mark.parametrize("kind", ["transformers", "open_clip"])
def test_a_flag_that_says_the_same_as_the_configuration_is_no_contradiction(tmp_path: Path, kind: str):
    if kind == "transformers":
        written = hugging_face.write(tmp_path, TINY, "gelu", "folder")
    else:
        written = open_clips.write(tmp_path, open_clips.config_for(TINY, "gelu"), catalogue.FOLDER)
    assert same(written, load_ours(written.archive, {"activation": "gelu"}, written.inputs))


def test_openais_own_files_are_known_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A TorchScript archive of anyone else states nothing; OpenAI's are QuickGELU."""
    model = open_clips.make_model(open_clips.config_for(TINY, "quick_gelu"), tmp_path)
    stated = {
        "input_resolution": torch.tensor(TINY.resolution),
        "context_length": torch.tensor(TINY.context),
        "vocab_size": torch.tensor(TINY.vocab),
    }
    path = tmp_path / "ViT.pt"
    save_archive(state_of(model) | stated, path)
    import hashlib

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(clip_weights.OPENAI_FILES, digest, "ViT-B-16.pt")
    written = Written(path, TINY.inputs(), open_clips.features(model, TINY.inputs()))
    assert same(written, load_ours(path, {}, written.inputs))
    with pytest.raises((CheckpointError, ValueError), match="activation"):
        load_ours(path, {"activation": "gelu"}, written.inputs)


def test_a_fine_tune_with_another_mean_keeps_it_in_its_checkpoint(tmp_path: Path):
    from utils.runtime.checkpoint import model_content, save_atomically

    written = open_clips.write(
        tmp_path, open_clips.config_for(H14, "gelu"), catalogue.FOLDER, preprocess={"mean": (0.5, 0.4, 0.3)}
    )
    model = load_ours(written.archive, {}, written.inputs)
    save_atomically(model_content(model, 7, 1), tmp_path / "own.bin")
    again = setup_model(RetrievalModel, use_settings(tmp_path / "own.bin"), [].append).eval()
    assert again.config == model.config and again.config.pixel_mean == (0.5, 0.4, 0.3)
    assert same(written, again)


def test_half_of_the_towers_of_an_index_are_not_enough(tmp_path: Path):
    """A folder whose index was cut is refused, though every part that it names is there."""
    written = hugging_face.write(tmp_path, TINY, "gelu", "folder of parts")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict(list(content["weight_map"].items())[:-1])
    index.write_text(json.dumps(content))
    part = next(iter(tmp_path.glob("model-00001-*")))
    assert load_file(part)
    with pytest.raises(CheckpointError, match="text_projection|vision_model|visual"):
        load_ours(tmp_path, {}, written.inputs)
