"""The results of a quickstart's folder: summary.json and a table for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from modules.foreign_text import read_json, read_lines
from utils.pictures.curves import read_run

RUNS = ("pretrain", "pretrain_without_objects")
FINE_TUNED = ("retrieval", "retrieval_without_objects")
CHOICES, CAPTIONS, ANSWERS = "multiple_choice", "captioning", "question_answering"
MORE_CHOICES = "multiple_choice_more_clips"  # 100 questions alone leave several points to chance
WITHOUT = "_without_objects"
MORE, MORE_FOLDER = "more_clips", "queries"  # every task scored on them (scripts/quickstart.sh --score_many)
OTHERS = [name + ending for name in (CAPTIONS, ANSWERS) for ending in ("", WITHOUT)]
TRUTH_FILE = "truth_scores.json"  # of utils/demo_score.py
ALIGNMENT, ALIGNMENT_FILE = "alignment", "alignment.json"  # of utils/score_alignment.py
ALIGNED = {"nouns": "nouns", "verbs": "f1"}  # figures of that file
LOSSES = ("vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive")
METRICS = ("t2v_R1", "t2v_R5", "t2v_R10", "t2v_MedianR", "v2t_R1", "v2t_R5", "v2t_R10", "v2t_MedianR")


def summarise_run(folder: Path) -> dict[str, Any]:
    """`zero_shot`: the last evaluation; `losses`: first and last displayed value of each loss; `steps`.

    Raises:
        ValueError: the run has no evaluation or no training line yet.
    """
    run = read_run(folder)
    if not run.train or not run.evaluations:
        raise ValueError(f"{folder}/metrics.jsonl has no {'evaluation' if run.train else 'training'} line")
    train, [*_, last] = list(run.train.values()), run.evaluations.values()
    losses = {name: [train[0][name], train[-1][name]] for name in LOSSES if name in train[-1]}
    zero_shot = {name: value for name, value in last.items() if name not in ("kind", "step")}
    return {"zero_shot": zero_shot, "losses": losses, "steps": train[-1]["step"]}


def read_result(folder: Path) -> dict[str, Any] | None:
    """`metrics` of a finished fine-tuning, of captions with `truth` (utils/demo_score.py); None if there is none."""
    path, truth = folder / "metrics.json", folder / TRUTH_FILE
    if not path.is_file():
        return None
    content = read_json(path)
    metrics = content.get("metrics") if isinstance(content, dict) else None
    if not isinstance(metrics, dict):
        raise ValueError(f"{path} has no metrics; run the task again that wrote it")
    return {**metrics, "truth": read_json(truth)} if truth.is_file() else metrics


def read_more(folder: Path) -> dict[str, Any]:
    """`more_clips`: of each task that was scored on more clips its metrics, and of pre-training those of zero-shot."""
    found = {name: read_result(folder / name) for name in (FINE_TUNED[0], CAPTIONS, ANSWERS)}
    zero_shot = folder / RUNS[0] / "metrics.json"
    if zero_shot.is_file():
        content = read_json(zero_shot)
        found[RUNS[0]] = content.get("zero_shot") if isinstance(content, dict) else None
    found = {name: metrics for name, metrics in found.items() if metrics is not None}
    return {MORE: found} if found else {}


def _more_line(found: dict[str, Any]) -> str:
    """One line of what was scored on more clips."""
    parts = [
        f"{what} R1 {found[name]['t2v_R1']:.1f} and {found[name]['v2t_R1']:.1f} %"
        for name, what in ((RUNS[0], "zero-shot"), (FINE_TUNED[0], "retrieval"))
        if name in found
    ]
    if "truth" in found.get(CAPTIONS, {}):
        parts.append(f"captions all true and complete {found[CAPTIONS]['truth']['exact']:.1f} %")
    if ANSWERS in found:
        parts.append(f"answers {found[ANSWERS]['accuracy']:.1f} % right")
    clips = next((one["videos"] for one in found.values() if "videos" in one), None)
    return f"On {clips or 'more'} clips: {', '.join(parts)}"


def read_alignment(path: Path) -> dict[str, Any]:
    """`alignment`: `nouns` and `verbs` in percent; `alignment_details`: the same by chance, and the number of `clips`.

    Nothing without the file.
    """
    if not path.is_file():
        return {}
    content = read_json(path)
    try:
        figures = {name: content["figures"][key] for name, key in ALIGNED.items()}
        percent, chance = ({name: float(one[key]) for name, one in figures.items()} for key in ("percent", "chance"))
        return {ALIGNMENT: percent, f"{ALIGNMENT}_details": {"chance": chance, "clips": int(content["clips"])}}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} lacks figures ({error!r}); run utils/score_alignment.py on demo clips again"
        ) from error


def _alignment_line(found: dict[str, float], details: dict[str, Any]) -> str:
    chance = details["chance"]
    return (
        f"Words that find their things, {details['clips']} clips: nouns {found['nouns']:.1f} % (chance "
        f"{chance['nouns']:.1f} %), verbs F1 {found['verbs']:.1f} % (chance {chance['verbs']:.1f} %)"
    )


def _caption_lines(name: str, found: dict[str, Any]) -> list[str]:
    scores = " ".join(
        f"{metric} {found[metric]:.3f}" for metric in ("CIDEr", "Bleu_4", "METEOR", "ROUGE_L") if metric in found
    )
    lines = [f"{name.replace('_', ' ')}, {found['videos']} clips: {scores}"]
    if "truth" in found:
        truth = found["truth"]
        shares = ", ".join(f"{attribute} {truth[attribute]:.1f} %" for attribute in ("color", "shape", "motion"))
        exact = ", ".join(f"{n} things {truth[f'exact_{n}']:.0f} %" for n in (1, 2, 3) if f"exact_{n}" in truth)
        lines += [
            f"  right among their mentions: {shares}; things invented per caption: {truth['invented']:.2f}",
            f"  captions that are all true and complete: {truth['exact']:.1f} % ({exact})",
        ]
    return lines


def _answer_line(name: str, found: dict[str, Any]) -> str:
    return (
        f"{name.replace('_', ' ')}, {found['questions']} questions: {found['accuracy']:.1f} % right "
        f"(always the most frequent answer: {found['majority']:.1f} %)"
    )


def read_seconds(path: Path) -> dict[str, int]:
    """Seconds of each stage, as scripts/quickstart.sh notes them."""
    rows = [line.split("\t") for _, line in read_lines(path)]
    try:
        return {name: int(seconds) for name, seconds in rows}
    except ValueError as error:
        raise ValueError(f"{path}: lines are a stage, a tab and seconds ({error}); run the quickstart again") from error


def summarise(folder: Path) -> dict[str, Any]:
    """Content of summary.json: every run and result in a quickstart's folder, and seconds by stage."""
    summary: dict[str, Any] = {
        run: summarise_run(folder / run) for run in RUNS if (folder / run / "metrics.jsonl").is_file()
    }
    results = {name: read_result(folder / name) for name in (*FINE_TUNED, CHOICES, MORE_CHOICES, *OTHERS)}
    summary |= {name: result for name, result in results.items() if result is not None}
    summary |= read_alignment(folder / ALIGNMENT_FILE)
    summary |= read_more(folder / MORE_FOLDER)
    seconds = read_seconds(folder / "seconds.tsv")
    summary["seconds"] = {**seconds, "total": sum(seconds.values())}
    return summary


