"""Logs and metrics of a run, and what resume does to them."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modules.config import Behaviour, ModelConfig
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog, read_metrics

MAIN = Runtime(0, 1, 0, torch.device("cpu"))
OTHER = Runtime(1, 2, 1, torch.device("cpu"))


@pytest.fixture
def log(tmp_path):
    log = RunLog(tmp_path, MAIN)
    yield log
    log.close()


def test_lines_go_to_stdout_and_log_txt_once(tmp_path, capsys):
    RunLog(tmp_path, MAIN)
    log = RunLog(tmp_path, MAIN)  # takes the place of the first
    log.info("hello")
    logging.getLogger("dataloaders.object_store").info("store built")
    log.notes(["--fp16 has no effect"])
    log.close()
    assert capsys.readouterr().out.count("hello") == 1
    text = (tmp_path / "log.txt").read_text()
    assert text.count("hello") == 1 and "WARNING --fp16 has no effect" in text and "store built" in text


def test_other_ranks_write_nothing(tmp_path, capsys):
    log = RunLog(tmp_path / "out", OTHER)
    log.info("hello")
    log.metrics("train", 1, {"loss": 1.0})
    log.cut_metrics(0)
    log.write_run({}, SimpleNamespace(config=ModelConfig(), behaviour=Behaviour()))
    log.error("broken")
    log.close()
    assert not (tmp_path / "out").exists()
    captured = capsys.readouterr()
    assert "hello" not in captured.out and "rank 1 ERROR broken" in captured.err


def test_metrics_are_json_lines(log):
    log.metrics("train", 2, {"loss": 0.5, "lr": {"clip": 1e-8}, "grad_norm": float("inf")})
    assert json.loads(log.metrics_path.read_text()) == {
        "kind": "train", "step": 2, "loss": 0.5, "lr": {"clip": 1e-8}, "grad_norm": None,
    }  # fmt: skip


@pytest.mark.parametrize(("repeats", "kept"), [(False, 3), (True, 2)])
def test_resume_cuts_later_and_torn_lines(log, repeats, kept):
    for kind, step in (("train", 2), ("train", 4), ("evaluation", 4), ("train", 6)):
        log.metrics(kind, step, {"loss": 1.0})
    with log.metrics_path.open("a") as file:
        file.write('{"kind": "train", "step": 3, "lo')
    log.cut_metrics(4, repeats_evaluation=repeats)
    lines = read_metrics(log.metrics_path)
    assert len(lines) == kept and all(line["step"] <= 4 for line in lines)


def test_config_names_versions_and_world_size(log):
    log.write_run({"lr": 1e-4}, SimpleNamespace(config=ModelConfig(max_frames=3), behaviour=Behaviour()))
    config = json.loads((log.folder / "config.json").read_text())
    assert config["arguments"] == {"lr": 1e-4} and config["model"]["max_frames"] == 3 and config["world_size"] == 1
    assert config["versions"]["torch"] != "absent"


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboardX")
    log = RunLog(tmp_path, MAIN, tensorboard=True)
    log.metrics("train", 1, {"loss": 1.0, "lr": {"clip": 0.1}})
    log.cut_metrics(0)
    log.close()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_run_with_objects_keeps_its_label_map(log, tmp_path):
    source, copy = tmp_path / "elsewhere.json", log.folder / "label_map.json"
    source.write_text('{"label_to_idx": {"dog": 1}}')
    log.write_run({"labelmap_path": str(source)}, SimpleNamespace(config=ModelConfig(), behaviour=Behaviour()))
    assert not copy.exists()
    model = SimpleNamespace(config=ModelConfig(need_object=True), behaviour=Behaviour())
    log.write_run({"labelmap_path": str(source)}, model)
    assert copy.read_bytes() == source.read_bytes()
    log.write_run({"labelmap_path": str(copy)}, model)
    log.write_run({"labelmap_path": str(tmp_path / "gone.json")}, model)
    assert copy.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "line", ['{"kind": "train", "st', "\0\0\0", "[1]", '{"kind": "train", "step": "3"}', '{"step": 3}']
)
def test_a_damaged_line_of_metrics_is_named_with_the_remedy(tmp_path: Path, line: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"kind": "train", "step": 1}}\n{line}\n{{"kind": "train", "step": 3}}\n{{"kind": "tra')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2.*delete the line"):
        read_metrics(path)


def test_control_characters_reach_neither_terminal_nor_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = RunLog(tmp_path, MAIN)
    log.warning("left out: v\x1b[2J\n2026-01-01 ERROR faked\u202e")
    log.close()
    for text in (capsys.readouterr().out, (tmp_path / "log.txt").read_text()):
        first, second = text.splitlines()
        assert first.endswith("WARNING left out: v\\x1b[2J") and second == "    2026-01-01 ERROR faked\\u202e"
