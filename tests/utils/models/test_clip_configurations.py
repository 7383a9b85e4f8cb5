"""Configurations beside CLIP weights are a stranger's: what is wrong with them is said, with the file's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.clip_sources import catalogue
from tests.clip_sources.comparison import BOUND, differences, load_ours, our_features
from tests.clip_sources.source import SHAPES, Written
from utils.runtime.checkpoint import CheckpointError

pytest.importorskip("transformers", reason="transformers (requirements-dev.txt) writes what is read here")

from tests.clip_sources import hugging_face, open_clips

TINY = SHAPES["tiny"]
NAN, HUGE = float("nan"), 10**400
SHARDED = "folder of parts"
NO_SIZE = (0, -8, 8.5, "8", None, [8, 8, 8], {}, True, 10**9, 10**30, 1e300, NAN)
NO_TRIPLE = ("0.5", [0.5], [0.5, 0.5], [0.5] * 4, ["0.5"] * 3, [None] * 3, [[0.5] * 3] * 3, [True] * 3)
NO_NUMBERS = ([NAN] * 3, [float("inf"), 0.5, 0.5], [HUGE, 0, 0], [1e300] * 3)


def write(kind: str, folder: Path) -> tuple[Written, Path]:
    """A sound folder, and its configuration."""
    if kind == "open_clip":
        written = open_clips.write(folder, open_clips.config_for(TINY, "gelu"), catalogue.FOLDER)
        return written, written.archive / "open_clip_config.json"
    form = "folder with processor" if kind == "processor" else "folder with preprocessor"
    written = hugging_face.write(folder, TINY, "gelu", form, processor=catalogue.HALVES)
    names = {"config": "config.json", "preprocessor": "preprocessor_config.json", "processor": "processor_config.json"}
    return written, folder / names[kind]


def set_in(content: Any, keys: tuple[str, ...], value: Any) -> Any:
    """The content with another value at a place; all of it without keys."""
    if not keys:
        return value
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return content


def cases() -> list[tuple[str, tuple[str, ...], Any]]:
    found: list[tuple[str, tuple[str, ...], Any]] = []
    for tower in ("vision_config", "text_config"):
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            found += [("config", (tower, key), value) for value in NO_SIZE]
        found += [("config", (tower, "num_attention_heads"), value) for value in (3, 7, 64 * 64)]
        found += [("config", (tower, "hidden_act"), value) for value in (5, None, ["gelu"], {}, "", "relu", "GELU!")]
        found += [("config", (tower, "layer_norm_eps"), value) for value in (NAN, -1.0, "1e-5", None, [], 1e9)]
        found += [("config", (tower,), value) for value in ([], "x", 7, True)]
    for key in ("image_size", "patch_size"):
        found += [("config", ("vision_config", key), value) for value in NO_SIZE]
    for key in ("vocab_size", "max_position_embeddings"):
        found += [("config", ("text_config", key), value) for value in NO_SIZE]
    found += [("config", ("text_config", "eos_token_id"), value) for value in (-1, 700, "599", [5, 6], NAN, True)]
    found += [("config", ("model_type",), value) for value in ("siglip", 5, ["clip"], {}, "chinese_clip", "xclip")]
    found += [("config", ("projection_dim",), value) for value in (0, -64, "64", 63, 10**12)]
    found += [("config", (), value) for value in ([], "x", 7, {})]
    for kind, inside, model in (("preprocessor", (), ()), ("processor", ("image_processor",), ())):
        for key in ("image_mean", "image_std"):
            found += [(kind, (*inside, key), value) for value in ([], *NO_TRIPLE, *NO_NUMBERS)]
        found += [(kind, (*inside, "image_std"), value) for value in ([0.0] * 3, [-0.5] * 3, [0.5, 0.5, 0.0])]
        found += [(kind, model, value) for value in ([], "x", 7)]
    found += [("processor", ("image_processor",), value) for value in ([], "x", 7)]
    for key in ("mean", "std"):
        found += [("open_clip", ("preprocess_cfg", key), value) for value in (*NO_TRIPLE, *NO_NUMBERS)]
    found += [("open_clip", ("preprocess_cfg", "std"), value) for value in ([0.0] * 3, [-0.5] * 3)]
    for key in ("layers", "width", "patch_size", "image_size", "head_width"):
        found += [("open_clip", ("model_cfg", "vision_cfg", key), value) for value in NO_SIZE]
    for key in ("layers", "width", "heads", "context_length", "vocab_size"):
        found += [("open_clip", ("model_cfg", "text_cfg", key), value) for value in NO_SIZE]
    found += [("open_clip", ("model_cfg", "vision_cfg", "head_width"), value) for value in (7, 4096)]
    found += [("open_clip", ("model_cfg", "text_cfg", "heads"), value) for value in (7, 3, 4096)]
    found += [("open_clip", ("model_cfg", "quick_gelu"), value) for value in ("no", 2, [], {}, 0.5)]
    found += [("open_clip", ("model_cfg", "vision_cfg", "rotary"), True), ("open_clip", ("model_cfg", "rotary"), True)]
    found += [("open_clip", ("model_cfg", "text_cfg", "later"), {"a": 1})]
    for keys in (("model_cfg",), ("model_cfg", "vision_cfg"), ("model_cfg", "text_cfg"), ()):
        found += [("open_clip", keys, value) for value in ([], "x", 7, None, {})]
    found += [("open_clip", ("preprocess_cfg",), value) for value in (["x"], "x", 7)]
    return found


KINDS = ("config", "preprocessor", "processor", "open_clip")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_no_model_has_are_an_error_that_names_the_file(tmp_path: Path, kind: str):
    written, path = write(kind, tmp_path)
    sound = path.read_text()
    wrong = []
    for _, keys, value in [case for case in cases() if case[0] == kind]:
        path.write_text(json.dumps(set_in(json.loads(sound), keys, value)))
        if said := outcome(written, path):
            wrong.append((".".join(keys), repr(value)[:40], said))
    assert not wrong, "\n".join(map(str, wrong))


def outcome(written: Written, path: Path) -> str:
    """Nothing for an error that names the file, else what came instead, be it the right features."""
    try:
        model = load_ours(written.archive, written.flags, written.inputs)
    except (CheckpointError, ValueError) as error:
        return "" if path.name in str(error) else f"names no file: {str(error)[:200]}"
    except Exception as error:
        return f"raised {error!r}"[:200]
    assert written.reference is not None
    found = differences(our_features(model, written.inputs), written.reference).largest
    return f"taken, difference {found:.1g}"


TEXTS: dict[str, Callable[[str], bytes]] = {
    "empty": lambda sound: b"",
    "cut": lambda sound: sound[: len(sound) // 2].encode(),
    "of another encoding": lambda sound: sound.encode("utf-16"),
    "no text": lambda sound: bytes(range(256)) * 8,
    "nested": lambda sound: b"[" * 200_000,
    "nested objects": lambda sound: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a long number": lambda sound: b'{"model_cfg": ' + b"9" * 100_000 + b"}",
    "python": lambda sound: b"{'model_type': 'clip'}",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_files_that_are_no_json_are_an_error_that_names_them(tmp_path: Path, kind: str, text: str):
    written, path = write(kind, tmp_path)
    path.write_bytes(TEXTS[text](path.read_text()))
    assert outcome(written, path) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_far_larger_than_any_configuration_is_not_read(tmp_path: Path, kind: str):
    written, path = write(kind, tmp_path)
    with path.open("r+b") as file:
        file.truncate(2**31)  # a hole, which takes no room
    assert outcome(written, path) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_other_white_space_and_line_ends_of_windows_change_nothing(tmp_path: Path, kind: str):
    written, path = write(kind, tmp_path)
    path.write_bytes(json.dumps(json.loads(path.read_text()), indent=7).replace("\n", "\r\n").encode())
    model = load_ours(written.archive, written.flags, written.inputs)
    assert written.reference is not None
    assert differences(our_features(model, written.inputs), written.reference).largest <= BOUND


def test_a_folder_in_the_place_of_a_configuration_is_an_error(tmp_path: Path):
    written, path = write("config", tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises((CheckpointError, ValueError), match=r"config\.json"):
        load_ours(written.archive, written.flags, written.inputs)


def sharded(folder: Path) -> tuple[Written, Path, dict[str, Any]]:
    written = hugging_face.write(folder / "model", TINY, "gelu", SHARDED)
    index = written.archive / "model.safetensors.index.json"
    return written, index, json.loads(index.read_text())


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "{folder}/outside.safetensors", "sub/../../outside.safetensors"],
)
def test_an_index_that_names_a_part_elsewhere_is_refused(tmp_path: Path, name: str):
    """The part is there and sound: it is its place that is refused."""
    written, index, content = sharded(tmp_path)
    part = sorted(set(content["weight_map"].values()))[0]
    (written.archive / "sub").mkdir()
    (written.archive / part).rename(tmp_path / "outside.safetensors")
    wanted = name.format(folder=tmp_path)
    content["weight_map"] = {key: wanted if file == part else file for key, file in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    assert outcome(written, index) == ""


@pytest.mark.parametrize(
    "value",
    [5, None, ["model-00001-of-00005.safetensors"], "", ".", "..", "config.json", "\0", "none.safetensors", "a" * 5000],
    ids=repr,
)
def test_an_index_that_names_no_part_is_refused(tmp_path: Path, value: Any):
    written, index, content = sharded(tmp_path)
    content["weight_map"]["text_projection.weight"] = value
    index.write_text(json.dumps(content))
    assert outcome(written, index) == ""


@pytest.mark.parametrize("value", [[], "x", 7, None, {}], ids=repr)
def test_an_index_without_a_map_is_refused(tmp_path: Path, value: Any):
    written, index, content = sharded(tmp_path)
    for whole in ({**content, "weight_map": value}, value):
        index.write_text(json.dumps(whole))
        assert outcome(written, index) == ""


@pytest.mark.parametrize("text", [name for name in TEXTS if name != "a long number"])
def test_an_index_that_is_no_json_is_refused(tmp_path: Path, text: str):
    written, index, content = sharded(tmp_path)
    index.write_bytes(TEXTS[text](json.dumps(content)))
    assert outcome(written, index) == ""


def test_a_missing_part_is_an_error_that_names_it(tmp_path: Path):
    written, index, content = sharded(tmp_path)
    part = sorted(set(content["weight_map"].values()))[2]
    (written.archive / part).unlink()
    with pytest.raises(CheckpointError, match=part.replace(".", r"\.")):
        load_ours(written.archive, {}, written.inputs)


def test_an_entry_that_is_in_another_part_than_the_index_says_is_an_error(tmp_path: Path):
    written, index, content = sharded(tmp_path)
    parts = sorted(set(content["weight_map"].values()))
    name = next(key for key, file in content["weight_map"].items() if file == parts[0])
    content["weight_map"][name] = parts[1]
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_ours(written.archive, {}, written.inputs)


def test_an_entry_of_two_parts_is_an_error(tmp_path: Path):
    """One of both would be taken, and nobody could say which."""
    written, _, content = sharded(tmp_path)
    parts = sorted(set(content["weight_map"].values()))
    name = next(key for key, file in content["weight_map"].items() if file == parts[0])
    second = load_file(written.archive / parts[1])
    save_file({**second, name: load_file(written.archive / parts[0])[name] + 1}, written.archive / parts[1])
    try:
        model = load_ours(written.archive, {}, written.inputs)
    except CheckpointError as error:
        assert name in str(error)
    else:  # taken from the part that the index names
        assert written.reference is not None
        assert differences(our_features(model, written.inputs), written.reference).largest <= BOUND
