"""One row of an ablation with one seed as a small file: its settings, scores, and the values of single items."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataloaders.files import atomic_write_text
from modules.foreign_text import read_json
from utils.evaluation.comparison import read_answers
from utils.runtime.run_log import read_metrics
from utils.settings.arguments import Arguments
from utils.settings.fields import flags_of

NOUN, VERB = "object_noun", "action_verb"
PRETRAINING = "pretraining"
TRUE = "exact"  # captions of demo clips that are all true and complete (utils/demo/scoring.py)
VERSION = 1
DECIMALS = 4  # of an item's value


class Kind(NamedTuple):
    """What a row is.

    Attributes:
        name: in the script and in file names.
        title: in the table.
        before: the row that it is compared with; "" for the first.
        need_object, use_action: its parts.
        without: losses whose tokens it has, with weight 0.
        changed: the one setting that it has otherwise than `before` beside those, "" for none.
    """

    name: str
    title: str
    before: str
    need_object: bool
    use_action: bool
    without: tuple[str, ...] = ()
    changed: str = ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("base", "base", "", False, False),
        Kind("trajectories", "+ trajectories", "base", True, False, (NOUN,)),
        Kind("nouns", "+ object-noun loss", "trajectories", True, False),
        Kind("actions", "+ actions", "nouns", True, True, (VERB,)),
        Kind("all", "+ action-verb loss (all)", "actions", True, True),
        Kind("no_frame_dropout", "all, without frame dropout", "all", True, True, changed="frame_dropout"),
        Kind("other_trajectory", "all, with --trajectory", "all", True, True, changed="trajectory"),
    )
}
# The file that says what a task was asked, and in it what the model answered.
ASKED = {
    "question_answering": "predictions.json",
    "captioning": "predictions.json",
    "retrieval": "retrieved.json",
    "multiple_choice": "predictions.json",
}
ANSWERED = ("prediction", "correct", "scores", "rank", "retrieved")
# Metrics of each task that a table shows, with title and decimals.
COLUMNS: dict[str, dict[str, tuple[str, int]]] = {
    "question_answering": {"accuracy": ("right answers, %", 1)},
    "captioning": {
        "CIDEr": ("CIDEr", 3),
        "Bleu_4": ("BLEU-4", 3),
        "METEOR": ("METEOR", 3),
        "ROUGE_L": ("ROUGE-L", 3),
        TRUE: ("true and complete, %", 1),
    },
    "retrieval": {
        f"{way}_R{k}": (f"{words} R@{k}, %", 1)
        for way, words in (("t2v", "text to video"), ("v2t", "video to text"))
        for k in (1, 5, 10)
    },
    "multiple_choice": {"accuracy": ("right choices, %", 1)},
}
# Settings that belong to the machine or the log: they may differ between rows. The batch of all processes may not.
OF_THE_MACHINE = {
    *("device", "num_thread_reader", "batch_size", "batch_size_val", "n_display", "save_every", "keep_checkpoints"),
    *("tensorboard", "grad_checkpoint", "seed", "local_rank", "frame_cache_format", "frame_cache_gb", "video_backend"),
    *("do_eval", "eval_samples", "metric_timeout"),
}
OF_THE_ROW = frozenset(("need_object", "use_action", "loss_weights"))  # beside `Kind.changed`


@dataclass(frozen=True)
class TaskScores:
    """asked: digest of the items and their truth. metrics: by name. values: of each item, metric -> (N,)."""

    asked: str
    metrics: dict[str, float]
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """settings: of each stage, by name. source: the file or folder, for messages."""

    kind: Kind
    seed: int
    settings: dict[str, dict[str, Any]]
    tasks: dict[str, TaskScores]
    source: Path

    def compared_settings(self) -> Iterator[tuple[str, str, Any]]:
        """(stage, name, value) of every setting that all rows must share where they state it."""
        for stage, values in self.settings.items():
            for name, value in values.items():
                if name in OF_THE_ROW or name.removeprefix("model.") in OF_THE_ROW:
                    continue
                if name == self.kind.changed or (name == "trajectory" and not self.kind.need_object):
                    continue
                yield stage, name, value
            if stage == PRETRAINING:
                yield from self._weights(values["loss_weights"])

    def _weights(self, weights: Mapping[str, float]) -> Iterator[tuple[str, str, Any]]:
        others = {name: weight for name, weight in sorted(weights.items()) if name not in (NOUN, VERB)}
        yield PRETRAINING, "loss_weights", others
        for name, has_tokens in ((NOUN, self.kind.need_object), (VERB, self.kind.use_action)):
            if has_tokens and name not in self.kind.without:
                yield PRETRAINING, f"loss_weights {name}", weights.get(name, 1.0)


def collect_row(folder: Path, name: str, seed: int, true_captions: Mapping[str, float] | None = None) -> Row:
    """The row of which a folder holds the runs: `pretraining`, and a folder for each task that was scored.

    Args:
        folder: what scripts/ablation.sh wrote for this row and seed.
        true_captions: percent of each video's caption that is true and complete, 0 or 100, by video id.

    Raises:
        OSError, ValueError: a file is not there or not sound, or the runs are not those of such a row.
    """
    tasks = [task for task in ASKED if (folder / task / "metrics.json").is_file()]
    if not tasks:
        raise ValueError(f"{folder} has no metrics.json of {', '.join(ASKED)}: nothing has been scored there")
    settings = {stage: _settings(folder / stage) for stage in (PRETRAINING, *tasks)}
    scores = {task: _scores(folder / task, task, true_captions) for task in tasks}
    row = Row(KINDS[name], seed, settings, scores, folder)
    _check_kind(row, {stage: read_json(folder / stage / "config.json")["arguments"]["seed"] for stage in settings})
    return row


def _settings(folder: Path) -> dict[str, Any]:
    """What decides a stage's result, whatever the machine and wherever its files lie; `steps` counts its updates."""
    path = folder / "config.json"
    try:
        config = read_json(path)
        known = {flag.name: flag for flag in flags_of(Arguments)}
        found = {}
        for name, value in config["arguments"].items():
            is_text = name in known and known[name].hint in (str, str | None) and name != "datatype"
            is_path = (is_text and not known[name].field.metadata["choices"]) or (name not in known and _is_text(value))
            if not is_path and name not in OF_THE_MACHINE:
                found[name] = value
        found["global batch size"] = config["arguments"]["batch_size"] * config["world_size"]
        model = {**config["model"], "answers": _digest(config["model"]["answers"])}
        found |= {f"model.{name}": value for name, value in model.items()}
        found |= {f"behaviour.{name}": value for name, value in config["behaviour"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the config.json of a run ({error!r}); run the stage again") from error
    return found | {"steps": max((line["step"] for line in read_metrics(folder / "metrics.jsonl")), default=0)}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _scores(folder: Path, task: str, true_captions: Mapping[str, float] | None) -> TaskScores:
    path = folder / "metrics.json"
    answers = read_answers(path).values()
    values = {name: column for one in answers for name, column in one.values.items() if name in COLUMNS[task]}
    found = read_json(path).get("metrics")
    metrics = {name: float(found[name]) for name in COLUMNS[task] if isinstance(found, dict) and name in found}
    if task == "captioning" and true_captions is not None:
        [videos] = [one.ids for one in answers]
        if unknown := [name for name in videos if name not in true_captions]:
            raise ValueError(f"{path}: no truth of the captions of {', '.join(map(str, unknown[:3]))}")
        values[TRUE] = np.array([true_captions[name] for name in videos])
        metrics[TRUE] = float(values[TRUE].mean())
    entries = read_json(folder / ASKED[task])
    try:
        asked = [{name: value for name, value in entry.items() if name not in ANSWERED} for entry in entries]
    except AttributeError as error:
        raise ValueError(f"{folder / ASKED[task]} is no list of what was asked ({error}); score it again") from error
    return TaskScores(_digest(asked), metrics, values)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _check_kind(row: Row, seeds: Mapping[str, int]) -> None:
    """Refuse runs that are another row's, or of another seed.

    Raises:
        ValueError: names the stage and what differs.
    """
    kind = row.kind
    for stage, values in row.settings.items():
        wanted: dict[str, Any] = {"need_object": kind.need_object, "use_action": kind.use_action}
        if kind.changed == "frame_dropout":
            wanted["frame_dropout"] = 0.0
        found = {name: values.get(name) for name in wanted}
        wanted["seed"], found["seed"] = row.seed, seeds[stage]
        if stage == PRETRAINING:
            weights = values.get("loss_weights") or {}
            off = [loss for loss in (NOUN, VERB) if weights.get(loss, 1.0) == 0.0]
            wanted["losses of weight 0"], found["losses of weight 0"] = list(kind.without), off
        for name, value in wanted.items():
            if found[name] != value:
                raise ValueError(
                    f"{row.source}: row {kind.name} with seed {row.seed} has {name} {value}, but its {stage} was run "
                    f"with {found[name]}. Move the folder away and run the row again"
                )


def write_row(row: Row, path: Path) -> None:
    """Write a row as JSON with a line for each list, so that it can be kept under version control."""
    tasks = {
        task: {
            "asked": scores.asked,
            "metrics": scores.metrics,
            "values": {name: _short(column) for name, column in scores.values.items()},
        }
        for task, scores in row.tasks.items()
    }
    head = {"version": VERSION, "row": row.kind.name, "seed": row.seed}
    parts = [f'"{name}": {json.dumps(value)}' for name, value in head.items()]
    parts += [f'"settings": {_by_line(row.settings)}', f'"tasks": {_by_line(tasks)}']
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _short(column: np.ndarray) -> list[float]:
    """Rounded numbers, whole ones without a point: most items are right or wrong."""
    return [int(value) if value == int(value) else value for value in column.round(DECIMALS).tolist()]


def _by_line(parts: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f'"{name}": {json.dumps(part, separators=(",", ":"))}' for name, part in parts.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def read_rows(folder: Path) -> list[Row]:
    """All rows in a folder of row files, in the order of the table, then of seeds; they belong together.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is no row, two are the same row and seed, or rows differ in data or settings.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} has no row; scripts/ablation.sh writes them")
    rows = [_read_row(path) for path in paths]
    order = list(KINDS)
    rows.sort(key=lambda row: (order.index(row.kind.name), row.seed))
    for one, other in zip(rows, rows[1:], strict=False):
        if (one.kind, one.seed) == (other.kind, other.seed):
            raise ValueError(f"{one.source} and {other.source} are both row {one.kind.name} with seed {one.seed}")
    _check_together(rows)
    return rows


def _read_row(path: Path) -> Row:
    content = read_json(path)
    try:
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']!r}")
        seed, settings = content["seed"], content["settings"]
        if type(seed) is not int or not isinstance(settings[PRETRAINING]["loss_weights"], dict):
            raise ValueError("its seed or its loss weights")
        tasks = {task: _read_scores(task, part) for task, part in content["tasks"].items()}
        row = Row(KINDS[content["row"]], seed, {stage: dict(part) for stage, part in settings.items()}, tasks, path)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is no row of this version of scripts/ablation.sh ({error!r}); move it away, and run the row again"
        ) from error
    return row


def _read_scores(task: str, part: Mapping[str, Any]) -> TaskScores:
    metrics = {name: float(value) for name, value in part["metrics"].items() if name in COLUMNS[task]}
    values = {name: np.array(column, dtype=np.float64) for name, column in part["values"].items()}
    for name, column in values.items():
        if column.ndim != 1 or not column.size or not np.isfinite(column).all() or name not in metrics:
            raise ValueError(f"its values of {name}")
        if abs(column.mean() - metrics[name]) > 0.01 * max(1.0, abs(metrics[name])):
            raise ValueError(f"its {name} is not the mean of its values")
    return TaskScores(str(part["asked"]), metrics, values)


def _check_together(rows: Sequence[Row]) -> None:
    """Refuse rows of other data or settings.

    Raises:
        ValueError: names the rows, the stage, and what differs.
    """
    seen: dict[tuple[str, str], tuple[Any, Path]] = {}
    for row in rows:
        facts = list(row.compared_settings())
        facts += [(task, "data (what is asked)", scores.asked) for task, scores in row.tasks.items()]
        for stage, name, value in facts:
            first, source = seen.setdefault((stage, name), (value, row.source))
            if value != first:
                raise ValueError(
                    f"{source} and {row.source} do not belong together: {name} of {stage} is {first!r} there and "
                    f"{value!r} here. Run one of them again with the other's, or move it to a folder of its own"
                )
        for task, scores in row.tasks.items():
            for metric, column in scores.values.items():
                size, source = seen.setdefault((task, f"items of {metric}"), (len(column), row.source))
                if size != len(column):
                    raise ValueError(
                        f"{source} and {row.source}: {task} has {size} and {len(column)} items of {metric}"
                    )
    _check_changed(rows)


def _check_changed(rows: Sequence[Row]) -> None:
    """Refuse a row that is to differ from the one before in a setting, and does not."""
    for row in rows:
        for other in rows if row.kind.changed else ():
            if other.kind.name == row.kind.before and all(
                other.settings[stage] == values for stage, values in row.settings.items() if stage in other.settings
            ):
                raise ValueError(
                    f"{other.source} and {row.source} have the same {row.kind.changed}, in which {other.kind.name} "
                    f"and {row.kind.name} differ. Move the second away"
                )
