"""A report as one HTML page that needs nothing beside it: no script, no request, pictures inside as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

RIGHT, WRONG = "\u2713", "\u2717"  # beside a word each, as colours and signs alone do not speak to everybody
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2024; --soft: #5b6570; --line: #d9dee3; --card: #f5f7f9;
  --right: #0b6b3a; --wrong: #a8231b; --link: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e4e8ec; --soft: #9aa5b0; --line: #343b42;
  --card: #1d2226; --right: #62d394; --wrong: #ff9088; --link: #84bdf5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; margin: 2.8rem 0 .4rem; padding-top: .7rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .5rem; }
p { margin: .4rem 0 .8rem; max-width: 50rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1rem 0 0; }
img { display: block; max-width: 100%; height: auto; border-radius: 4px; background: var(--card); }
.soft { color: var(--soft); }
.small { font-size: .875rem; }
.right, .wrong { color: var(--right); font-weight: 600; }
.wrong { color: var(--wrong); }
.wide { overflow-x: auto; margin: .6rem 0 1.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; white-space: nowrap; }
th, td { padding: .35rem 0 .35rem 1.4rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
th.number, td.number { text-align: right; }
thead th { font-size: .875rem; color: var(--soft); font-weight: 600; }
@media (max-width: 700px) {
  table { font-size: .875rem; }
  th, td { padding-left: .8rem; }
  td:first-child { white-space: normal; min-width: 8.5rem; }
}
.plot { background: #fff; padding: .4rem; border: 1px solid var(--line); border-radius: 6px; width: fit-content;
  max-width: 100%; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.found { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
  list-style: none; padding: 0; margin: .3rem 0 1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem; min-width: 0; }
.card > :last-child { margin-bottom: 0; }
.card img, .found img { width: 100%; }
.found li { border: 3px solid transparent; border-radius: 6px; padding: .3rem; min-width: 0; }
.found li.own { border-color: var(--right); }
.found p, .card p { margin: .35rem 0 0; }
.options { margin: .4rem 0 0; padding-left: 1.6rem; }
.chips { display: flex; flex-wrap: wrap; gap: .3rem; margin: .35rem 0 0; padding: 0; list-style: none;
  font-size: .875rem; }
.chips li { border: 1px solid var(--line); border-radius: 1rem; padding: 0 .6rem; background: var(--paper); }
.sheet img { min-width: 40rem; }
figure { margin: 1rem 0 1.6rem; }
figcaption { margin-top: .3rem; }
""".strip()


class Section(NamedTuple):
    """A part of the page: its heading, the name that links to it, and HTML of what follows the heading."""

    title: str
    anchor: str
    body: str


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole document; `title` and `lead` (one sentence) are plain text."""
    links = "".join(f'<a href="#{escape(one.anchor)}">{escape(one.title)}</a>' for one in sections)
    parts = "".join(
        f'<section aria-labelledby="{escape(one.anchor)}">\n'
        f'<h2 id="{escape(one.anchor)}">{escape(one.title)}</h2>\n{one.body}\n</section>\n'
        for one in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # or the browser asks for /favicon.ico
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="soft">{escape(lead)}</p>\n'
        f'<nav aria-label="Sections">{links}</nav>\n</header>\n<main>\n{parts}</main>\n</body>\n</html>\n'
    )


def paragraph(text: str, *classes: str) -> str:
    """A paragraph of plain text."""
    return f"<p{_class(classes)}>{escape(text)}</p>"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """A table of plain text that scrolls where it is wider than the page; columns behind the first ones are numbers."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{_class(['number'] if column >= text_columns else [])}>{escape(cell)}</{tag}>"
            for column, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>\n" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"<table><caption>{escape(title)}</caption>\n"
        f"<thead><tr>{cells('th', head)}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def data_uri(content: bytes, kind: str) -> str:
    """The file content as an address; `kind` is the part behind `image/`, such as png."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def picture(uri: str, alt: str, size: tuple[int, int] | None = None) -> str:
    """An image; `size` (width, height) in pixels keeps its place on the page free."""
    sides = f' width="{size[0]}" height="{size[1]}"' if size else ""
    return f'<img src="{escape(uri)}" alt="{escape(alt)}"{sides}>'


def responsive_picture(wide: str, narrow: str, alt: str) -> str:
    """An image that has another form on screens of less than 700 px."""
    return (
        f'<div class="plot"><picture><source media="(max-width: 700px)" srcset="{escape(narrow)}">'
        f"{picture(wide, alt)}</picture></div>"
    )


def sheet(uri: str, alt: str, caption: str | None) -> str:
    """A large picture, which scrolls on a narrow screen, with the text below it."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    region = f'<div class="wide sheet" tabindex="0" role="region" aria-label="{escape(alt)}">{picture(uri, alt)}</div>'
    return f"<figure>{region}{below}</figure>"


