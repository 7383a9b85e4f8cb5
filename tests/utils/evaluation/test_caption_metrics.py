"""Caption scores with Java, without it, and with a Java that misbehaves."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataloaders.datasets.msvd import read_split
from utils.evaluation.caption_metrics import CaptionScores, caption_scores, python_ptb_tokens

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no java on PATH")
JAVA_FREE = {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"}
ALL = JAVA_FREE | {"METEOR"}
REFERENCES = {
    "v1": ["A man is playing the guitar on stage.", "Someone plays a guitar."],
    "v2": ["The dog doesn't run.", "A dog sits in the grass!", "a brown dog"],
}
PREDICTIONS = {"v1": "a man is playing the guitar on stage", "v2": "a dog runs in the grass"}
PTB_EXAMPLES = {
    "A man didn't see the dog's bowl.": "a man did n't see the dog 's bowl",
    'He said: "hi!" -- it\'s $5.50, 50% off...': "he said hi it 's $ 5.50 50 % off",
    # Upper case -LRB- is on the list of punctuation, but the tokenizer writes it in lower case: brackets stay.
    "A well-known T-shirt (red) & a 3/4 cup": "a well-known t-shirt -lrb- red -rrb- & a 3/4 cup",
    "You cannot, and we're gonna wait?!": "you can not and we 're gon na wait ?!",
    "At 10:30 a.m. Mr. Smith's e-mail, foo@bar.com": "at 10:30 a.m. mr. smith 's e-mail foo@bar.com",
    "The man’s café “quoted” text…": "the man 's café quoted text",
    "dogs' bowls, no. no. the U.S. team I'd": "dogs bowls no no the u.s. team i 'd",
    "o'clock and/or #tag [x] * _": "o'clock and/or #tag -lsb- x -rsb- * _",
    "x ||| y": "x | | | y",
    "": "",
    ". ! '": "",
}


def score(
    predictions: dict[str, str] = PREDICTIONS,
    references: dict[str, list[str]] = REFERENCES,
    protocol="field",
    **options,
) -> CaptionScores:
    """Scores of the small corpus or another one."""
    return caption_scores(predictions, references, protocol, **{"max_words": 20, "timeout": 60, **options})


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


class FakeJava:
    """A shell script that is called java; each that runs says so in a pipe and holds its end of it."""

    def __init__(self, folder: Path, script: str) -> None:
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        self._pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        (folder / "java").write_text(f"#!/bin/sh\nexec 9>{pipe}\necho started >&9\n{script}\n")
        (folder / "java").chmod(0o755)

    def starts_once_all_have_ended(self) -> int:
        """How many were started; fails where one, or a child of one, does not let go of the pipe."""
        said = b""
        while select.select([self._pipe], [], [], 20)[0]:
            part = os.read(self._pipe, 1000)
            if not part:
                return said.count(b"started")
            said += part
        raise AssertionError("a Java is still running")

    def close(self) -> None:
        os.close(self._pipe)


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], FakeJava]]:
    """Puts a java of the given shell script before all others."""
    made: list[FakeJava] = []

    def make(script: str) -> FakeJava:
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        made.append(FakeJava(tmp_path, script))
        return made[0]

    yield make
    for java in made:
        java.close()


def msvd_first_caption(shared: Path) -> tuple[dict[str, str], dict[str, list[str]], dict[str, float]]:
    """First caption and other captions of each MSVD test video, and their known scores."""
    split = read_split(shared / "realdata/msvd", "test")
    captions: dict[str, list[str]] = {video_id: [] for video_id in split.video_ids}
    for video, caption in zip(split.caption_video.tolist(), split.captions, strict=True):
        captions[split.video_ids[video]].append(caption)
    first = {video_id: texts[0] for video_id, texts in captions.items()}
    others = {video_id: texts[1:] for video_id, texts in captions.items()}
    return first, others, json.loads((shared / "golden/msvd-first-caption.json").read_text())["scores"]


@pytest.mark.slow
@needs_java
def test_scores_of_msvd_are_the_known_ones(shared: Path):
    first, others, expected = msvd_first_caption(shared)
    result = caption_scores(first, others, "field", max_words=30)
    assert result.scores == pytest.approx(expected, abs=1e-4)
    assert (result.tokenizer, result.missing) == ("PTB", {})
    assert sum(result.cider_by_video.values()) / len(first) == pytest.approx(expected["CIDEr"], abs=1e-4)


@pytest.mark.slow
def test_without_java_scores_of_msvd_are_close(shared: Path, no_java: None):
    first, others, expected = msvd_first_caption(shared)
    scores = caption_scores(first, others, "field", max_words=30).scores
    assert scores == pytest.approx({name: expected[name] for name in JAVA_FREE}, abs=0.005)


def test_without_java_the_rest_is_scored_and_what_is_missing_is_named(no_java: None):
    result = score()
    assert set(result.scores) == JAVA_FREE
    assert result.tokenizer == "python (PTB-like)"
    assert set(result.missing) == {"METEOR", "PTB tokenizer"}
    assert all("java not found" in why and "default-jre-headless" in why for why in result.missing.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "limit", "starts", "ptb", "meteor"),
    [
        ("sleep 600 & exec sleep 600", 3, 1, "java took longer than 3 s", "java had used up its 3 s"),
        ("echo no heap >&2; exit 1", 60, 2, "exit code 1 and 0 of 7 lines: no heap", "java gave no METEOR scores"),
        ("echo garbage; while read line; do echo garbage; done", 60, 2, "0 and 1 of 7 lines", "'garbage"),
        ("sleep 600 >&9 2>&9 & while read l; do echo nan; echo nan; done", 60, 2, "0 of 7 lines", "the score is nan"),
    ],
    ids=["hangs, as does its child", "dies", "garbage", "no number, and leaves a child"],
)
def test_a_bad_java_is_reported_and_none_is_left(
    fake_java, script: str, limit: int, starts: int, ptb: str, meteor: str
):
    java = fake_java(script)
    began = time.monotonic()
    result = score(timeout=limit)
    assert time.monotonic() - began < 50
    assert java.starts_once_all_have_ended() == starts
    assert set(result.scores) == JAVA_FREE
    assert result.tokenizer == "python (PTB-like)"
    assert ptb in result.missing["PTB tokenizer"]
    assert meteor in result.missing["METEOR"]


def test_a_java_that_cannot_be_run_is_reported(no_java: None, tmp_path: Path):
    (tmp_path / "java").write_text("#!/nowhere/sh\n")
    (tmp_path / "java").chmod(0o755)
    missing = score().missing
    assert set(missing) == {"METEOR", "PTB tokenizer"}
    assert all("No such file" in why for why in missing.values())


def test_released_protocol_cuts_references_and_takes_signs_as_words(no_java: None):
    references = {"v": ["A man, who didn't stop, plays the piano!"]}
    cut = {"v": "a man , who didn 't"}  # 6 pieces, start and end
    released = score(cut, references, "released", max_words=8)
    assert released.scores["Bleu_4"] == pytest.approx(1, abs=1e-6)
    assert released.scores["ROUGE_L"] == 1
    assert (released.tokenizer, set(released.missing)) == ("none", {"METEOR"})
    assert score(cut, references, "released", max_words=9).scores["Bleu_4"] < 0.9
    assert score(cut, references, "field", max_words=8).scores["ROUGE_L"] < 0.7
    whole = {"v": "a man who didn't stop plays the piano"}
    assert score(whole, references, "field", max_words=8).scores["Bleu_4"] == pytest.approx(1, abs=1e-6)
    assert score(whole, references, "released", max_words=20).scores["Bleu_4"] < 0.5


@pytest.mark.slow
@needs_java
def test_released_protocol_has_meteor_and_no_ptb_tokenizer():
    predictions = {"v1": "a man ||| plays\n the guitar |||||", "v2": "a dog runs"}
    references = {"v1": ["a cat", "A man ||| plays the guitar |||||"], "v2": ["A dog\r\nruns"]}
    result = score(predictions, references, "released")
    assert set(result.scores) == ALL
    assert result.scores["METEOR"] == pytest.approx(1)
    assert (result.tokenizer, result.missing) == ("none", {})


def test_a_perfect_prediction_scores_1(no_java: None):
    scores = score({video: texts[0] for video, texts in REFERENCES.items()}).scores
    for name in JAVA_FREE - {"CIDEr"}:
        assert scores[name] == pytest.approx(1, abs=1e-6), name


@pytest.mark.slow
@needs_java
def test_an_empty_prediction_scores_0_and_line_breaks_separate_words_only():
    result = score({"v": ""}, {"v": ["a man\nis ||| playing\r\nthe guitar\u2028on\x85stage|||||", "a guitar"]})
    assert (result.tokenizer, result.missing) == ("PTB", {})
    assert result.scores == dict.fromkeys(ALL, 0)


@pytest.mark.parametrize("protocol", ["field", "released"])
def test_an_empty_prediction_among_others_takes_nothing_from_them(no_java: None, protocol):
    result = score({**PREDICTIONS, "v2": ""}, protocol=protocol)
    assert result.cider_by_video == {"v1": score(protocol=protocol).cider_by_video["v1"], "v2": 0}
    assert all(0 < result.scores[name] < 1 for name in JAVA_FREE - {"CIDEr"})


def test_cider_of_one_video_is_0(no_java: None):
    result = score({"v1": PREDICTIONS["v1"]}, {"v1": REFERENCES["v1"]})
    assert result.scores["CIDEr"] == 0 and result.cider_by_video == {"v1": 0}
    assert result.scores["Bleu_1"] == pytest.approx(1)


def test_cider_by_video_is_by_id_in_any_order(no_java: None):
    forth, back = score(), score(references=dict(reversed(REFERENCES.items())))
    assert forth == back
    assert forth.scores["CIDEr"] == pytest.approx(sum(forth.cider_by_video.values()) / 2)
    assert forth.cider_by_video["v1"] > forth.cider_by_video["v2"]


def test_videos_that_do_not_fit_are_errors(no_java: None):
    with pytest.raises(ValueError, match="1 videos have a prediction and no references: v3"):
        score({**PREDICTIONS, "v3": "a cat"})
    with pytest.raises(ValueError, match="1 videos have a prediction and no references: v2"):
        score(references={**REFERENCES, "v2": []})
    with pytest.raises(ValueError, match="1 videos have references and no prediction: v2"):
        score({"v1": "a man"})
    with pytest.raises(ValueError, match="7 videos have references and no prediction: x0, x1, x2, x3, x4, …"):
        score(references={**REFERENCES, **{f"x{index}": ["a cat"] for index in range(7)}})
    with pytest.raises(ValueError, match="there are no videos"):
        score({}, {})
    with pytest.raises(ValueError, match="no reference of any video has a word"):
        score({"v1": "a man"}, {"v1": ["", "..."]})


def test_tokens_of_the_python_tokenizer():
    assert {text: python_ptb_tokens(text) for text in PTB_EXAMPLES} == PTB_EXAMPLES


def test_the_import_brings_no_torch():
    code = (
        "import sys, utils.evaluation.caption_metrics; sys.exit('torch' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0
