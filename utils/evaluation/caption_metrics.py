"""Caption scores of a corpus: BLEU, METEOR, ROUGE-L and CIDEr by pycocoevalcap, with and without Java.

METEOR and the PTB tokenizer are Java programs. They run in a child process with a time limit, and where they cannot be
had the result says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any, Literal

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

from modules.tokenizer import ClipTokenizer

Protocol = Literal["field", "released"]
NO_JAVA = "java not found on PATH; install a Java runtime, for example apt-get install default-jre-headless on Debian"
PTB, PYTHON, AS_GIVEN = "PTB", "python (PTB-like)", "none"
JAVA_SCORERS = Path(__file__).with_name("java_scorers.py")
IDS_IN_MESSAGE = 5

CURLY_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "…": "..."})
BRACKETS = dict(zip("()[]{}", ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), strict=True))
CLITIC = re.compile(r"(?<=[^\W\d_])(n't)\b|(?<=\w)('(?:s|m|d|re|ve|ll))\b")
COMPOUND = re.compile(r"\b(can)(not)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b|\b(gim|lem)(me)\b")
TOKEN = re.compile(
    r"""
      (?:https?://|www\.)\S+ | [\w.+-]+@\w[\w.-]*\w    # addresses
    | n't\b | '(?:s|m|d|re|ve|ll)\b                    # clitics, which CLITIC has set apart
    | (?:[^\W\d_]\.){2,}                               # u.s.
    | \b(?:mr|mrs|ms|dr|st|vs|jr|sr|etc|inc|co)\.      # abbreviations
    | \#?\w+(?:(?:[-'/]+|[.,:](?=\d)|\.(?=\w))\w+)*   # words, also t-shirt, o'clock, and/or, 5.50, 10:30
    | [?!]+ | \.{2,} | -+                              # runs
    | \S
    """,
    re.VERBOSE,
)


class JavaFailure(Exception):
    """Java is missing, died, answered nonsense or took too long; the message says which."""


@dataclass(frozen=True)
class CaptionScores:
    """Scores of one corpus under one protocol.

    Attributes:
        scores: Bleu_1 to Bleu_4, METEOR, ROUGE_L and CIDEr, those that could be computed, as fractions.
        tokenizer: "PTB" (Java), "python (PTB-like)", or "none" under the released protocol.
        missing: why a metric or the "PTB tokenizer" could not be had, by its name.
        cider_by_video: CIDEr of each video id; the corpus has their mean.
    """

    scores: dict[str, float]
    tokenizer: str
    missing: dict[str, str]
    cider_by_video: dict[str, float]


def caption_scores(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    protocol: Protocol,
    *,
    max_words: int,
    timeout: float = 600.0,
) -> CaptionScores:
    """Score one caption per video against its references.

    Protocol "field" is what papers report: whole references, both sides through the PTB tokenizer. "released" is what
    the released code computes: references cut to `max_words` and decoded again from CLIP's pieces, and no further
    tokenizer on either side, so its figures compare with its own only.

    CIDEr weighs words by how few videos have them, so it is 0 for a single video. ROUGE-L is 1 where a prediction and
    one of its references are both left without a word, as pycocoevalcap has it; all else is 0 for an empty prediction.

    Args:
        predictions: a caption by video id, possibly empty; under "released" the decoded CLIP pieces.
        references: captions by video id, at least one each.
        max_words: places for CLIP pieces, with the start and the end; read under "released" only.
        timeout: seconds that Java may take altogether.

    Raises:
        ValueError: there are no videos, the two sides differ in their videos, a video has no reference, or no reference
            has a word.
    """
    _check_videos(predictions, references)
    java = _Java(timeout)
    if protocol == "released":
        references = _cut_references(references, max_words)
        tokenizer = AS_GIVEN
        tokens = {video: [_one_line(text)] for video, text in predictions.items()}
        reference_tokens = {video: list(map(_one_line, references[video])) for video in predictions}
    else:
        tokenizer, tokens, reference_tokens = _tokenized(predictions, references, java)
    if not any(text for texts in reference_tokens.values() for text in texts):
        raise ValueError("no reference of any video has a word")
    bleu = Bleu(4).compute_score(reference_tokens, tokens, verbose=0)[0]
    cider, cider_each = Cider().compute_score(reference_tokens, tokens)
    scores = {
        **{f"Bleu_{n}": score for n, score in enumerate(bleu, 1)},
        **java.meteor(reference_tokens, tokens),
        "ROUGE_L": Rouge().compute_score(reference_tokens, tokens)[0],
        "CIDEr": cider,
    }
    return CaptionScores(
        {name: float(score) for name, score in scores.items()},
        tokenizer,
        java.missing,
        dict(zip(tokens, map(float, cider_each), strict=True)),
    )


def python_ptb_tokens(text: str) -> str:
    """Tokens of a text, separated by spaces, close to those of the PTB tokenizer without its punctuation.

    It differs in rare cases: abbreviations it does not know, apostrophes at the start of a word, unusual signs.
    """
    text = CLITIC.sub(r" \g<0>", text.translate(CURLY_QUOTES).lower().replace('"', " "))
    text = COMPOUND.sub(lambda match: " ".join(filter(None, match.groups())), text)
    words = (BRACKETS.get(word, word) for word in TOKEN.findall(text))
    return " ".join(word for word in words if word not in PUNCTUATIONS and not re.fullmatch(r"\.{2,}|-+", word))


def _check_videos(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError unless both have the same videos, at least one, each with at least one reference."""
    if not predictions and not references:
        raise ValueError("no captions to score: there are no videos")
    for problem, videos in (
        ("have a prediction and no references", predictions.keys() - {v for v, texts in references.items() if texts}),
        ("have references and no prediction", references.keys() - predictions.keys()),
    ):
        if videos:
            listed = ", ".join(sorted(videos)[:IDS_IN_MESSAGE]) + (", …" if len(videos) > IDS_IN_MESSAGE else "")
            raise ValueError(f"{len(videos)} videos {problem}: {listed}")


def _one_line(text: str) -> str:
    """The text with single spaces: a line is a caption to Java, and ROUGE-L counts each space."""
    return " ".join(text.split())


def _cut_references(references: Mapping[str, Sequence[str]], max_words: int) -> dict[str, list[str]]:
    """Each reference as the released loader leaves it: at most max_words-2 pieces, lower case, signs set apart."""
    clip = ClipTokenizer()
    return {
        video: [clip.decode(clip.to_tensor_ids(text, max_words)[0]) for text in texts]
        for video, texts in references.items()
    }


def _tokenized(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], java: _Java
) -> tuple[str, dict[str, list[str]], dict[str, list[str]]]:
    """The tokenizer that was there, and its tokens of predictions (one each) and references, by video."""
    texts = [*predictions.values(), *(text for video in predictions for text in references[video])]
    tokens = java.ptb([_one_line(text) for text in texts])
    rest = iter(tokens if tokens is not None else map(python_ptb_tokens, texts))
    return (
        PYTHON if tokens is None else PTB,
        {video: [next(rest)] for video in predictions},
        {video: [next(rest) for _ in references[video]] for video in predictions},
    )


