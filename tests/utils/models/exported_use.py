"""What the Predictor says of a clip with an exported model, for a process of its own: `python -m ... WORK.json`.

WORK.json is a list of [task, checkpoint, video, folder of object files]; the outputs are printed as JSON, numbers with
every bit of theirs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from modules.beam_search import SearchSettings
from utils.predictor import Predictor

TEXTS = ["a dog runs", "two men sing"]


def outputs(task: str, checkpoint: str | Path, video: str, objects: str, **flags: Any) -> list[Any]:
    """All that a checkpoint of a task can say of a video."""
    own = {"object_path": objects, "device": "cpu", "precision": "fp32", **flags}
    predictor = Predictor(checkpoint, **own)
    if task == "qa":
        [answer] = predictor.answer(video, ["what is it?"], top=4)
        return [answer.answer, answer.probability.hex(), [[text, value.hex()] for text, value in answer.others]]
    said: list[Any] = []
    if task in ("caption", "pretrain"):
        said.append(predictor.caption([video], SearchSettings(2, 6))[video])
    frames = predictor.encode([video]).tokens.frames
    said.append([value.hex() for value in frames.flatten().tolist()])
    for match in predictor.match([video], TEXTS):
        said.append([match.text, match.similarity.hex(), match.probability and match.probability.hex()])
    return said


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([outputs(*line) for line in json.loads(Path(sys.argv[1]).read_bytes())]))
