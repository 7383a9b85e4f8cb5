"""Ask Java for PTB tokens or METEOR: the child process of utils/evaluation/caption_metrics.py, which starts Java.

It reads one JSON object from stdin and writes one to stdout:

    {"task": "ptb", "texts": [text]}  ->  {"answer": [tokens separated by spaces]}, in the same order
    {"task": "meteor", "references": {id: [text]}, "predictions": {id: [text]}}  ->  {"answer": score}
    a Java that cannot be started, dies or answers nonsense  ->  {"error": reason}

It sets no time limit: the caller puts it into a process group of its own, Java included, and ends that.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.tokenizer import ptbtokenizer

# Java would read and lower-case text as the user's language says; scores must not depend on it.
JAVA_OPTIONS = "-Dfile.encoding=UTF-8 -Duser.language=en -Duser.country=US"


class JavaError(Exception):
    """Java died or answered nonsense; the message says what is known."""


def main(argv: Sequence[str] | None = None) -> int:
    """Answer the request on stdin; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    os.environ["JAVA_TOOL_OPTIONS"] = f"{os.environ.get('JAVA_TOOL_OPTIONS', '')} {JAVA_OPTIONS}"
    request = json.load(sys.stdin)
    tasks: dict[str, Callable[..., Any]] = {"ptb": ptb_tokens, "meteor": meteor}
    try:
        reply = {"answer": tasks[request.pop("task")](**request)}
    except (OSError, JavaError) as error:
        reply = {"error": str(error)}
    json.dump(reply, sys.stdout)
    return 0


def ptb_tokens(texts: Sequence[str]) -> list[str]:
    """Tokens of each text, separated by spaces, as pycocoevalcap's PTBTokenizer gives them.

    That class writes into its package's folder, which may be read-only; this is its command with the file elsewhere.

    Args:
        texts: without line breaks.

    Raises:
        JavaError: there is not one line for each text.
    """
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    with tempfile.NamedTemporaryFile() as file:
        file.write("".join(f"{text}\n" for text in texts).encode())
        file.flush()
        done = subprocess.run([*command, file.name], stdin=subprocess.DEVNULL, capture_output=True)
    lines = done.stdout.decode(errors="replace").split("\n")[:-1]
    if done.returncode or len(lines) != len(texts):
        found = f"java's PTB tokenizer ended with exit code {done.returncode} and {len(lines)} of {len(texts)} lines"
        raise JavaError(found + last_words(done.stderr))
    return [" ".join(word for word in line.split(" ") if word not in ptbtokenizer.PUNCTUATIONS) for line in lines]


def meteor(references: Mapping[str, Sequence[str]], predictions: Mapping[str, Sequence[str]]) -> float:
    """METEOR 1.5 of the corpus, as a fraction.

    Args:
        references: texts by video id, without line breaks and without `|||`.
        predictions: the same of one text each.

    Raises:
        JavaError: Java died, or what it says is no score.
    """
    scorer = Meteor()
    scorer.lock = threading.RLock()  # its own, still held after a failure, would keep its destructor waiting for ever
    try:
        score = scorer.compute_score(references, predictions)[0]
        if not math.isfinite(score):
            raise ValueError(f"the score is {score}")
    except (OSError, ValueError) as error:
        os.set_blocking(scorer.meteor_p.stderr.fileno(), False)  # a Java that lives on need not have closed it
        raise JavaError(f"java gave no METEOR scores ({error})" + last_words(scorer.meteor_p.stderr.read())) from None
    return score


def last_words(stderr: bytes | None) -> str:
    """The last line of an error output, as the end of a message."""
    lines = (stderr or b"").decode(errors="replace").strip().splitlines()
    return f": {lines[-1].strip()}" if lines else ""


if __name__ == "__main__":
    sys.exit(main())
