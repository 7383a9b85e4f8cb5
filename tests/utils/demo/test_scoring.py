"""Captions against the truth of the demo world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from utils.demo.scoring import mentions, score, true_words
from utils.demo.wording import captions
from utils.demo.world import sample_scene

DOG = {"color": "red", "shape": "star", "motion": "drifting"}
CAT = {"color": "blue", "shape": "ring", "motion": "resting"}
TRUTH = {"a": {"objects": [DOG, CAT]}, "b": {"objects": [CAT]}}


def scored(**texts: str) -> dict[str, float]:
    return score([{"video_id": name, "prediction": text} for name, text in texts.items()], TRUTH)


@pytest.mark.parametrize("seed", range(20))
def test_every_caption_of_a_scene_is_exact(seed: int):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, 1 + seed % 3)
    truth = {"v": {"objects": [thing._asdict() for thing in scene]}}
    for text in captions(scene, rng, 8):
        result = score([{"video_id": "v", "prediction": text.replace(",", " ,")}], truth)
        assert result["exact"] == result["color"] == result["shape"] == result["motion"] == 100
        assert result[f"exact_{len(scene)}"] == 100 and result["invented"] == 0


def test_mentions_take_the_words_around_each_shape():
    text = "a red star is drifting while a ring is resting and there is a green"
    assert mentions(text) == [DOG, {"shape": "ring", "motion": "resting"}]
    assert mentions("") == mentions("a dog runs") == []


def test_wrong_attributes_are_counted_where_they_are_named():
    result = scored(a="a red star is resting and a blue ring is resting", b="a blue ring is resting")
    assert (result["color"], result["shape"], result["motion"]) == (100, 100, pytest.approx(200 / 3))
    assert (result["exact"], result["exact_1"], result["exact_2"]) == (50, 100, 0)
    assert result["invented"] == 0 and result["clips"] == 2


def test_things_beyond_those_there_are_invented_and_wrong():
    result = scored(b="a blue ring is resting and a red star is drifting")
    assert result["invented"] == 1 and result["exact"] == 0
    assert result["color"] == result["shape"] == result["motion"] == 50


def test_missing_things_are_not_exact_but_nothing_named_is_wrong():
    result = scored(a="a blue ring is resting")
    assert result["color"] == 100 and result["exact"] == 0 and result["invented"] == 0
    assert scored(a="")["exact"] == 0


def test_true_words_of_each_video(tmp_path: Path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"videos": TRUTH}))
    assert true_words(path) == {
        "a": ({"star", "ring"}, {"drifting", "resting"}),
        "b": ({"ring"}, {"resting"}),
    }


@pytest.mark.parametrize("content", ["[]", "{}", '{"videos": {"a": {}}}', '{"videos": {"a": {"objects": [1]}}}'])
def test_another_truth_is_named(tmp_path: Path, content: str):
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"truth.json is not the truth of a demo world"):
        true_words(path)
