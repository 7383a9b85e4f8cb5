"""The README.md of an exported model: what it is, how it scores and how it is used."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any, NamedTuple

from modules.config import Behaviour, ModelConfig

TEMPLATE = Template("""\
---
library_name: stoa-vlp
license: unknown # fill in: an identifier such as mit
tags:
- stoa-vlp
- video-language
$tags---

# STOA-VLP, $title

A video-language model: a CLIP that also reads objects, their trajectories and actions
([paper](https://arxiv.org/abs/2302.09736)).

- Task: $task
- Data: $data
- Trained for: $steps
- Licence: *to be filled in, here and in the first lines of this file*

## Scores

$scores

## Use

In the root of the code's repository, in Python. `THIS_FOLDER` is where these files are, or `hf-hub:OWNER/NAME` once
they are on the Hugging Face hub.

```python
from utils.predictor import Predictor

predictor = Predictor("THIS_FOLDER")
$python
```

On the command line:

```bash
$shell
```

`--init_model THIS_FOLDER` fine-tunes or evaluates it. $objects

## Model

Behaviour: $behaviour. Parameters: $parameters, stored as $dtype. How clips are read is in `config.json`.

| size | value |
|---|---|
$sizes
""")
PREDICT = "python tasks/predict.py {} --checkpoint THIS_FOLDER"
MATCH = (
    'print(predictor.match(["clip.mp4"], ["a dog runs", "a cat sleeps"]))',
    PREDICT.format('match clip.mp4 --text "a dog runs" --text "a cat sleeps"'),
)
SEARCH = (MATCH[0], PREDICT.format('search VIDEOS --query "a dog runs"'))
USES = {  # in Python and on the command line, by task
    "caption": ('print(predictor.caption(["clip.mp4"]))', PREDICT.format("caption clip.mp4")),
    "qa": (
        'print(predictor.answer("clip.mp4", ["what is the dog doing"]))',
        PREDICT.format('answer clip.mp4 --question "what is the dog doing"'),
    ),
    "retrieval": SEARCH,
    "mc": (MATCH[0], "python tasks/eval_mc.py --do_eval --init_model THIS_FOLDER --output_dir OUTPUT"),
    "pretrain": SEARCH,
}
TITLES = {
    "caption": "video captioning",
    "qa": "video question answering",
    "retrieval": "text-video retrieval",
    "mc": "multiple choice on videos",
    "pretrain": "pre-training",
}
TAGS = {"caption": "video-captioning", "qa": "video-question-answering", "retrieval": "text-video-retrieval"}
NAME = re.compile(r"[\w@.-]+")


class Score(NamedTuple):
    """A metric of a split."""

    split: str
    metric: str
    value: float


def model_card(config: Mapping[str, Any], model: ModelConfig, parameters: int, scores: Sequence[Score]) -> str:
    """Text of the README.md.

    Args:
        config: content of config.json.
        model: sizes; its answers are counted, not listed.
        parameters: numbers of the model.
        scores: measured on just this checkpoint.
    """
    task, released = config["task"], config["behaviour"] == dataclasses.asdict(Behaviour.preset("released"))
    python, shell = USES.get(task, MATCH)
    return TEMPLATE.substitute(
        title=TITLES.get(task, "a released checkpoint" if released else "a model"),
        tags=f"- {TAGS[task]}\n" if task in TAGS else "",
        task=TITLES.get(task, "*to be filled in*"),
        data=config["data"] or "*to be filled in*",
        steps=f"{config['global_step']} updates" if config["global_step"] else "*to be filled in*",
        scores=_table(scores),
        python=python,
        shell=shell,
        objects="Give `object_path`, a folder of object files, to let it see objects." if model.need_object else "",
        behaviour=_behaviour(config["behaviour"]),
        parameters=f"{parameters:,}",
        dtype=config["dtype"],
        sizes="\n".join(f"| {name} | {value} |" for name, value in _sizes(model).items()),
    )


def _table(scores: Sequence[Score]) -> str:
    if not scores:
        return "*None are known of this checkpoint.*"
    rows = [f"| {score.split} | {score.metric} | {score.value:.4g} |" for score in scores]
    return "\n".join(["| split | metric | value |", "|---|---|---|", *rows])


def _sizes(model: ModelConfig) -> dict[str, Any]:
    values = {**dataclasses.asdict(model), "answers": len(model.answers)}
    return {name: value for name, value in values.items() if value is not None}


def _behaviour(saved: Mapping[str, Any]) -> str:
    for name in ("intended", "released"):
        if saved == dataclasses.asdict(Behaviour.preset(name)):
            return name
    return ", ".join(f"{name} {value}" for name, value in saved.items())


def scores_of(split: Any, metrics: Any) -> list[Score]:
    """The numbers among the metrics of a split, as a file has them."""
    if not isinstance(metrics, Mapping) or not isinstance(split, str) or not NAME.fullmatch(split):
        return []
    return [
        Score(split, name, value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and NAME.fullmatch(name)
    ]