def table(summary: dict[str, Any]) -> list[str]:
    """Lines for people: the tasks' scores, then losses, then seconds."""
    runs = [name for name in RUNS if name in summary]
    scores = {f"{name} (zero-shot)": summary[name]["zero_shot"] for name in runs}
    scores |= {f"{name} (fine-tuned)": summary[name] for name in FINE_TUNED if name in summary}
    pairs = summary[runs[0]]["zero_shot"]["videos"]
    lines = [f"Retrieval on {pairs} held-out clips (chance R1 {100 / pairs:.1f} %)", ""]
    frame = pd.DataFrame({name.replace("_", " "): values for name, values in scores.items()}).T[list(METRICS)]
    frame = frame.astype(float).rename(columns=lambda metric: metric.replace("_", " "))
    lines += frame.to_string(float_format="{:.1f}".format, col_space=12).splitlines()
    if ALIGNMENT in summary:
        lines += ["", _alignment_line(summary[ALIGNMENT], summary[f"{ALIGNMENT}_details"])]
    choices = [summary[name] for name in (CHOICES, MORE_CHOICES) if name in summary]
    if choices:
        lines.append("")
    lines += [
        f"Multiple choice, {one['questions']} questions of 5 options: {one['accuracy']:.1f} % right" for one in choices
    ]
    for name in OTHERS:
        if name in summary:
            own = (
                _caption_lines(name, summary[name])
                if name.startswith(CAPTIONS)
                else [_answer_line(name, summary[name])]
            )
            lines += ["", *own]
    if MORE in summary:
        lines += ["", _more_line(summary[MORE])]
    for run in runs:
        lines += [
            "",
            f"Losses of {run.replace('_', ' ')}, first and last displayed mean of {summary[run]['steps']} steps",
        ]
        lines += [f"  {name:12} {first:8.3f} -> {last:8.3f}" for name, (first, last) in summary[run]["losses"].items()]
    seconds = summary["seconds"]
    lines += ["", "Seconds: " + ", ".join(f"{name} {value}" for name, value in seconds.items())]
    return lines
