"""The quickstart's report page: what it shows of which file, that it needs nothing beside it, and a browser's view."""

from __future__ import annotations

import base64
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests import browser
from tests.videos import write_video
from utils.make_report import main
from utils.report.page import table, verdict
from utils.report.sections import LARGEST_PNG, checked, spread

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
NEEDS_BROWSER = pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium: apt-get install chromium")


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


def test_the_page_needs_nothing_beside_it_and_closes_what_it_opens(html: str):
    tags = Tags(html)
    assert tags.addresses and all(address.startswith(("data:", "#")) for address in tags.addresses)
    assert "script" not in tags.names and "url(" not in html and "@import" not in html
    assert all(image["alt"] for image in tags.images)
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">') and "<title>STOA-VLP quickstart</title>" in html
    anchors = [address[1:] for address in tags.addresses if address.startswith("#")]
    assert len(anchors) == 7 and all(f'<h2 id="{anchor}">' in html for anchor in anchors)


def test_results_have_units_and_baselines(html: str):
    shown = text(section(html, "results"))
    assert "pretrain, zero-shot text to video 40.0 % 90.0 % 100.0 % 2.0" in shown
    assert "retrieval, fine-tuned text to video 70.0 % 90.0 % 100.0 % 2.0" in shown
    assert "chance either way 10.0 % 50.0 % 100.0 % 5.5" in shown
    assert "multiple choice: right answers 89.5 % 20.0 % (chance, 5 options) 10 questions" in shown
    assert "question answering: right answers 62.5 % 6.2 % (the most frequent answer) 20 questions" in shown
    assert "captioning: CIDEr (0 to 10) 4.250 \u2013 10 clips" in shown and "captions all true and complete" in shown
    assert "setup 3, total 3" in shown


def test_queries_mark_the_right_clip_in_words_and_by_a_border(html: str):
    queries = section(html, "retrieval").split("<h3>")[1:]
    assert len(queries) == 10
    items = queries[0].split("<li")[1:]
    assert [item.startswith(' class="own"') for item in items] == [True, False, False, False, False]
    assert "right, rank 1 video7010" in text("<li" + items[0]) and text("<li" + items[1]) == "rank 2 video7011"
    missed = queries[2].split("<li")[1:]
    assert len(missed) == 6 and missed[5].startswith(' class="own"') and "right, rank 8" in missed[5]
    assert all('alt="4 frames of video' in item for item in items)


def test_texts_are_escaped(html: str):
    assert "&lt;script&gt;console.log(1)&lt;/script&gt;" in html and "<script" not in html and "<b>" not in html
    assert "&lt;td&gt;" in table("<t>", ["<td>"], [["<td>"]]) and "&lt;i&gt;" in verdict(True, "<i>")


def test_captions_say_what_agrees_with_the_clip(html: str):
    card = text(section(html, "captions").split("<article")[1])
    assert "a red ring is growing" in card and "true caption: truth of video7010" in card
    assert "\u2713 red \u2713 ring \u2717 growing" in card and "\u2717 1 not named" in card


def test_words_of_a_caption_are_checked_thing_by_thing():
    words, missed = checked("a blue ring is resting and a blue star is growing and a ring is resting", THINGS)
    assert words == [
        [("blue", False), ("ring", True), ("resting", True)],
        [("blue", True), ("star", True), ("growing", True)],
        [("ring", False), ("resting", False)],
    ]
    assert missed == 0 and checked("nothing", THINGS) == ([], 2)


def test_answers_and_choices_are_marked(html: str):
    answers = [text("<article" + one) for one in section(html, "answers").split("<article")[1:]]
    assert len(answers) == 12 and "\u2713 ring (right)" in answers[0]
    assert any("\u2717 ring (wrong) true answer: star" in one for one in answers)
    wrong, right = (text("<article" + one) for one in section(html, "choices").split("<article")[1:3])
    assert "option 1 \u2717 chosen, wrong" in wrong and "option 3 \u2713 the true one" in wrong
    assert "option 3 \u2713 chosen, right" in right and "the true one" not in right


