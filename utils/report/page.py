"""The quickstart's report as one HTML page that needs nothing beside it: no script, no request, pictures inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.report.sections import (
    RETRIEVAL,
    Section,
    answer_section,
    caption_section,
    choice_section,
    curve_section,
    picture_section,
    read_json,
    retrieval_section,
)
from utils.report.strips import Strips
from utils.report.summary import ANSWERS, CAPTIONS, CHOICES
from utils.report.tables import results_section

TEMPLATE = "page.html.jinja"
TITLE = "STOA-VLP quickstart"
LEAD = (
    "What the models of one quickstart run have learned from rendered clips of moving shapes: scores, curves and "
    "examples on clips that none of them was trained on."
)


def quickstart_page(
    folder: Path, demo: Path, frames: int, feature_framerate: float, further: Sequence[Section] = ()
) -> str:
    """The report page of a quickstart folder as HTML.

    Args:
        folder: has summary.json and the folders of the tasks; what is not there is left out with a sentence.
        demo: has the videos of the test clips in videos/, and truth.json.
        frames, feature_framerate: see `Strips`.
        further: sections behind the results.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file in it is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give the output folder of scripts/quickstart.sh")
    retrieved = read_json(folder / RETRIEVAL / "retrieved.json")
    captions, choices, answers = (
        read_json(folder / task / "predictions.json") for task in (CAPTIONS, CHOICES, ANSWERS)
    )
    video_ids = [entry["video_id"] for entries in (retrieved, captions, choices, answers) for entry in entries or []]
    video_ids += [video_id for entry in retrieved or [] for video_id in entry["retrieved"]]
    strips = Strips(demo / "videos", video_ids, frames, feature_framerate)
    truth = (read_json(demo / "truth.json") or {"videos": {}})["videos"]
    sections = [
        results_section(read_json(folder / "summary.json")),
        *further,
        curve_section(folder),
        retrieval_section(retrieved, strips),
        caption_section(captions, truth, strips),
        answer_section(answers, strips),
        choice_section(choices, strips),
        picture_section(folder / "pictures"),
    ]
    return render(TITLE, LEAD, sections)


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole document; all texts are plain and are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(title=title, lead=lead, sections=sections).lstrip()
