"""Training of every task under its launcher, for the campaign of kills."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.campaigns.kill_reading import digest, file_bytes, held, read
from tests.campaigns.kill_rounds import Case, Parts
from tests.processes import free_port
from tests.tasks.test_language_tasks import answer_flags, caption_flags
from tests.tasks.test_retrieval_tasks import WITH_OBJECTS, flags_for
from tests.world import ROOT, Downstream, World
from utils.runtime.checkpoint import CheckpointFolder, load
from utils.runtime.run_log import read_metrics

TIMES = ("clips_per_second", "data_wait")
NOT_COMPARED = ("log.txt", "config.json", ".lock")  # they hold times, folders and process numbers
OFTEN = ["--save_every", "2", "--eval_every", "4", "--n_display", "1", "--num_thread_reader", "1"]


class Training(Case):
    """A task under `torch.distributed.run`.

    Args:
        name: of the task.
        script: in tasks/.
        flags: for an output folder and a batch size per process.
        processes: ranks.
    """

    refusal = "another run writes there"

    def __init__(self, name: str, script: str, flags: Callable[[Path, int], list[str]], processes: int) -> None:
        self.name, self.script, self.flags, self.processes = name, script, flags, processes

    def command(self, folder: Path) -> list[str]:
        """The launcher with a port of its own, since what a killed one has left may hold another."""
        launcher = ["--nproc_per_node", str(self.processes), "--master_port", str(free_port())]
        task = [str(ROOT / "tasks" / self.script), *self.flags(folder, 4 // self.processes), *OFTEN]
        return [sys.executable, "-m", "torch.distributed.run", *launcher, *task]

    def seen(self, folder: Path) -> Parts:
        """Models by step, wherever they lie; the lines of metrics.jsonl; results and settings."""
        parts: Parts = {}
        checkpoints = CheckpointFolder(folder)
        paths = [checkpoints.model_path(step) for step in checkpoints.saved_steps()]
        for path in (*paths, checkpoints.restore_path, folder / "best.bin"):
            content: list[Any] = []
            read(parts, path.name, lambda path=path, content=content: _model(path, folder.parent, content))
            if content and path not in paths:  # replaced many times: what it holds must be the model of its step
                parts[f"pytorch_model.bin.{content[0]}"] = parts.pop(path.name)
        lines = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").is_file() else []
        for number, line in enumerate(lines):
            parts[f"line {number} of metrics.jsonl"] = digest({k: v for k, v in line.items() if k not in TIMES})
        for path in sorted(folder.glob("*")):
            if path.suffix in (".json", ".txt") and path.name not in NOT_COMPARED:
                read(parts, path.name, lambda path=path: file_bytes(path))
        return parts

    def state(self, folder: Path) -> Parts:
        """Besides that: all of the last restore.bin and best.bin, random states and moments included."""
        parts = self.seen(folder)
        for name in ("restore.bin", "best.bin"):
            read(parts, f"all of {name}", lambda name=name: _everything(folder, name))
        read(parts, "config.json", lambda: _settings(folder))
        return parts


def _model(path: Path, scratch: Path, step: list[Any]) -> dict[str, Any] | None:
    state = held(path, scratch, load)
    if state is None:
        return None
    step.append(state["global_step"])
    return {name: state[name] for name in ("config", "behaviour", "model", "global_step", "epoch")}


def _everything(folder: Path, name: str) -> dict[str, Any] | None:
    state = held(folder / name, folder.parent, load)
    if state and "arguments" in state:
        del state["arguments"]["output_dir"]
    return state


def _settings(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "config.json").read_bytes())
    del content["arguments"]["output_dir"]
    return content


def training_case(name: str, world: World, downstream: Downstream, processes: int) -> Training:
    """The case of a task: `pretrain`, `retrieval`, `caption`, `qa` or `mc`."""
    end = ["--epochs", "3"]
    tested = ["--test_csv", downstream.paths("msrvtt")["TEST_CSV"]]  # so that the other list is the validation split

    def pretrain(folder: Path, batch: int) -> list[str]:
        validation = ["--val_csv", str(world.msrvtt / "test.csv"), "--val_features_path", str(world.msrvtt / "videos")]
        own = ["--val_object_path", str(world.msrvtt / "objects"), "--do_eval", "--eval_samples", "8"]
        return world.flags(folder, "--epochs", "2", "--batch_size", str(batch), *validation, *own)

    def retrieval(folder: Path, batch: int) -> list[str]:
        own = ["--do_train", "--val_csv", downstream.paths("msrvtt")["VAL_CSV"], *tested, *WITH_OBJECTS]
        return flags_for(downstream, folder, *end, *own, "--batch_size", str(batch))

    def caption(folder: Path, batch: int) -> list[str]:
        own = ["--do_train", "--beam_size", "2", *WITH_OBJECTS]
        return caption_flags(downstream, folder, *end, *own, "--batch_size", str(batch))

    def answer(folder: Path, batch: int) -> list[str]:
        own = ["--do_train", "--max_steps", "8", *WITH_OBJECTS]
        return answer_flags(downstream, folder, *end, *own, "--batch_size", str(batch))

    def choose(folder: Path, batch: int) -> list[str]:
        questions = downstream.choices()
        lists = ["--val_csv", questions["VAL_CSV"], "--test_csv", questions["TEST_CSV"]]
        return flags_for(downstream, folder, *end, "--do_train", *lists, *WITH_OBJECTS, "--batch_size", str(batch))

    cases: dict[str, tuple[str, Callable[[Path, int], list[str]]]] = {
        "pretrain": ("pre_training.py", pretrain),
        "retrieval": ("eval_retrieval.py", retrieval),
        "caption": ("eval_captioning.py", caption),
        "qa": ("eval_qa.py", answer),
        "mc": ("eval_mc.py", choose),
    }
    return Training(name, *cases[name], processes)
