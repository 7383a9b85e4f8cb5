"""Which file --clip_archive means, and every kind of file that it may be."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from open_clip.pretrained import get_pretrained_url, list_pretrained
from safetensors.torch import save_file

from modules.config import ModelConfig
from tests.utils.models.scripted import save_writer
from tests.utils.models.small_clip import STATE, equal
from utils.models import clip_weights
from utils.models.clip_weights import CLIP_URL, find_clip_archive, origin, read_clip_weights
from utils.models.random_clip import PRESETS, ClipSizes, save_archive
from utils.runtime.checkpoint import FORMAT, CheckpointError


def test_the_archive_is_the_file_itself_or_the_one_in_the_folder(archive: Path, tmp_path: Path):
    assert find_clip_archive(archive) == archive
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "RN50.safetensors").touch()
    assert find_clip_archive(folder) == folder / "RN50.safetensors", "a single one is meant, whatever its name"
    (folder / "ViT-B-16.pt").touch()
    assert find_clip_archive(str(folder)) == folder / "ViT-B-16.pt"


def test_the_usual_places_are_looked_at(tmp_path: Path):
    usual = tmp_path / "repository" / "modules" / "clip" / "ViT-B-16.pt"
    usual.parent.mkdir(parents=True)
    usual.touch()
    assert find_clip_archive("data/models/nothing") == usual


def test_several_files_in_the_folder_are_named(tmp_path: Path):
    for name in ("b.pt", "a.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"several files \(a\.safetensors, b\.pt\): name one"):
        find_clip_archive(tmp_path)


def test_no_archive_lists_the_places_and_the_address(tmp_path: Path):
    with pytest.raises(CheckpointError) as caught:
        find_clip_archive(tmp_path / "absent")
    text = str(caught.value)
    assert text.startswith(f"no CLIP weights at --clip_archive {tmp_path / 'absent'}.")
    for place in ("absent", "absent/ViT-B-16.pt", "repository/modules/clip/ViT-B-16.pt", "repository/data/models/clip"):
        assert str(tmp_path / place) in text
    assert CLIP_URL in text and "utils/make_random_clip.py" in text


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("model.safetensors", "pytorch_model.bin", "other.pt"), "model.safetensors"),
        (("open_clip_pytorch_model.bin", "model.safetensors"), "open_clip_pytorch_model.bin"),
        (("open_clip_model.safetensors", "open_clip_pytorch_model.bin"), "open_clip_model.safetensors"),
        (("pytorch_model.bin", "tf_model.h5", "training_args.bin"), "pytorch_model.bin"),
        (
            ("model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"),
            "model.safetensors.index.json",
        ),
        (("p-1.bin", "p-2.bin", "pytorch_model.bin.index.json"), "pytorch_model.bin.index.json"),
    ],
    ids=str,
)
def test_the_known_names_in_a_folder_come_before_others(tmp_path: Path, names: tuple[str, ...], found: str):
    for name in (*names, "config.json", "open_clip_config.json"):
        (tmp_path / name).touch()
    assert find_clip_archive(tmp_path) == tmp_path / found


@pytest.mark.parametrize(
    "names", [("a.pt", "b.pt"), ("config.json",), ("open_clip_config.json", "vocab.json")], ids=str
)
def test_a_folder_with_weights_or_a_configuration_of_its_own_means_no_others(tmp_path: Path, names: tuple[str, ...]):
    usual = tmp_path / "repository" / "modules" / "clip" / "ViT-B-16.pt"
    (tmp_path / "given").mkdir()
    usual.parent.mkdir(parents=True)
    usual.touch()
    assert find_clip_archive(tmp_path / "given") == usual, "an empty folder"
    for name in names:
        (tmp_path / "given" / name).touch()
    said = "several files" if len(names) > 1 and names[0] == "a.pt" else f"It holds {names[0]} without weights"
    with pytest.raises(CheckpointError, match=said):
        find_clip_archive(tmp_path / "given")


@pytest.mark.parametrize("kind", ["script", "plain", "wrapped", "parallel", "safetensors"])
def test_every_kind_of_archive_gives_the_same_state(tmp_path: Path, kind: str):
    path = tmp_path / ("clip.safetensors" if kind == "safetensors" else "clip.pt")
    if kind == "script":
        save_archive(STATE, path)
    elif kind == "safetensors":
        save_file(STATE, path)
    elif kind == "parallel":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in STATE.items()}}, path)
    else:
        torch.save(STATE if kind == "plain" else {"model_state_dict": STATE}, path)
    integers = ("input_resolution", "context_length", "vocab_size", "quick_gelu")
    expected = {k: v for k, v in STATE.items() if k not in integers}
    assert equal(dict(sorted(read_clip_weights(path).state.items())), dict(sorted(expected.items())))


@pytest.mark.parametrize("name", ["clip.pt", "clip.safetensors"])
def test_no_archive_at_all_is_a_clear_error(tmp_path: Path, name: str):
    (tmp_path / name).write_text("<html>404 Not Found</html>")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / name))):
        read_clip_weights(tmp_path / name)


def test_a_damaged_archive_is_a_clear_error(archive: Path):
    content = bytearray(archive.read_bytes())
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"clip\.pt"):
        read_clip_weights(archive)
    place = content.index(b"constants.pkl") + 60  # the table of contents stays whole, the content does not
    content[place : place + 40] = bytes(40)
    middle = len(content) // 2
    content[1000:middle] = bytes(middle - 1000)
    archive.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"clip\.pt: damaged TorchScript archive"):
        read_clip_weights(archive)


def test_openais_own_files_are_known_by_their_digest(archive: Path, monkeypatch: pytest.MonkeyPatch):
    assert origin(archive) == "none of OpenAI's own files"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(clip_weights.OPENAI_FILES, digest, "ViT-B-16.pt")
    assert origin(archive) == "OpenAI's ViT-B-16.pt by its sha256"


def test_the_digests_are_those_of_openais_addresses():
    listed = {}
    for model, tag in list_pretrained():
        url = get_pretrained_url(model, tag)
        if "openaipublic" in url and "ViT" in model:
            listed[url.split("/")[-2]] = url.split("/")[-1]
    assert listed == clip_weights.OPENAI_FILES and CLIP_URL.split("/")[-2] in listed


def test_an_archive_with_code_of_its_own_is_not_run(tmp_path: Path):
    victim = tmp_path / "victim.py"
    victim.write_text("unchanged")
    with pytest.raises(CheckpointError, match=r"evil\.pt: its data\.pkl holds .* which would run code"):
        read_clip_weights(save_writer(tmp_path / "evil.pt", victim))
    assert victim.read_text() == "unchanged"


def test_no_file_of_the_product_lets_torch_read_scripts_or_whole_pickles():
    root = Path(__file__).resolve().parents[3]
    for package in ("modules", "dataloaders", "utils", "tasks"):
        for path in (root / package).glob("**/*.py"):
            for call in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]:
                name, flags = ast.unparse(call.func), [ast.unparse(keyword) for keyword in call.keywords]
                assert not name.endswith("jit.load"), path
                assert name != "torch.load" or "weights_only=True" in flags, path


# -- what no tensor tells

BARE = {name: value for name, value in STATE.items() if name != "quick_gelu"}
OPEN_CLIP = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 100, "width": 64, "heads": 1, "layers": 3},
}


def save(state: dict[str, torch.Tensor], path: Path, **model: object) -> Path:
    """A state dict with the configuration of open_clip beside it, if there is something to say."""
    torch.save(state, path)
    if model:
        (path.parent / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**OPEN_CLIP, **model}}))
    return path


def test_a_bare_file_has_the_activation_of_the_flag_and_none_without(tmp_path: Path):
    path = save(BARE, tmp_path / "clip.pt")
    for activation in ("gelu", "quick_gelu"):
        clip = read_clip_weights(path, activation=activation)
        assert clip.described["activation"] == activation and clip.described["head_width"] == 64
    with pytest.raises(CheckpointError, match=r"clip\.pt: nothing states its activation.*--clip_model.*--activation"):
        read_clip_weights(path)


def test_the_configuration_beside_a_file_says_more_than_the_file(tmp_path: Path):
    clip = read_clip_weights(save(BARE, tmp_path / "clip.pt", quick_gelu=False))
    assert clip.described["activation"] == "gelu"
    assert read_clip_weights(save(STATE, tmp_path / "clip.pt", quick_gelu=True)).described["activation"] == "quick_gelu"


@pytest.mark.parametrize(
    ("state", "model", "flags", "said"),
    [
        (STATE, {"quick_gelu": False}, {}, "activation gelu by the one, quick_gelu by the other"),
        (
            BARE,
            {"quick_gelu": False},
            {"activation": "quick_gelu"},
            "open_clip_config.json and --activation quick_gelu",
        ),
        (BARE, {"quick_gelu": True}, {"clip_model": "ViT-B-16"}, "open_clip_config.json and --clip_model ViT-B-16"),
        (STATE, {}, {"activation": "gelu"}, "--activation gelu contradict"),
        (STATE, {}, {"clip_model": "ViT-B-16"}, "--clip_model ViT-B-16 and .*clip.pt contradict"),
        (BARE, {}, {"clip_model": "ViT-B-16", "activation": "quick_gelu"}, "names that end in -quickgelu"),
        (BARE, {}, {"clip_model": "ViT-B-16"}, "not the sizes that --clip_model ViT-B-16 states: embed_dim 512 stated"),
        (BARE, {"embed_dim": 32}, {}, "not the sizes that .*open_clip_config.json, .* states|embed_dim 32 stated"),
        ({**STATE, "head_width": torch.tensor(32)}, {"quick_gelu": True}, {}, "head_width 64 by the one, 32 by the"),
    ],
    ids=str,
)
def test_sources_that_contradict_each_other_are_an_error(
    tmp_path: Path, state: dict, model: dict, flags: dict, said: str
):
    with pytest.raises(CheckpointError, match=said):
        read_clip_weights(save(state, tmp_path / "clip.pt", **model), **flags)


@pytest.mark.parametrize("name", ["head_width", "text_head_width", "quick_gelu"])
@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(2.0), torch.tensor(-1), torch.tensor([1, 1]), torch.tensor([]), torch.tensor(1j),
        torch.tensor(1 << 40),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_file_says_of_itself_is_a_number_that_a_clip_can_have(tmp_path: Path, name: str, value: torch.Tensor):
    with pytest.raises(CheckpointError, match=rf"clip\.pt: its {name} is no number that a CLIP can have"):
        read_clip_weights(save({**STATE, name: value}, tmp_path / "clip.pt"))


def test_heads_of_nothing_are_an_error_too(tmp_path: Path):
    for name in ("head_width", "text_head_width"):
        with pytest.raises(CheckpointError, match=f"its {name} is no number"):
            read_clip_weights(save({**STATE, name: torch.tensor(0)}, tmp_path / "clip.pt"))


@pytest.mark.parametrize(
    "stated", [{}, {"head_width": 16}, {"head_width": 16, "text_head_width": 32}, {"text_head_width": 8}]
)
def test_heads_are_those_that_the_file_states(tmp_path: Path, stated: dict[str, int]):
    state = {**BARE, **{name: torch.tensor(value) for name, value in stated.items()}, "quick_gelu": torch.tensor(0)}
    described = read_clip_weights(save(state, tmp_path / "clip.pt")).described
    width = stated.get("head_width", 64)
    assert (described["head_width"], described["text_head_width"]) == (width, stated.get("text_head_width", width))
    assert described["activation"] == "gelu"


def test_an_archive_of_before_the_activation_was_stated_is_quick_gelu_and_another_s_is_not(tmp_path: Path):
    save_archive(BARE, tmp_path / "random.pt")
    assert read_clip_weights(tmp_path / "random.pt").described["activation"] == "quick_gelu"
    save_archive({**BARE, "head_width": torch.tensor(16)}, tmp_path / "narrow.pt")
    described = read_clip_weights(tmp_path / "narrow.pt").described
    assert (described["activation"], described["head_width"], described["text_head_width"]) == ("quick_gelu", 16, 16)
    save_archive({**BARE, "ln_final.bias": BARE["ln_final.bias"] + 0.01}, tmp_path / "trained.pt")
    with pytest.raises(CheckpointError, match=r"trained\.pt: nothing states its activation"):
        read_clip_weights(tmp_path / "trained.pt")


def test_openais_own_file_is_quick_gelu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save(BARE, tmp_path / "ViT-B-16.pt")
    monkeypatch.setitem(clip_weights.OPENAI_FILES, hashlib.sha256(path.read_bytes()).hexdigest(), "ViT-B-16.pt")
    assert read_clip_weights(path).described["activation"] == "quick_gelu"
    with pytest.raises(CheckpointError, match=r"ViT-B-16\.pt and --activation gelu contradict"):
        read_clip_weights(path, activation="gelu")


def test_clip4clip_is_quick_gelu_by_its_code(tmp_path: Path):
    towers = {f"clip.{name}": value for name, value in BARE.items() if value.is_floating_point()}
    clip = read_clip_weights(save(towers, tmp_path / "clip.pt"))
    assert clip.described["activation"] == "quick_gelu" and "taken for a checkpoint of CLIP4Clip" in clip.remarks[0]
    other = read_clip_weights(tmp_path / "clip.pt", activation="gelu")
    assert other.described["activation"] == "gelu" and other.remarks == []


@pytest.mark.parametrize(
    ("sizes", "heads"),
    [
        (PRESETS["ViT-H-14"], (80, 64)),
        (PRESETS["ViT-L-14"], (64, 64)),
        (replace(PRESETS["ViT-H-14"], image_resolution=378), (80, 64)),
        (replace(PRESETS["ViT-B-16"], vision_layers=3), (64, 64)),
        (replace(PRESETS["demo"], head_width=64, vision_width=192), (64, 64)),
        (replace(PRESETS["ViT-H-14"], vision_layers=2), None),
        (replace(PRESETS["demo"], vision_width=96, text_width=96, head_width=96), None),
        (replace(PRESETS["demo"], text_width=32), None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_heads_of_a_bare_file_are_those_of_the_table_or_openais(sizes: ClipSizes, heads: tuple[int, int] | None):
    config = ModelConfig(**{name: getattr(sizes, name) for name in clip_weights.TELLING_SIZES}, image_resolution=224)
    if heads:
        assert clip_weights._usual_heads(Path("clip.pt"), config)[0] == heads
        return
    with pytest.raises(
        CheckpointError, match=r"clip\.pt: nothing states how wide its attention heads are; give --clip_model"
    ):
        clip_weights._usual_heads(Path("clip.pt"), config)


def test_entries_of_whole_numbers_are_no_weights(tmp_path: Path):
    state = {**STATE, "visual.proj": torch.ones(64, 64, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match=r"clip\.pt: not a whole CLIP: visual\.proj holds torch\.int8"):
        read_clip_weights(save(state, tmp_path / "clip.pt"))


def test_more_words_than_the_tokenizer_has_are_of_another(tmp_path: Path):
    state = {**STATE, "token_embedding.weight": torch.zeros(49409, 64)}
    with pytest.raises(CheckpointError, match=r"clip\.pt: a vocabulary of 49,409, CLIP's tokenizer has 49,408"):
        read_clip_weights(save(state, tmp_path / "clip.pt"))


def test_folders_of_this_project_are_no_clip_weights(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"format": FORMAT, "version": 1}))
    save_file(STATE, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"a checkpoint of this project and no CLIP weights; give it to --init_model"
    ):
        read_clip_weights(find_clip_archive(tmp_path))


def test_the_configuration_of_a_run_beside_a_file_is_none_of_it(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"task": "pretrain", "arguments": {"seed": 1}}))
    assert read_clip_weights(save(STATE, tmp_path / "clip.pt")).described["activation"] == "quick_gelu"
