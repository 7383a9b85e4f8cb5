"""Models by their name on the hub: what is fetched, what comes from the cache, and what is said where nothing comes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modules.tasks.captioning import CaptionModel
from tests.utils.models.exporting import set_up, write_run
from tests.utils.models.small_clip import equal
from tests.utils.runtime.hub_server import Files, Hub, serve
from tests.world import ROOT
from utils.models.export import export
from utils.predictor import Predictor
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.exported import CONFIG_FILE, WEIGHTS_FILE
from utils.runtime.hub import HubName, fetch, fetched, parse_name

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
CONFIG = {"config.json": b"{}", "preprocessor_config.json": b'{"image_mean": [0.5, 0.5, 0.5]}'}
CODE = {"model.py": b"raise SystemExit", "README.md": b"# x", "training_args.bin": b"pickle", "tf_model.h5": b"x"}
OTHERS = {**CODE, "deep/model.safetensors": b"x", "flax_model.msgpack": b"x", "adapter_model.bin": b"x"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of this machine with a cache of its own; the real one is out of reach."""
    hub = Hub()
    with serve(hub) as address:
        point_to(address, tmp_path / "cache", monkeypatch)
        yield hub


def point_to(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library speak to this address; it has read its environment when it was imported."""
    monkeypatch.setenv("HF_ENDPOINT", address)
    for name, value in (("ENDPOINT", address), ("HF_HUB_CACHE", str(cache)), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(constants, name, value)
    url = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + url)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


def put(hub: Hub, files: Files, revision: str = "main") -> None:
    hub.repositories.setdefault("some/clip", {})[revision] = files


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf-hub:openai/clip-vit-base-patch16", HubName("openai/clip-vit-base-patch16", "main")),
        ("hf-hub:a.b/C_d-1@v1.0", HubName("a.b/C_d-1", "v1.0")),
        ("hf-hub:a/b@refs/pr/1", HubName("a/b", "refs/pr/1")),
    ],
)
def test_names_have_an_owner_and_may_have_a_revision(text: str, expected: HubName):
    assert parse_name(text) == expected
    assert fetched("some/folder") == "some/folder" and fetched(Path("a.bin")) == Path("a.bin")


@pytest.mark.parametrize(
    "rest",
    ["", "a", "a/", "/b", "a/b/c", "a/../b", "../a/b", "a/b@", "a/b@../../x", "a/b@/x", "a/b@x/", "a/b@x//y", "a b/c",
     "a/b\n", "a/b@x\n", "ä/b", "a/b@ä", "-a/b", "a/.b", "a/b@-x", "a--b/c", "a/b.git", "a" * 97 + "/b", "a/b?x=1"],
)  # fmt: skip
def test_what_is_no_name_is_an_error_that_shows_the_form(rest: str, hub: Hub):
    with pytest.raises(CheckpointError, match=r"no name of a model on the hub: write hf-hub:OWNER/NAME or"):
        fetch(f"hf-hub:{rest}")
    assert hub.asked == []


FORMS: dict[str, list[str]] = {
    "open_clip": ["open_clip_model.safetensors"],
    "open_clip, pickled": ["open_clip_pytorch_model.bin"],
    "transformers": ["model.safetensors"],
    "parts": ["model.safetensors.index.json", *(f"model-0000{part}-of-00002.safetensors" for part in (1, 2))],
    "pickled": ["pytorch_model.bin"],
    "pickled parts": ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"],
}


@pytest.mark.parametrize("form", FORMS)
def test_configuration_and_the_best_form_of_the_weights_are_fetched_and_nothing_else(
    hub: Hub, form: str, caplog: pytest.LogCaptureFixture
):
    later = [file for files in list(FORMS.values())[list(FORMS).index(form) :] for file in files]
    put(hub, {**CONFIG, **OTHERS, **{file: file.encode() for file in later}})
    with caplog.at_level(logging.INFO, "utils"):
        folder = fetch("hf-hub:some/clip")
    assert names(folder) == {*CONFIG, *FORMS[form]} and folder.name == hub.commit(hub.repositories["some/clip"]["main"])
    assert all((folder / file).read_bytes() == file.encode() for file in FORMS[form])
    assert caplog.messages[0].startswith("hf-hub:some/clip@main: fetching what is not cached of config.json, ")
    assert f"{os.environ['HF_ENDPOINT']}/some/clip/tree/main" in caplog.messages[0]


def test_a_revision_is_what_is_asked_for(hub: Hub):
    put(hub, {"config.json": b"1", "model.safetensors": b"new"})
    put(hub, {"config.json": b"1", "model.safetensors": b"old"}, "v1")
    commit = hub.commit(hub.repositories["some/clip"]["v1"])
    for name, data in (("", b"new"), ("@v1", b"old"), (f"@{commit}", b"old")):
        assert (fetch(f"hf-hub:some/clip{name}") / "model.safetensors").read_bytes() == data


def test_what_moved_on_is_fetched_again_and_what_did_not_is_not(hub: Hub):
    put(hub, {**CONFIG, "model.safetensors": b"1"})
    first = fetch("hf-hub:some/clip")
    hub.asked.clear()
    assert fetch("hf-hub:some/clip") == first
    assert not [path for path in hub.asked if "/resolve/" in path and "model" in path]
    put(hub, {**CONFIG, "model.safetensors": b"2"})
    assert (fetch("hf-hub:some/clip") / "model.safetensors").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({**CONFIG, **OTHERS}, "has no weights that can be read: open_clip_model.safetensors, .*; see http"),
        ({"model.safetensors.index.json": b"{}"}, "parts of model.safetensors.index.json are not all there"),
        (
            {"model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": b""},
            "parts of model.safetensors.index.json are not all there",
        ),
    ],
)
def test_a_repository_without_whole_weights_is_an_error(hub: Hub, files: Files, message: str):
    put(hub, files)
    with pytest.raises(CheckpointError, match=rf"hf-hub:some/clip@main: .*{message}"):
        fetch("hf-hub:some/clip")
    assert not [path for path in hub.asked if "/resolve/" in path]


def test_what_is_not_there_or_not_open_is_said(hub: Hub):
    put(hub, {**CONFIG, "model.safetensors": b"1"})
    hub.repositories["some/gated"] = hub.repositories["some/clip"]
    hub.gated.add("some/gated")
    for name, message in (
        ("some/other", "hf-hub:some/other@main: no such model on the hub, or a private one; correct the name"),
        ("some/clip@v9", "hf-hub:some/clip@v9: the model has no such branch, tag or commit; see http"),
        ("some/gated", "hf-hub:some/gated@main: its owner gives access on request; ask for it on http"),
    ):
        with pytest.raises(CheckpointError, match=message):
            fetch(f"hf-hub:{name}")


def test_without_network_the_cache_is_used_and_else_the_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    hub, cache = Hub(), tmp_path / "cache"
    put(hub, {**CONFIG, **{file: file.encode() for file in FORMS["parts"]}})
    put(hub, {"model.safetensors": b"old"}, "v1")
    with serve(hub) as address:
        point_to(address, cache, monkeypatch)
        there = {name: fetch(name) for name in ("hf-hub:some/clip", "hf-hub:some/clip@v1")}
    with caplog.at_level(logging.INFO, "utils"):
        for name, folder in there.items():
            assert fetch(name) == folder
    assert "hf-hub:some/clip@main: the hub cannot be reached; cached config.json, " in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("hf-hub:some/clip@v1") == there["hf-hub:some/clip@v1"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (there["hf-hub:some/clip"] / "preprocessor_config.json").unlink()  # as of a fetch that did not come to its end
    for name in ("hf-hub:some/clip", "hf-hub:some/clip@v2", "hf-hub:some/other"):
        with pytest.raises(CheckpointError) as caught:
            fetch(name)
        text = str(caught.value)
        assert text.startswith(f"{parse_name(name)}: the hub cannot be reached (") and "does not have it whole" in text
        assert "preprocessor_config.json" in text and "open_clip_pytorch_model.bin" in text
        assert text.endswith("into a folder, and give that folder instead of the name")
        assert f"/{parse_name(name).repository}/tree/{parse_name(name).revision} put " in text


def test_a_server_that_fails_half_way_is_an_error_that_names_the_files(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    put(hub, {**CONFIG, "model.safetensors": b"1"})

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(CheckpointError, match=r"not fetched \(ConnectionError: gone\); .* put config\.json, .*mod"):
        fetch("hf-hub:some/clip")


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"needs the package huggingface_hub .*pip install huggingface_hub\. Or"):
        fetch("hf-hub:some/clip")


def test_the_package_is_imported_for_such_names_alone_and_brings_no_frameworks():
    code = (
        "import json, sys, utils.runtime.hub\n"
        "before = 'huggingface_hub' in sys.modules\n"
        "import huggingface_hub\n"
        "huggingface_hub.snapshot_download, huggingface_hub.HfApi, huggingface_hub.errors\n"
        "print(json.dumps([before, sorted({'tensorflow', 'transformers', 'jax'} & {*sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout) == [False, []], done.stderr
    assert "huggingface_hub" in (ROOT / "requirements-optional.txt").read_text()


def test_flags_that_take_weights_take_names(hub: Hub, tmp_path: Path):
    export(write_run(tmp_path / "run", "msrvtt_caption"), tmp_path / "out")
    put(hub, {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    by_name = Predictor("hf-hub:some/clip", device="cpu")
    assert by_name.settings.frames.feature_framerate == 2.5
    assert names(Path(by_name.settings.init_model or "")) == {CONFIG_FILE, WEIGHTS_FILE, "label_map.json"}
    model, said = set_up(CaptionModel, tmp_path, init_model="hf-hub:some/clip@main", need_object=True, use_action=True)
    assert equal(model.state_dict(), by_name.model(CaptionModel).state_dict()) and "parameters taken" in said[0]
    with pytest.raises(CheckpointError, match="exported by this project; name it with --init_model"):
        set_up(CaptionModel, tmp_path, init_model=None, clip_archive="hf-hub:some/clip")
