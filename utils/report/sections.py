"""What the quickstart's report page shows of each task: examples read from the task's output folder."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dataloaders.frames import FrameSettings, UnreadableVideo, read_clip
from dataloaders.video_files import find_videos
from utils.demo.scoring import ATTRIBUTES, agreement, mentions
from utils.pictures.curves import METRICS_FILE, Run, draw_runs, read_run
from utils.report.page import (
    Found,
    Section,
    answer_card,
    caption_card,
    cards,
    choice_card,
    data_uri,
    paragraph,
    picture,
    query,
    responsive_picture,
    sheet,
)
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
STRIP_HEIGHT = 96  # pixels
GAP = 3  # white pixels between two frames
LARGEST_PNG = 300_000  # bytes; a larger picture is put in as JPEG
SPREAD = "The examples are spread evenly over the test list, whatever their result."


class Strips:
    """Pictures of clips: some frames of each side by side.

    Args:
        folder: has the videos, anywhere below it.
        video_ids: of the clips that will be asked for.
        frames: of each clip, chosen by the frame rule (dataloaders/frames.py).
        feature_framerate: candidates per second of that rule.
    """

    def __init__(self, folder: Path, video_ids: Iterable[str], frames: int, feature_framerate: float) -> None:
        self._files = find_videos(folder, video_ids)[0]
        self.frames, self.feature_framerate = frames, feature_framerate
        self._made: dict[str, str] = {}

    def html(self, video_id: str) -> str:
        """The clip's picture; a sentence where the clip is not there or cannot be read."""
        if video_id not in self._made:
            self._made[video_id] = self._make(video_id)
        return self._made[video_id]

    def _make(self, video_id: str) -> str:
        if video_id not in self._files:
            return paragraph(f"There is no video file of {video_id}.", "soft")
        try:
            clip = read_clip(self._files[video_id], self.frames, FrameSettings(self.feature_framerate))
        except UnreadableVideo:
            return paragraph(f"The video of {video_id} cannot be read.", "soft")
        scale = min(1.0, STRIP_HEIGHT / clip.height)
        size = (max(1, round(clip.width * scale)), max(1, round(clip.height * scale)))
        gap = np.full((size[1], GAP, 3), 255, np.uint8)
        parts = [part for frame in clip.frames for part in (gap, cv2.resize(frame, size, interpolation=cv2.INTER_AREA))]
        strip = np.hstack(parts[1:])
        alt = f"{len(clip.frames)} frames of {video_id}"
        return picture(data_uri(_jpeg(strip[..., ::-1]), "jpeg"), alt, (strip.shape[1], strip.shape[0]))


def _jpeg(image: np.ndarray) -> bytes:
    """A BGR picture (H, W, 3) as a JPEG file."""
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return encoded.tobytes()


def read_json(path: Path) -> Any:
    """Content of a JSON file, None if there is none; ValueError with the file's name if it is damaged."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; run the task again that wrote it") from error


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spread over them."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def retrieval_section(entries: Sequence[Mapping[str, Any]] | None, strips: Strips) -> Section:
    """Queries with the clips they find.

    Args:
        entries: of retrieved.json (utils/evaluation/retrieval_report.py).
    """
    title, anchor = "Queries and the clips they find", "retrieval"
    if not entries:
        return Section(title, anchor, _left_out("retrieval/retrieved.json"))
    parts = [paragraph(f"Below each query are the clips that the fine-tuned model puts first. {SPREAD}", "soft")]
    for number, entry in enumerate(spread(entries, QUERIES), start=1):
        clips = list(enumerate(entry["retrieved"], start=1))
        if entry["rank"] > len(clips):
            clips.append((entry["rank"], entry["video_id"]))
        found = [Found(rank, video_id, strips.html(video_id)) for rank, video_id in clips]
        parts.append(query(number, entry["caption"], entry["video_id"], found))
    return Section(title, anchor, "\n".join(parts))


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
        return Section(title, anchor, _left_out("captioning/predictions.json"))
    made = []
    for entry in spread(entries, CAPTIONED):
        video_id, prediction = entry["video_id"], entry["prediction"].replace(" ,", ",")
        named, missed = checked(prediction, truth[video_id]["objects"]) if video_id in truth else ([], 0)
        made.append(caption_card(strips.html(video_id), prediction, entry["references"][0], named, missed))
    note = f"The model's caption, what of it is true of the clip, and a caption that is true. {SPREAD}"
    return Section(title, anchor, paragraph(note, "soft") + cards(made))


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
        return Section(title, anchor, _left_out("question_answering/predictions.json"))
    made = [
        answer_card(strips.html(one["video_id"]), one["question"], one["prediction"], one["answer"], one["correct"])
        for one in spread(entries, ASKED)
    ]
    note = f"The model chooses one of the answers that it was trained on. {SPREAD}"
    return Section(title, anchor, paragraph(note, "soft") + cards(made))


def choice_section(entries: Sequence[Mapping[str, Any]] | None, strips: Strips) -> Section:
    """Options and the model's choice; `entries` of multiple choice's predictions.json."""
    title, anchor = "Multiple choice", "choices"
    if not entries:
        return Section(title, anchor, _left_out("multiple_choice/predictions.json"))
    made = [
        choice_card(strips.html(one["video_id"]), one["options"], one["answer"], one["prediction"])
        for one in spread(entries, CHOSEN)
    ]
    note = f"One of the captions is true of the clip; one of the others differs from it in one attribute. {SPREAD}"
    return Section(title, anchor, paragraph(note, "soft") + cards(made))


def curve_section(folder: Path) -> Section:
    """Curves of every stage below `folder`; those with and without objects are in the same panels."""
    parts = []
    for stage, title in STAGES.items():
        runs = {
            name.replace("_", " "): read_run(folder / name)
            for name in (stage, stage + WITHOUT)
            if (folder / name / METRICS_FILE).is_file()
        }
        if runs:
            alt = f"Curves of {title.lower()} over training steps: losses, learning rate, gradient norm and scores"
            wide, narrow = (_plot(runs, columns) for columns in (3, 1))
            parts.append(f"<h3>{title}</h3>\n{responsive_picture(wide, narrow, alt)}")
    lead = paragraph(CURVE_NOTE, "soft") if parts else _left_out(f"{METRICS_FILE} in {', '.join(STAGES)}")
    return Section("Curves", "curves", "\n".join([lead, *parts]))


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
    files = sorted(folder.glob("*.png"))
    if not files:
        return Section(title, anchor, _left_out(f"picture in {folder.name}/"))
    parts = []
    for file in files:
        note = file.with_suffix(".txt")
        caption = note.read_text(encoding="utf-8").strip() if note.is_file() else None
        parts.append(sheet(_embedded(file), f"Trajectories and attention of {file.stem}", caption))
    return Section(title, anchor, "\n".join(parts))


def _embedded(file: Path) -> str:
    content = file.read_bytes()
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise ValueError(f"{file} is no picture: delete it, or make it again")
    if len(content) > LARGEST_PNG:
        smaller = _jpeg(image)
        if len(smaller) < len(content):
            return data_uri(smaller, "jpeg")
    return data_uri(content, "png")


def _left_out(what: str) -> str:
    return paragraph(f"There is no {what}: this part is left out.", "soft")
