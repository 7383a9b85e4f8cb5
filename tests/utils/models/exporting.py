"""Runs to export: a folder of each task, with a small model of drawn weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from modules.tasks.answering import AnswerModel
from modules.tasks.captioning import CaptionModel
from modules.tasks.multiple_choice import MultipleChoiceModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from tests import tiny
from tests.utils.checkpoints import SIZES
from utils.models.setup import setup_model
from utils.runtime.checkpoint import model_content, save_atomically
from utils.runtime.distributed import Runtime
from utils.runtime.run_log import RunLog
from utils.settings.fields import flat_values, from_flat
from utils.settings.groups import UseSettings

ANSWERS = ("dog", "cat", "two men", "soup with ümläut")
MODELS: dict[str, type] = {
    "pretrain": PretrainModel,
    "msrvtt_retrieval": RetrievalModel,
    "msrvtt_caption": CaptionModel,
    "msrvtt_qa": AnswerModel,
    "msrvtt_mc": MultipleChoiceModel,
}


def write_run(folder: Path, datatype: str, step: int = 7) -> Path:
    """The folder of a run; clips are read at a rate of its own."""
    sizes = {**SIZES, "max_frames": 3, **({"answers": ANSWERS} if datatype.endswith("qa") else {})}
    model = tiny.model(MODELS[datatype], **sizes)
    folder.mkdir(parents=True)
    (folder / "map.json").write_text(json.dumps({"label_to_idx": {"dog": 1, "cat": 2}, "from": str(folder)}))
    own = {"feature_framerate": 2.5, "clip_archive": str(folder / "clip.pt"), "labelmap_path": str(folder / "map.json")}
    values = flat_values(from_flat(UseSettings, {**own, "trajectory": "track"}))
    log = RunLog(folder, Runtime(0, 1, 0, torch.device("cpu")))
    log.write_run({**values, "datatype": datatype, "output_dir": str(folder), "lr": 1.0}, model)
    log.close()
    save_atomically({**model_content(model, step, 1), "score": {"accuracy": 1.0}}, folder / "best.bin")
    return folder


def set_up(kind: type, checkpoint: Path, **flags: Any) -> tuple[Any, list[str]]:
    """The model that a task makes of `--init_model`, without CLIP weights to fall back on; and the log."""
    said: list[str] = []
    values = {"init_model": str(checkpoint), "clip_archive": str(checkpoint.parent / "none"), **flags}
    return setup_model(kind, from_flat(UseSettings, values), said.append), said
