"""Which file --clip_archive means, and every kind of file that it may be."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path

import pytest
import torch
from open_clip.pretrained import get_pretrained_url, list_pretrained
from safetensors.torch import save_file

from tests.utils.models.scripted import save_writer
from tests.utils.models.small_clip import STATE, equal
from utils.models import clip_weights
from utils.models.clip_weights import CLIP_URL, find_clip_archive, origin, read_clip_weights
from utils.models.random_clip import save_archive
from utils.runtime.checkpoint import CheckpointError


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
