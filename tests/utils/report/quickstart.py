"""A quickstart's output folder for tests, and what is read off the page that is made of it."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.videos import write_video
from utils.make_report import main

CLIPS = [f"video{number}" for number in range(7010, 7020)]
NASTY = 'a <b>red</b> "ring" & <script>console.log(1)</script>'
THINGS = [
    {"color": "red", "shape": "ring", "motion": "resting"},
    {"color": "blue", "shape": "star", "motion": "growing"},
]
RECALLS = {
    f"{way}_{name}": value for way in ("t2v", "v2t") for name, value in (("R1", 40.0), ("R5", 90.0), ("R10", 100.0))
}
SCORES = {**RECALLS, "t2v_MedianR": 2.0, "v2t_MedianR": 2.0, "videos": 10}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def retrieved() -> list[dict[str, Any]]:
    """Queries of ten clips that find the next five; the third one's own clip is not among them."""
    entries = []
    for number, clip in enumerate(CLIPS):
        found = [CLIPS[(number + place) % 10] for place in range(5)]
        entries.append({"caption": f"query {number}", "video_id": clip, "rank": 1, "retrieved": found})
    entries[2] |= {"rank": 8, "retrieved": [clip for clip in CLIPS if clip != CLIPS[2]][:5]}
    entries[4] |= {"caption": NASTY}
    return entries


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with every result, of ten grey clips."""
    folder = tmp_path_factory.mktemp("quickstart")
    for number, clip in enumerate(CLIPS):
        write_video(folder / "demo/msrvtt/videos" / f"{clip}.mp4", 12, fps=4, size=(128, 96), step=number + 1)
    write_json(folder / "demo/msrvtt/truth.json", {"videos": {clip: {"objects": THINGS} for clip in CLIPS}})
    for stage in ("pretrain", "captioning", "retrieval", "multiple_choice", "question_answering"):
        line = {"kind": "train", "step": 1, "vtm": 0.5, "lr": {"clip": 0.1}, "grad_norm": 1.0}
        (folder / stage).mkdir()
        (folder / stage / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    write_json(folder / "retrieval/retrieved.json", retrieved())
    captions = [
        {"video_id": clip, "prediction": "a red ring is growing", "references": [f"truth of {clip}"]} for clip in CLIPS
    ]
    write_json(folder / "captioning/predictions.json", captions)
    answers = [
        {"video_id": clip, "question": f"what is {clip}?", "prediction": "ring", "answer": answer, "correct": right}
        for clip in CLIPS
        for answer, right in (("ring", True), ("star", False))
    ]
    write_json(folder / "question_answering/predictions.json", answers)
    options = [f"option {number}" for number in range(5)]
    choices = [
        {"video_id": clip, "options": options, "answer": 3, "prediction": 3 if number else 1}
        for number, clip in enumerate(CLIPS)
    ]
    write_json(folder / "multiple_choice/predictions.json", choices)
    summary = {
        "pretrain": {"zero_shot": SCORES, "losses": {"vtm": [0.7, 0.5]}, "steps": 1},
        "retrieval": {**SCORES, "t2v_R1": 70.0},
        "alignment": {"nouns": 88.5, "verbs": 77.25},
        "alignment_details": {"chance": {"nouns": 30.0, "verbs": 23.5}, "clips": 10},
        "multiple_choice": {"accuracy": 89.5, "questions": 10},
        "captioning": {"CIDEr": 4.25, "videos": 10, "truth": {"color": 77.5, "exact": 23.0, "invented": 0.25}},
        "question_answering": {"accuracy": 62.5, "majority": 6.25, "questions": 20},
        "seconds": {"setup": 3, "total": 3},
    }
    write_json(folder / "summary.json", summary)
    (folder / "pictures").mkdir()
    for name in ("video7011", "video7010"):
        cv2.imwrite(str(folder / "pictures" / f"{name}.png"), np.full((60, 200, 3), 90, np.uint8))
    (folder / "pictures/video7011.txt").write_text("boxes & paths\n")
    assert main([str(folder)]) == 0
    return folder


@pytest.fixture
def html(quickstart: Path) -> str:
    return (quickstart / "report.html").read_text(encoding="utf-8")


def section(html: str, anchor: str) -> str:
    return html.split(f'<h2 id="{anchor}">')[1].split("</section>")[0]


def text(html: str) -> str:
    """What a reader sees, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


class Tags(HTMLParser):
    """Checks that every element is closed, and collects what they refer to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.names: set[str] = set()
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.names.add(tag)
        self.addresses += [str(found[name]) for name in ("src", "href", "srcset") if name in found]
        if tag == "img":
            self.images.append(found)
        if tag not in ("img", "meta", "link", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