def verdict(is_right: bool, text: str) -> str:
    """A text marked as right or wrong by sign and colour; the sign stays on the line of the first word."""
    return f'<span class="{"right" if is_right else "wrong"}">{RIGHT if is_right else WRONG}&nbsp;{escape(text)}</span>'


class Found(NamedTuple):
    """A clip that a query found, by rank from 1; `strip` is HTML of its picture."""

    rank: int
    video_id: str
    strip: str


def query(number: int, text: str, own: str, found: Sequence[Found]) -> str:
    """A query with the clips it found; the one whose `video_id` is `own` is marked in words and by a border."""
    items = []
    for clip in found:
        is_own = clip.video_id == own
        label = verdict(True, f"right, rank {clip.rank}") if is_own else f"rank {clip.rank}"
        note = f'<p class="small">{label} <span class="soft">{escape(clip.video_id)}</span></p>'
        items.append(f"<li{_class(['own'] if is_own else [])}>{clip.strip}{note}</li>")
    return f'<h3>{number}. \u201c{escape(text)}\u201d</h3>\n<ul class="found">{"".join(items)}</ul>'


def cards(items: Iterable[str]) -> str:
    """HTML of each item in a frame, as many side by side as there is room for."""
    framed = "".join(f'<article class="card">{item}</article>\n' for item in items)
    return f'<div class="grid">\n{framed}</div>'


def caption_card(
    strip: str, prediction: str, truth: str, named: Sequence[Sequence[tuple[str, bool]]], missed: int
) -> str:
    """A generated caption above a true one.

    Args:
        named: for each thing that the caption names the words that can be checked, each with whether it is right.
        missed: things in the clip that the caption does not name.
    """
    chips = [" ".join(verdict(is_right, word) for word, is_right in thing) for thing in named]
    if missed:
        chips.append(verdict(False, f"{missed} not named"))
    listed = f'<ul class="chips">{"".join(f"<li>{chip}</li>" for chip in chips)}</ul>' if chips else ""
    return (
        f"{strip}<p><strong>{escape(prediction or '(no words)')}</strong></p>{listed}"
        f'<p class="small"><span class="soft">true caption:</span> {escape(truth)}</p>'
    )


def answer_card(strip: str, question: str, prediction: str, answer: str, is_right: bool) -> str:
    """A question with the model's answer and, where they differ, the true one."""
    truth = "" if is_right else f' <span class="soft">true answer:</span> {escape(answer)}'
    mark = verdict(is_right, f"{prediction} ({'right' if is_right else 'wrong'})")
    return f"{strip}<p>{escape(question)}</p><p>{mark}{truth}</p>"


def choice_card(strip: str, options: Sequence[str], answer: int, prediction: int) -> str:
    """Options of which one is true, with the model's choice."""
    items = []
    for number, option in enumerate(options):
        if number == prediction:
            mark = verdict(number == answer, "chosen, right" if number == answer else "chosen, wrong")
        else:
            mark = verdict(True, "the true one") if number == answer else ""
        items.append(f"<li>{escape(option)} {mark}</li>")
    return f'{strip}<ol class="options">{"".join(items)}</ol>'


def _class(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""