def test_strips_hold_the_frames_of_the_clip(html: str):
    """Clip 7014 brightens by 5 grey levels a frame; its four frames are 0, 2, 6 and 10 of its twelve."""
    image = re.search(r'src="data:image/jpeg;base64,([^"]*)" alt="4 frames of video7014"', html)
    assert image is not None
    strip = cv2.imdecode(np.frombuffer(base64.b64decode(image[1]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert strip.shape == (96, 4 * 128 + 3 * 3)
    levels = [strip[:, left + 10 : left + 110].mean() for left in range(0, 4 * 131, 131)]
    np.testing.assert_allclose(levels, [0, 10, 30, 50], atol=3)


def test_pictures_are_in_order_with_their_captions(html: str):
    shown = section(html, "pictures")
    assert re.findall(r'alt="([^"]*)"', shown) == [f"Trajectories and attention of video{n}" for n in (7010, 7011)]
    assert shown.count("<figcaption>") == 1 and "<figcaption>boxes &amp; paths</figcaption>" in shown


def test_large_pictures_become_jpeg(quickstart: Path, tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "pictures/large.png"), noise)
    assert (tmp_path / "pictures/large.png").stat().st_size > LARGEST_PNG
    assert main([str(tmp_path)]) == 0
    shown = section((tmp_path / "report.html").read_text(), "pictures")
    assert "data:image/jpeg" in shown and "data:image/png" not in shown


def test_what_is_not_there_is_left_out_with_a_sentence(tmp_path: Path):
    assert main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    Tags(html)
    assert html.count("this part is left out.") == 7 and "<img" not in html
    assert "There is no retrieval/retrieved.json: this part is left out." in html
    write_json(tmp_path / "captioning/predictions.json", [{"video_id": "v", "prediction": "x", "references": ["y"]}])
    write_json(tmp_path / "summary.json", {"seconds": {"setup": 1}})
    assert main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    assert "There is no video file of v." in html and html.count("this part is left out.") == 6
    (tmp_path / "demo/msrvtt/videos").mkdir(parents=True)
    (tmp_path / "demo/msrvtt/videos/v.mp4").write_bytes(b"no video")
    assert main([str(tmp_path)]) == 0
    assert "The video of v cannot be read." in (tmp_path / "report.html").read_text()


def test_damaged_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "none")]) == 1
    assert "none is no folder" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text("{")
    assert main([str(tmp_path)]) == 1
    assert "summary.json is not JSON" in capsys.readouterr().err
    (tmp_path / "summary.json").unlink()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/bad.png").write_bytes(b"text")
    assert main([str(tmp_path)]) == 1
    assert "bad.png is no picture" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_examples_are_spread_over_the_list():
    assert spread(range(100), 4) == [0, 25, 50, 75] and spread(range(3), 10) == [0, 1, 2] and spread([], 3) == []


@NEEDS_BROWSER
def test_in_browser(quickstart: Path, tmp_path: Path):
    page = quickstart / "report.html"
    for width in (1280, 400):
        seen = browser.look(page, width, screenshot=tmp_path / "page.png")
        assert seen.problems() == [] and seen.title == "STOA-VLP quickstart" and seen.pictures > 80
        shot = cv2.imread(str(tmp_path / "page.png"))
        assert shot.shape[1] == width and shot.shape[0] > 3000
    dark = browser.look(page, 400, is_dark=True, screenshot=tmp_path / "dark.png")
    assert dark.problems() == [] and cv2.imread(str(tmp_path / "dark.png"))[:20].mean() < 60 < shot[:20].mean()


@NEEDS_BROWSER
def test_the_browser_sees_what_is_wrong(tmp_path: Path):
    page = tmp_path / "page.html"
    page.write_text(
        "<title>bad</title><img src=none.png alt=first><img src='data:image/png;base64,AAAA' alt=second>"
        "<p style='width: 2000px'>wide</p><script>console.error('spoken'); missing()</script>"
    )
    found = "\n".join(browser.look(page, 400).problems())
    assert "missing picture: first" in found and "missing picture: second" in found
    assert "console: spoken" in found and "missing is not defined" in found and "wider than the window" in found
    assert f"request: {(tmp_path / 'none.png').as_uri()}" in found
    assert browser.main([str(page)]) == 1
    with pytest.raises(RuntimeError, match="ERR_FILE_NOT_FOUND"):
        browser.look(tmp_path / "none.html")
