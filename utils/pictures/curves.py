"""Curves of runs: reads metrics.jsonl and draws losses, learning rates, gradient norms and scores with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.runtime.run_log import read_metrics

METRICS_FILE = "metrics.jsonl"
NOT_LOSSES = {"kind", "step", "epoch", "lr", "grad_norm", "clips_per_second", "data_wait", "skipped"}
# Scores worth a panel, with the limits of their axis where those are fixed; all others are in metrics.jsonl.
SCORES: dict[str, tuple[str, tuple[float, float] | None]] = {
    "t2v_R1": ("text to video R@1, %", (0, 104)),
    "v2t_R1": ("video to text R@1, %", (0, 104)),
    "alignment_nouns": ("things matched to their noun, %", (0, 104)),
    "accuracy": ("right answers, %", (0, 104)),
    "CIDEr": ("CIDEr", None),
    "Bleu_4": ("BLEU-4", None),
    "METEOR": ("METEOR", None),
    "ROUGE_L": ("ROUGE-L", None),
}
# Okabe and Ito's colours, which colour-blind readers tell apart; more runs than colours repeat them with other marks.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D")
STYLES = ("-", "--", ":", "-.")
PANEL = (3.6, 2.5)  # inches


@dataclass(frozen=True)
class Run:
    """Lines of a metrics.jsonl by step, rising; of a step that a resumed run wrote again, the later line."""

    train: dict[int, dict[str, Any]]
    evaluations: dict[int, dict[str, Any]]

    @property
    def losses(self) -> list[str]:
        """Names of the losses, the total (`loss`) first; it is left out where it only repeats a single loss."""
        names = {
            name
            for line in self.train.values()
            for name in line
            if name not in NOT_LOSSES and not name.endswith("_accuracy")
        }
        ordered = sorted(names, key=lambda name: (name != "loss", name))
        if len(ordered) == 2 and all(line.get(ordered[0]) == line.get(ordered[1]) for line in self.train.values()):
            return ordered[1:]
        return ordered


def read_run(folder: str | Path) -> Run:
    """Read the metrics of a run.

    Args:
        folder: output folder of a task.

    Raises:
        FileNotFoundError: the folder has no metrics.jsonl.
        ValueError: it has no training and no evaluation line, or a line that is not JSON.
    """
    path = Path(folder) / METRICS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give the --output_dir of a run that has trained")
    try:
        lines = read_metrics(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    found: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "evaluation": {}}
    for line in lines:
        found.setdefault(line["kind"], {})[line["step"]] = line
    if not found["train"] and not found["evaluation"]:
        raise ValueError(f"{path} has no line of training or evaluation yet")
    return Run(*(dict(sorted(found[kind].items())) for kind in ("train", "evaluation")))


def draw_runs(runs: Mapping[str, Run], columns: int = 3) -> Figure:
    """Draw one panel for each loss, the learning rates, the gradient norm and each score, shared by all runs.

    Training is drawn as lines; an evaluation as points, in the panel of the loss if it is one.

    Args:
        runs: by the name that the legend shows; a single run has no legend.
        columns: panels in a row.

    Raises:
        ValueError: there is no run, or the runs have nothing to draw.
    """
    losses = list(dict.fromkeys(name for run in runs.values() for name in run.losses))
    losses.sort(key=lambda name: name != "loss")
    scores = [
        name for name in SCORES if any(name in line for run in runs.values() for line in run.evaluations.values())
    ]
    has_training = any(run.train for run in runs.values())
    panels = [*losses, *(("lr", "grad_norm") if has_training else ()), *scores]
    if not panels:
        raise ValueError(f"nothing to draw in {', '.join(runs) or 'no run'}: no loss and none of {', '.join(SCORES)}")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    legend = 0.35 if len(runs) > 1 else 0.0  # inches
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + legend), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, name in zip(axes, panels, strict=False):
        _draw_panel(axis, name, list(runs.values()))
    for axis in axes[len(panels) :]:
        axis.remove()
    if legend:
        handles = [
            Line2D([], [], color=_color(number), marker=_mark(number), markersize=4) for number in range(len(runs))
        ]
        figure.legend(handles, list(runs), loc="outside upper center", ncols=min(len(runs), columns), frameon=False)
    return figure


def _draw_panel(axis: Axes, name: str, runs: Sequence[Run]) -> None:
    for number, run in enumerate(runs):
        if name == "lr":
            _draw_rates(axis, run, number)
            continue
        trained = _series(run.train, name)
        scored = _series(run.evaluations, name)
        if trained[0]:
            mark = "." if len(trained[0]) == 1 else ""  # a line of one point is invisible
            axis.plot(*trained, color=_color(number), linewidth=1.2, marker=mark)
        if scored[0]:
            line = "-" if name in SCORES else ""
            axis.plot(*scored, color=_color(number), linestyle=line, linewidth=0.8, marker=_mark(number), markersize=4)
    title, limits = SCORES.get(name, (name.replace("_", " "), None))
    axis.set_title(
        {"lr": "learning rate", "grad_norm": "gradient norm", "loss": "loss, total"}.get(name, title), size=10
    )
    if limits:
        axis.set_ylim(*limits)
    elif name not in SCORES:
        axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    axis.set_xlabel("step", size=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_rates(axis: Axes, run: Run, number: int) -> None:
    """A line for each parameter group; groups that always have the same rate share one."""
    lines = {step: line["lr"] for step, line in run.train.items() if isinstance(line.get("lr"), Mapping)}
    groups: dict[tuple[tuple[int, ...], tuple[float, ...]], list[str]] = {}
    for name in dict.fromkeys(name for line in lines.values() for name in line):
        steps, rates = _series(lines, name)
        groups.setdefault((tuple(steps), tuple(rates)), []).append(name)
    for place, (series, names) in enumerate(groups.items()):
        style = STYLES[place % len(STYLES)]
        axis.plot(*series, color=_color(number), linestyle=style, linewidth=1.2, label=", ".join(names))
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axis.yaxis.get_offset_text().set_fontsize(8)
    if len(groups) > 1:
        axis.legend(fontsize=7, frameon=False)


def _series(lines: Mapping[int, Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a name; a value that was not finite (null) is a gap."""
    found = [(step, line[name]) for step, line in lines.items() if name in line]
    return [step for step, _ in found], [math.nan if value is None else float(value) for _, value in found]


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _mark(number: int) -> str:
    return MARKS[number // len(COLORS) % len(MARKS)]


def run_names(folders: Iterable[str | Path]) -> list[str]:
    """Shortest names that tell the folders apart: the last parts of their paths.

    Raises:
        ValueError: a folder is given twice.
    """
    parts = [Path(folder).resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"a folder is given twice: {', '.join('/'.join(path)[1:] for path in parts)}")
