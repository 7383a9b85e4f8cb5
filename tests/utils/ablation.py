"""Hand-made runs of an ablation, with the files that training and scoring leave."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modules.config import Behaviour, ModelConfig
from utils.evaluation.ablation_rows import KINDS, NOUN, VERB, collect_row, write_row
from utils.settings.parser import parse_arguments

FLAGS = ["--do_train", "--output_dir", "here", "--batch_size", "8", "--frame_dropout", "0.5"]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_stage(folder: Path, row: str, seed: int, *flags: str, steps: int = 10, processes: int = 1) -> None:
    """What training leaves in a stage's folder."""
    kind = KINDS[row]
    own = ["--need_object"] * kind.need_object + ["--use_action"] * kind.use_action
    own += {"no_frame_dropout": ["--frame_dropout", "0"], "other_trajectory": ["--trajectory", "track"]}.get(row, [])
    if folder.name == "pretraining":
        has = {NOUN: kind.need_object, VERB: kind.use_action}
        own += ["--loss_weights", ",".join(["vtm=2", *(f"{name}=0" for name in kind.without if has[name])])]
    model = ModelConfig(need_object=kind.need_object, use_action=kind.use_action)
    arguments = parse_arguments([*FLAGS, "--seed", str(seed), *own, *flags]).resolved()
    content = {
        "arguments": {**arguments, "msrvtt_qa_train_json": str(folder), "questions_per_clip": 8},
        "model": dataclasses.asdict(model),
        "behaviour": dataclasses.asdict(Behaviour()),
        "world_size": processes,
    }
    write_json(folder / "config.json", content)
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": steps}) + "\n")


def write_answers(folder: Path, correct: Sequence[bool], question: str = "what is it?") -> None:
    """What scoring of answers leaves."""
    accuracy = 100.0 * sum(correct) / len(correct)
    items = list(range(len(correct)))
    write_json(folder / "metrics.json", {"metrics": {"accuracy": accuracy}, "correct": list(correct), "items": items})
    asked = [{"question": question, "question_id": item, "answer": "ring"} for item in items]
    given = [{**one, "prediction": f"{right}", "correct": right} for one, right in zip(asked, correct, strict=True)]
    write_json(folder / "predictions.json", given)


def write_captions(folder: Path, cider: Mapping[str, float], predictions: Mapping[str, str]) -> None:
    """What scoring of captions leaves."""
    metrics = {"CIDEr": sum(cider.values()) / len(cider), "Bleu_4": 0.25, "videos": len(cider)}
    scores = {"CIDEr": list(cider.values())}
    write_json(folder / "metrics.json", {"metrics": metrics, "items": list(cider), "scores": scores})
    entries = [{"video_id": name, "prediction": predictions[name], "references": ["a ring"]} for name in cider]
    write_json(folder / "predictions.json", entries)


def write_run(folder: Path, row: str, seed: int, correct: Sequence[bool], *flags: str, **more: Any) -> None:
    """A row with one seed that was scored on questions."""
    for stage in ("pretraining", "question_answering"):
        write_stage(folder / stage, row, seed, *flags, **more)
    write_answers(folder / "question_answering", correct)


def keep(folder: Path, row: str, seed: int, correct: Sequence[bool], *flags: str, **more: Any) -> Path:
    """Such a row as a file in an ablation's folder."""
    run, path = folder / "runs" / f"{row}-seed{seed}", folder / "rows" / f"{row}-seed{seed}.json"
    write_run(run, row, seed, correct, *flags, **more)
    write_row(collect_row(run, row, seed), path)
    return path