class _Java:
    """Requests to Java within one time limit.

    Attributes:
        missing: reasons why there is no answer, by what is missing.
    """

    def __init__(self, timeout: float) -> None:
        self.missing: dict[str, str] = {}
        self._timeout = self._left = timeout

    def ptb(self, texts: Sequence[str]) -> list[str] | None:
        """PTB tokens of each text, separated by spaces."""
        return self._ask("PTB tokenizer", task="ptb", texts=texts)

    def meteor(self, references: Mapping[str, Sequence[str]], tokens: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """{"METEOR": score}, or nothing."""
        sides = {
            # METEOR would read what stands between bars as one more caption.
            name: {video: [re.sub(r"\|{3,}", " ", text) for text in texts] for video, texts in side.items()}
            for name, side in (("references", references), ("predictions", tokens))
        }
        score = self._ask("METEOR", task="meteor", **sides)
        return {} if score is None else {"METEOR": score}

    def _ask(self, name: str, **request: Any) -> Any:
        """The answer to a request, or None and an entry in `missing`."""
        started = time.monotonic()
        try:
            return self._child(request)
        except JavaFailure as failure:
            self.missing[name] = str(failure)
            return None
        finally:
            self._left -= time.monotonic() - started

    def _child(self, request: dict[str, Any]) -> Any:
        """The answer of a child process, which is gone afterwards, and its Java with it."""
        if shutil.which("java") is None:
            raise JavaFailure(NO_JAVA)
        if self._left <= 0:
            raise JavaFailure(f"not started: java had used up its {self._timeout:g} s")
        command = [sys.executable, str(JAVA_SCORERS)]
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True) as child:
            try:
                output, errors = child.communicate(json.dumps(request).encode(), self._left)
            except subprocess.TimeoutExpired:
                raise JavaFailure(f"java took longer than {self._timeout:g} s") from None
            finally:
                with suppress(ProcessLookupError):  # nobody is left of it
                    os.killpg(child.pid, signal.SIGKILL)
        if child.returncode:
            last_line = (errors.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise JavaFailure(f"{JAVA_SCORERS.name} ended with exit code {child.returncode}: {last_line}")
        reply = json.loads(output)
        if "error" in reply:
            raise JavaFailure(reply["error"])
        return reply["answer"]
