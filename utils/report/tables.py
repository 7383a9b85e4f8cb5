"""The results of a quickstart as tables for its report page, each score with its unit and what chance would give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from utils.demo.wording import OPTIONS
from utils.report.sections import Section, left_out
from utils.report.summary import ALIGNMENT, ANSWERS, CAPTIONS, CHOICES, FINE_TUNED, MORE_CHOICES, OTHERS, RUNS

RECALLS = (1, 5, 10)
DIRECTIONS = {"t2v": "text to video", "v2t": "video to text"}
CAPTION_SCORES = {
    "CIDEr": "CIDEr (0 to 10)",
    "Bleu_4": "BLEU-4 (0 to 1)",
    "METEOR": "METEOR (0 to 1)",
    "ROUGE_L": "ROUGE-L (0 to 1)",
}
TRUE_SHARES = {
    "color": "colours right of those named",
    "shape": "shapes right of those named",
    "motion": "motions right of those named",
    "exact": "captions all true and complete",
}
ALIGNED_WORDS = {
    "nouns": "things whose trajectory gets their noun",
    "verbs": "motions that action queries name, F1",
}
NONE = "\u2013"


class Table(NamedTuple):
    """A table of texts: its title, a row each, how many columns at the left are words, and a sentence below it."""

    title: str
    frame: pd.DataFrame
    text_columns: int = 1
    note: str = ""


def results_section(summary: dict[str, Any] | None) -> Section:
    """Tables of a summary.json (summary.py)."""
    title, anchor = "Results", "results"
    if summary is None:
        return left_out(title, anchor, "summary.json (utils/summarise_quickstart.py writes it)")
    tables = [*_retrieval(summary), *_others(summary)]
    seconds = summary.get("seconds", {})
    spent = ", ".join(f"{_words(name)} {value}" for name, value in seconds.items())
    note = f"Seconds of this run by stage (a stage that was done before takes few): {spent}." if seconds else ""
    lead = "" if tables else "summary.json has no result: this part is left out."
    return Section(title, anchor, lead, "results", {"tables": tables, "note": note})


def ablation_section(tables: Iterable[tuple[str, pd.DataFrame]], note: str) -> Section:
    """What each part adds: titles with their tables of texts, and how these are to be read."""
    shown = [Table(title, frame) for title, frame in tables]
    lead = "Each row is trained anew with one part more than the row before."
    return Section("What each part adds", "ablation", lead, "results", {"tables": shown, "note": note})


def _retrieval(summary: dict[str, Any]) -> list[Table]:
    scores = {f"{_words(name)}, zero-shot": summary[name]["zero_shot"] for name in RUNS if name in summary}
    scores |= {f"{_words(name)}, fine-tuned": summary[name] for name in FINE_TUNED if name in summary}
    scores = {name: values for name, values in scores.items() if "t2v_R1" in values}
    if not scores:
        return []
    rows = [
        {
            "model": name,
            "direction": title,
            **{f"R@{k}": f"{values[f'{direction}_R{k}']:.1f} %" for k in RECALLS},
            "median rank": f"{values[f'{direction}_MedianR']:.1f}",
        }
        for direction, title in DIRECTIONS.items()
        for name, values in scores.items()
    ]
    clips = next(iter(scores.values()))["videos"]
    chance = {f"R@{k}": f"{min(100.0, 100 * k / clips):.1f} %" for k in RECALLS}
    rows.append({"model": "chance", "direction": "either way", **chance, "median rank": f"{(clips + 1) / 2:.1f}"})
    note = "R@k is the share of queries whose own clip (or caption) is among the first k found; the best rank is 1."
    return [Table(f"Retrieval among {clips} held-out clips", pd.DataFrame(rows), 2, note)]


def _others(summary: dict[str, Any]) -> list[Table]:
    rows = _alignment_rows(summary) if ALIGNMENT in summary else []
    for name in (CHOICES, MORE_CHOICES, *OTHERS):
        found = summary.get(name)
        if found is None:
            continue
        if name.startswith(CAPTIONS):
            rows += _caption_rows(_words(name), found)
        else:
            baseline = f"{100 / OPTIONS:.1f} % (chance, {OPTIONS} options)"
            if name.startswith(ANSWERS):
                baseline = f"{found['majority']:.1f} % (the most frequent answer)"
            asked = f"{found['questions']} questions"
            rows.append([f"{_words(name)}: right answers", f"{found['accuracy']:.1f} %", baseline, asked])
    frame = pd.DataFrame(rows, columns=["measure", "result", "baseline", "asked on"])
    return [Table("Other tasks", frame)] if rows else []


def _alignment_rows(summary: dict[str, Any]) -> list[list[str]]:
    found, details = summary[ALIGNMENT], summary[f"{ALIGNMENT}_details"]
    return [
        [f"pretrain: {ALIGNED_WORDS[name]}", f"{value:.1f} %", f"{details['chance'][name]:.1f} % (chance)",
         f"{details['clips']} clips"]
        for name, value in found.items()
    ]  # fmt: skip


def _caption_rows(name: str, found: dict[str, Any]) -> list[list[str]]:
    truth = found.get("truth", {})
    values = [(words, f"{found[key]:.3f}") for key, words in CAPTION_SCORES.items() if key in found]
    values += [(words, f"{truth[key]:.1f} %") for key, words in TRUE_SHARES.items() if key in truth]
    if "invented" in truth:
        values.append(("things invented per caption", f"{truth['invented']:.2f}"))
    return [[f"{name}: {words}", value, NONE, f"{found['videos']} clips"] for words, value in values]


def _words(name: str) -> str:
    return name.replace("_", " ")
