"""The quickstart's report page: what it shows of which file, that it needs nothing beside it, and a browser's view."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pandas as pd
import pytest

from tests import browser
from tests.utils.report.quickstart import Tags, section, text
from utils.report.page import render
from utils.report.sections import Section
from utils.report.strips import Picture
from utils.report.tables import Table

NEEDS_BROWSER = pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium: apt-get install chromium")


def test_the_page_needs_nothing_beside_it_and_closes_what_it_opens(html: str):
    tags = Tags(html)
    assert tags.addresses and all(address.startswith(("data:", "#")) for address in tags.addresses)
    assert "script" not in tags.names and "url(" not in html and "@import" not in html
    assert all(image["alt"] for image in tags.images)
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">') and "<title>STOA-VLP quickstart</title>" in html
    anchors = [address[1:] for address in tags.addresses if address.startswith("#")]
    assert len(anchors) == 7 and all(f'<h2 id="{anchor}">' in html for anchor in anchors)


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
    frame = pd.DataFrame([{"<th>": "<td>"}])
    card = {"strip": Picture("", "<p>"), "prediction": "<i>", "truth": "<q>", "named": [[("<u>", True)]], "missed": 0}
    sections = [
        Section("<h2>", "<a>", "<s>", "results", {"tables": [Table("<t>", frame, 1, "<n>")], "note": "<z>"}),
        Section("b", "b", "", "captions", [card]),
    ]
    made = render("<x>", "<y>", sections)
    for name in ("th", "td", "p", "i", "q", "u", "h2", "a", "s", "t", "n", "x", "y", "z"):
        assert f"&lt;{name}&gt;" in made, name


def test_captions_say_what_agrees_with_the_clip(html: str):
    card = text(section(html, "captions").split("<article")[1])
    assert "a red ring is growing" in card and "true caption: truth of video7010" in card
    assert "\u2713 red \u2713 ring \u2717 growing" in card and "\u2717 1 not named" in card


def test_answers_and_choices_are_marked(html: str):
    answers = [text("<article" + one) for one in section(html, "answers").split("<article")[1:]]
    assert len(answers) == 12 and "\u2713 ring (right)" in answers[0]
    assert any("\u2717 ring (wrong) true answer: star" in one for one in answers)
    wrong, right = (text("<article" + one) for one in section(html, "choices").split("<article")[1:3])
    assert "option 1 \u2717 chosen, wrong" in wrong and "option 3 \u2713 the true one" in wrong
    assert "option 3 \u2713 chosen, right" in right and "the true one" not in right


def test_pictures_are_in_order_with_their_captions(html: str):
    shown = section(html, "pictures")
    assert re.findall(r'alt="([^"]*)"', shown) == [f"Trajectories and attention of video{n}" for n in (7010, 7011)]
    assert shown.count("<figcaption>") == 1 and "<figcaption>boxes &amp; paths</figcaption>" in shown


@pytest.mark.slow
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


@pytest.mark.slow
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
