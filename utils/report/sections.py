"""What the quickstart's report page shows of each task: examples read from the task's output folder."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modules import foreign_text
from utils.demo.scoring import ATTRIBUTES, agreement, mentions
from utils.pictures.curves import METRICS_FILE, Run, draw_runs, read_run
from utils.report.strips import Picture, Strips, data_uri, embedded
from utils.report.summary import ANSWERS, CAPTIONS, CHOICES, WITHOUT

RETRIEVAL = "retrieval"
STAGES = {
    "pretrain": "Pre-training",
    CAPTIONS: "Captioning",
    RETRIEVAL: "Retrieval",
    CHOICES: "Multiple choice",
    ANSWERS: "Question answering",
}
CURVE_NOTE = (
    "Losses are means over the steps since the line of the log before: contrastive (clip and caption find each other), "
    "vtm (do clip and caption match), mlm and plm (hidden and next words), object noun and action verb (names of "
    "trajectories and actions), caption and answer (of those tasks). Scores are of clips held out of training."
)
QUERIES, CAPTIONED, ASKED, CHOSEN = 10, 12, 12, 6  # examples of each task
SPREAD = "The examples are spread evenly over the test list, whatever their result."


class Section(NamedTuple):
    """A part of the page.

    title: its heading. anchor: the name that links to it. lead: a sentence below the heading. kind: the macro of the
    template that shows `data`.
    """

    title: str
    anchor: str
    lead: str = ""
    kind: str = ""
    data: Any = None


def left_out(title: str, anchor: str, what: str) -> Section:
    """A part of which there is nothing to show."""
    return Section(title, anchor, f"There is no {what}: this part is left out.")


def read_json(path: Path) -> Any:
    """Content of a JSON file, None if there is none; ValueError with the file's name if it is damaged."""
    if not path.is_file():
        return None
    try:
        return foreign_text.read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; run the task again that wrote it") from error


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spread over them."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def retrieval_section(entries: Sequence[Mapping[str, Any]] | None, strips: Strips) -> Section:
    """Queries with the clips they find; `entries` of retrieved.json (utils/evaluation/retrieval_report.py)."""
    title, anchor = "Queries and the clips they find", "retrieval"
    if not entries:
        return left_out(title, anchor, "retrieval/retrieved.json")
    queries = []
    for entry in spread(entries, QUERIES):
        clips = list(enumerate(entry["retrieved"], start=1))
        if entry["rank"] > len(clips):
            clips.append((entry["rank"], entry["video_id"]))
        found = [{"rank": rank, "video_id": video_id, "strip": strips.of(video_id)} for rank, video_id in clips]
        queries.append({"caption": entry["caption"], "video_id": entry["video_id"], "found": found})
    lead = f"Below each query are the clips that the fine-tuned model puts first. {SPREAD}"
    return Section(title, anchor, lead, "queries", queries)


def caption_section(
    entries: Sequence[Mapping[str, Any]] | None, truth: Mapping[str, Mapping[str, Any]], strips: Strips
) -> Section:
    """Generated captions beside true ones.

    Args:
        entries: of captioning's predictions.json.
        truth: `videos` of truth.json; captions of clips that it does not have are not checked word by word.
    """
    title, anchor = "Captions beside the truth", "captions"
    if not entries:
        return left_out(title, anchor, "captioning/predictions.json")
    cards = []
    for entry in spread(entries, CAPTIONED):
        video_id, prediction = entry["video_id"], entry["prediction"].replace(" ,", ",")
        named, missed = checked(prediction, truth[video_id]["objects"]) if video_id in truth else ([], 0)
        card = {"strip": strips.of(video_id), "prediction": prediction, "truth": entry["references"][0]}
        cards.append({**card, "named": named, "missed": missed})
    lead = f"The model's caption, what of it is true of the clip, and a caption that is true. {SPREAD}"
    return Section(title, anchor, lead, "captions", cards)


def checked(caption: str, true: Sequence[dict[str, str]]) -> tuple[list[list[tuple[str, bool]]], int]:
    """The attributes that a caption names, by thing, each with whether it is right; and how many things it leaves out.

    Args:
        true: colour, shape and motion of each thing in the clip.
    """
    named = mentions(caption)
    right, invented = agreement(named, true)
    flags = {attribute: iter(values) for attribute, values in right.items()}
    # In the order of attributes, which is that of a sentence.
    words = [[(thing[name], next(flags[name])) for name in ATTRIBUTES if name in thing] for thing in named]
    return words, len(true) - (len(named) - invented)


def answer_section(entries: Sequence[Mapping[str, Any]] | None, strips: Strips) -> Section:
    """Questions with answers; `entries` of question answering's predictions.json."""
    title, anchor = "Questions and answers", "answers"
    if not entries:
        return left_out(title, anchor, "question_answering/predictions.json")
    cards = [
        {**entry, "is_right": entry["correct"], "strip": strips.of(entry["video_id"])}
        for entry in spread(entries, ASKED)
    ]
    lead = f"The model chooses one of the answers that it was trained on. {SPREAD}"
    return Section(title, anchor, lead, "answers", cards)


def choice_section(entries: Sequence[Mapping[str, Any]] | None, strips: Strips) -> Section:
    """Options and the model's choice; `entries` of multiple choice's predictions.json."""
    title, anchor = "Multiple choice", "choices"
    if not entries:
        return left_out(title, anchor, "multiple_choice/predictions.json")
    cards = [{**entry, "strip": strips.of(entry["video_id"])} for entry in spread(entries, CHOSEN)]
    lead = f"One of the captions is true of the clip; one of the others differs from it in one attribute. {SPREAD}"
    return Section(title, anchor, lead, "choices", cards)


def curve_section(folder: Path) -> Section:
    """Curves of every stage below `folder`; those with and without objects are in the same panels."""
    title, anchor = "Curves", "curves"
    plots = []
    for stage, name_of_stage in STAGES.items():
        runs = {
            name.replace("_", " "): read_run(folder / name)
            for name in (stage, stage + WITHOUT)
            if (folder / name / METRICS_FILE).is_file()
        }
        if runs:
            words = (
                f"Curves of {name_of_stage.lower()} over training steps: losses, learning rate, gradient norm, scores"
            )
            plots.append({"title": name_of_stage, "wide": Picture(_plot(runs, 3), words), "narrow": _plot(runs, 1)})
    if not plots:
        return left_out(title, anchor, f"{METRICS_FILE} in {', '.join(STAGES)}")
    return Section(title, anchor, CURVE_NOTE, "curves", plots)


def _plot(runs: Mapping[str, Run], columns: int) -> str:
    content = io.BytesIO()
    draw_runs(runs, columns).savefig(content, format="png", dpi=120)
    return data_uri(content.getvalue(), "png")


def picture_section(folder: Path) -> Section:
    """Every {video_id}.png of the folder, in order of names, with the text of {video_id}.txt below it.

    Raises:
        ValueError: a file is no picture.
    """
    title, anchor = "Trajectories and attention", "pictures"
    sheets = []
    for file in sorted(folder.glob("*.png")):
        note = file.with_suffix(".txt")
        caption = foreign_text.read_text(note).strip() if note.is_file() else None
        sheets.append({"picture": embedded(file, f"Trajectories and attention of {file.stem}"), "caption": caption})
    if not sheets:
        return left_out(title, anchor, f"picture in {folder.name}/")
    return Section(title, anchor, "", "sheets", sheets)
