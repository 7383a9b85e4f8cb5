"""Exported models say what they said before, wherever they are taken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modules.config import Behaviour, ModelConfig, from_dict
from modules.tasks.answering import AnswerModel
from modules.tasks.captioning import CaptionModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from tests import tiny
from tests.golden import Golden
from tests.golden_data import recipe
from tests.utils.checkpoints import SIZES, released_state, save_tiny
from tests.utils.models.exported_use import outputs
from tests.utils.models.exporting import MODELS, set_up, write_run
from tests.utils.models.small_clip import equal
from tests.videos import write_noise
from tests.world import ROOT
from utils.models.export import export
from utils.predictor import Predictor
from utils.runtime.checkpoint import CheckpointError, load, model_content, save_atomically
from utils.runtime.exported import read_checkpoint

PARTS = {"need_object": True, "use_action": True}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the other process has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A video, and a folder with its object file."""
    folder = tmp_path_factory.mktemp("clip")
    write_noise(folder / "a.avi", "MJPG", 40)
    (folder / "objects").mkdir()
    box = {"class": "dog", "rect": [1, 1, 40, 40], "conf": 0.9}
    (folder / "objects" / "a.json").write_text(json.dumps([{"objects": [box]}] * 3))
    return str(folder / "a.avi"), str(folder / "objects")


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A checkpoint as the released code writes it."""
    torch.save({"model_state_dict": released_state()}, tmp_path / "stoa.bin")
    return tmp_path / "stoa.bin"


def test_all_tasks_say_the_same_in_another_place_with_the_run_gone(tmp_path: Path, clip: tuple[str, str]):
    work, before = [], []
    for datatype in MODELS:
        task, run = datatype.rpartition("_")[2], write_run(tmp_path / "runs" / datatype, datatype)
        export(run, tmp_path / "out" / task)
        before.append(outputs(task, run / "best.bin", *clip))
        work.append([task, f"out/{task}", *clip])
    assert all(before)
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "moved").mkdir()
    (tmp_path / "out").rename(tmp_path / "moved" / "out")
    (tmp_path / "moved" / "work.json").write_text(json.dumps(work))
    done = subprocess.run(
        [sys.executable, "-m", "tests.utils.models.exported_use", "work.json"],
        cwd=tmp_path / "moved",
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == before


@pytest.mark.parametrize("datatype", MODELS)
def test_a_folder_has_the_parameters_and_what_they_are(tmp_path: Path, datatype: str):
    run, out = write_run(tmp_path / "run", datatype), tmp_path / "out"
    export(run, out)
    names = {"model.safetensors", "config.json", "README.md", "label_map.json"}
    assert {path.name for path in out.iterdir()} - {"answers.json"} == names
    assert (out / "answers.json").exists() == (datatype == "msrvtt_qa")
    config = json.loads((out / "config.json").read_bytes())
    data, _, task = datatype.rpartition("_")
    assert (config["format"], config["task"], config["data"]) == ("stoa-vlp", task, data or None)
    assert config["arguments"]["feature_framerate"] == 2.5 and config["arguments"]["trajectory"] == "track"
    assert (config["global_step"], config["epoch"], config["dtype"]) == (7, 1, "fp32") and config["frame_rule"] == 2
    assert not {"clip_archive", "labelmap_path", "lr"} & set(config["arguments"]) and "answers" not in config["model"]
    saved, state = load(run / "best.bin"), read_checkpoint(out)
    assert equal(state["model"], saved["model"])
    assert from_dict(ModelConfig, state["config"]) == from_dict(ModelConfig, saved["config"])
    assert state["behaviour"] == saved["behaviour"]
    size = sum(path.stat().st_size for path in out.iterdir())
    assert 0 <= size - sum(value.nbytes for value in saved["model"].values()) < 60_000
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in out.iterdir())


@pytest.mark.parametrize("datatype", MODELS)
def test_nothing_in_a_folder_is_of_the_machine(tmp_path: Path, datatype: str):
    export(write_run(tmp_path / "run", datatype), tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        text = path.read_bytes().decode(errors="replace")  # of the parameters too: their header is text
        for trace in (str(tmp_path), str(ROOT), str(Path.home()) + "/", "clip.pt", "map.json"):
            assert trace not in text.replace("label_map.json", ""), (path.name, trace)


def test_two_exports_are_equal_byte_by_byte_also_of_the_folder_itself(tmp_path: Path):
    run = write_run(tmp_path / "run", "msrvtt_qa")
    export(run, tmp_path / "one")
    export(run / "best.bin", tmp_path / "two")
    export(tmp_path / "one", tmp_path / "three")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        assert path.read_bytes() == (tmp_path / "three" / path.name).read_bytes()


def test_the_best_model_of_a_run_is_exported_else_the_newest_by_number(tmp_path: Path):
    run, said = write_run(tmp_path / "run", "pretrain"), []
    model = tiny.model(PretrainModel, **SIZES)
    for step in (9, 10, 100):
        save_atomically(model_content(model, step, 0), run / "ckpt" / f"pytorch_model.bin.{step}")
    assert export(run, tmp_path / "best", log=said.append) == run / "best.bin"
    (run / "best.bin").unlink()
    newest = run / "ckpt" / "pytorch_model.bin.100"
    assert export(run, tmp_path / "newest", log=said.append) == newest
    assert said == [f"{run}: {run / 'best.bin'} is exported", f"{run}: {newest} is exported"]
    config = json.loads((tmp_path / "newest/config.json").read_bytes())
    assert config["global_step"] == 100 and config["task"] == "pretrain", "its run is the folder above"


def test_what_is_no_model_is_not_exported(tmp_path: Path):
    (tmp_path / "run").mkdir()
    torch.save({"visual.proj": torch.zeros(2, 2)}, tmp_path / "clip.bin")
    for name, message in (
        ("run", r"run: no best\.bin and no ckpt/pytorch_model\.bin\.N in it; name the folder of a run, or a"),
        ("gone", "gone: no such checkpoint, and no such folder"),
        ("clip.bin", r"clip\.bin: neither a checkpoint of this project nor a released one"),
    ):
        with pytest.raises(CheckpointError, match=message):
            export(tmp_path / name, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_place_that_is_taken_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = save_tiny(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine.txt").write_text("mine")
    for place in (tmp_path / "taken", tmp_path / "taken/mine.txt"):
        with pytest.raises(CheckpointError, match="is there already and not an empty folder; name another, or delete"):
            export(checkpoint, place)
    assert (tmp_path / "taken/mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export(checkpoint, tmp_path / "empty")
    assert (tmp_path / "empty/config.json").is_file()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.models.export.atomic_write_text", full)
    with pytest.raises(CheckpointError, match=r"full: cannot be written \(No space left on device\); free space"):
        export(checkpoint, tmp_path / "full")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["PretrainModel.bin", "empty", "taken"]


@pytest.mark.parametrize(("dtype", "width", "near"), [("fp32", 4, 0.0), ("bf16", 2, 2**-8), ("fp16", 2, 2**-10)])
def test_fewer_bits_are_near(tmp_path: Path, clip: tuple[str, str], dtype: str, width: int, near: float):
    best, out = write_run(tmp_path / "run", "msrvtt_retrieval") / "best.bin", tmp_path / "out"
    export(best, out, dtype)
    exact, found = load(best)["model"], load_file(out / "model.safetensors")
    assert sum(value.nbytes for value in found.values()) == width * sum(value.numel() for value in exact.values())
    for name, value in exact.items():
        torch.testing.assert_close(found[name].float(), value, rtol=near, atol=near * 1e-4)
    features = [Predictor(path, device="cpu", precision="fp32").encode([clip[0]]).tokens.frames for path in (best, out)]
    assert features[0].dtype == features[1].dtype == torch.float32
    assert (features[0] - features[1]).norm() <= 10 * near * features[0].norm()


def test_what_half_precision_cannot_hold_is_an_error(tmp_path: Path):
    checkpoint = save_tiny(tmp_path)
    state = load(checkpoint)
    state["model"]["vocabulary_head.bias"][3] = 1e6
    save_atomically(state, checkpoint)
    with pytest.raises(CheckpointError, match=r"vocabulary_head\.bias has numbers that fp16 cannot hold; export as bf"):
        export(checkpoint, tmp_path / "out", "fp16")
    export(checkpoint, tmp_path / "out", "bf16")


def test_a_model_is_fine_tuned_from_a_folder_as_from_its_checkpoint(tmp_path: Path):
    checkpoint, out = save_tiny(tmp_path), tmp_path / "out"
    export(checkpoint, out)
    before, _ = set_up(CaptionModel, checkpoint, **PARTS)
    for path in (out, out / "model.safetensors"):
        model, said = set_up(CaptionModel, path, **PARTS)
        assert equal(model.state_dict(), before.state_dict()) and model.config == before.config
        assert model.is_trained("vocabulary") and said[0].startswith(f"{path}: ")


def test_exported_models_are_no_clip_weights_and_runs_are_no_models(tmp_path: Path):
    export(save_tiny(tmp_path), tmp_path / "out")
    for name in ("out", "out/model.safetensors"):
        with pytest.raises(CheckpointError, match="--clip_archive .*: a model that was exported by this project; name"):
            set_up(PretrainModel, tmp_path, clip_archive=str(tmp_path / name), init_model=None)
    run = write_run(tmp_path / "run", "pretrain")
    with pytest.raises(CheckpointError, match="run: a folder, but not one of utils/export_model.py; name a checkpoint"):
        set_up(PretrainModel, run)


@pytest.mark.parametrize("parts", [{}, PARTS])
@pytest.mark.parametrize("kind", [CaptionModel, AnswerModel, RetrievalModel, PretrainModel])
def test_a_released_checkpoint_stays_what_it_is(released: Path, parts: dict[str, bool], kind: type):
    export(released, released.parent / "out", parts=parts)
    assert_same_models(kind, released, released.parent / "out", parts)


def test_a_released_checkpoint_of_another_width_stays_what_it_is(tmp_path: Path, shared: Path):
    golden = Golden(shared / "golden" / "wide-seed5")
    state = {key: torch.as_tensor(recipe.weight(key, shape, 5)) for key, shape in golden.meta["keys"].items()}
    torch.save(state, tmp_path / "stoa.bin")
    export(tmp_path / "stoa.bin", tmp_path / "out")
    assert_same_models(PretrainModel, tmp_path / "stoa.bin", tmp_path / "out", PARTS)


def assert_same_models(kind: type, released: Path, out: Path, flags: dict[str, bool]) -> None:
    """A released file and its folder become the same model; the folder has every parameter that is read."""
    first, second = (set_up(kind, path, **flags)[0] for path in (released, out))
    assert equal(first.state_dict(), second.state_dict()) and first.config == second.config
    assert first.behaviour == second.behaviour == Behaviour.preset("released")
    assert first.new_names == second.new_names
    kept = load_file(out / "model.safetensors")
    whole = set_up(kind, released, **PARTS)[0].state_dict()
    assert all(torch.equal(kept[name], value) for name, value in whole.items())


def test_parts_of_a_released_checkpoint_are_said_once(released: Path):
    export(released, released.parent / "with", parts=PARTS)
    export(released, released.parent / "without")
    models = [Predictor(released.parent / name, device="cpu").model(RetrievalModel) for name in ("with", "without")]
    assert [model.config.has_actions for model in models] == [True, False]
    with pytest.raises(CheckpointError, match="says itself which parts it has; leave --need_object and --use_action"):
        export(save_tiny(released.parent), released.parent / "own", parts={"need_object": True})


def test_similarity_headers_of_a_released_checkpoint_are_kept(released: Path):
    state, out = released_state(), released.parent / "out"
    width = state["clip.text_projection"].shape[1]
    rows = {f"lstm_visual.weight_{end}_l0": torch.randn(4 * width, width) for end in ("ih", "hh")}
    rows |= {f"lstm_visual.bias_{end}_l0": torch.randn(4 * width) for end in ("ih", "hh")}
    torch.save({**state, **rows}, released)
    export(released, out)
    model, _ = set_up(RetrievalModel, out, sim_header="seqLSTM")
    for name, value in rows.items():
        assert torch.equal(model.similarity.lstm.get_parameter(name.removeprefix("lstm_visual.")), value)


def test_scores_on_the_card_are_those_of_just_this_checkpoint(tmp_path: Path):
    run = write_run(tmp_path / "run", "msrvtt_qa")
    result = {"split": "test", "model": "the best model on the val split, step 7", "init_model": str(tmp_path)}
    metrics = {"accuracy": 87.654, "questions": 300, "majority": None, "a|b": 1.0, "nested": {"x": 1}}
    (run / "metrics.json").write_text(json.dumps({**result, "metrics": metrics}))
    lines = [{"kind": "evaluation", "step": step, "split": "val", "accuracy": 10.0 + step} for step in (6, 7)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    export(run, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    rows = [line for line in card.splitlines() if line.startswith(("| val", "| test"))]
    assert rows == ["| val | accuracy | 17 |", "| test | accuracy | 87.65 |", "| test | questions | 300 |"]
    (run / "metrics.json").write_text(json.dumps({**result, "model": "the model as given", "metrics": metrics}))
    (run / "metrics.jsonl").unlink()
    export(run, tmp_path / "other")
    assert "*None are known of this checkpoint.*" in (tmp_path / "other/README.md").read_text()


@pytest.mark.parametrize(("flag", "task"), [("beam_size", "caption"), ("questions_per_clip", "qa"), ("lr", None)])
def test_the_task_of_a_run_on_a_table_of_ones_own_is_told_by_its_flags(tmp_path: Path, flag: str, task: str | None):
    run = write_run(tmp_path / "run", "msrvtt_caption")
    config = json.loads((run / "config.json").read_bytes())
    config["arguments"] |= {"datatype": "csv", flag: 1}
    (run / "config.json").write_text(json.dumps(config))
    export(run, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_bytes())
    assert (config["data"], config["task"]) == ("csv", task)
    assert read_checkpoint(tmp_path / "out")["data"] == "csv"
