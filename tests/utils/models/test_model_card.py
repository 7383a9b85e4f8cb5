"""The README.md of an exported model."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from tasks import predict
from tests.utils.checkpoints import released_state
from tests.utils.models.exporting import MODELS, write_run
from tests.videos import write_noise
from tests.world import ROOT
from utils.models.export import export
from utils.models.model_card import Score, scores_of

TITLES = ("pre-training", "retrieval", "captioning", "question answering", "multiple choice")


@pytest.mark.parametrize(("datatype", "title"), list(zip(MODELS, TITLES, strict=True)))
def test_a_card_says_what_a_model_is_and_its_lines_run(
    tmp_path: Path, datatype: str, title: str, capsys: pytest.CaptureFixture[str]
):
    export(write_run(tmp_path / "run", datatype), tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\nlibrary_name: stoa-vlp\nlicense: unknown # fill in") and "$" not in card
    assert title in card and "Behaviour: intended" in card and "| vision_width | 64 |" in card
    assert ("- Data: msrvtt\n" in card) == (datatype != "pretrain") and "7 updates" in card
    code, shell = (card.split(f"```{kind}\n")[1].split("```")[0] for kind in ("python", "bash"))
    assert len([line for line in code.splitlines() if line]) == 3 and "THIS_FOLDER" in shell
    (tmp_path / "videos").mkdir()
    write_noise(tmp_path / "videos" / "a.avi", "MJPG", 40)
    places = {"THIS_FOLDER": "out", "clip.mp4": "videos/a.avi", "VIDEOS": "videos"}
    for word, place in places.items():
        code, shell = code.replace(word, str(tmp_path / place)), shell.replace(word, str(tmp_path / place))
    exec(code, {})
    assert capsys.readouterr().out.strip()
    python, script, *words = shlex.split(shell)
    assert python == "python" and (ROOT / script).is_file()
    if script == "tasks/predict.py":
        assert predict.main([*words, "--device", "cpu"]) == 0 and capsys.readouterr().out.strip()


def test_the_card_of_a_released_checkpoint_says_so(tmp_path: Path):
    torch.save(released_state(), tmp_path / "stoa.bin")
    export(tmp_path / "stoa.bin", tmp_path / "out", "bf16")
    card = (tmp_path / "out/README.md").read_text()
    assert "a released checkpoint" in card and "Behaviour: released" in card and "stored as bf16" in card
    assert card.count("*to be filled in*") == 3


def test_scores_are_the_numbers_among_metrics():
    found = scores_of("test", {"R@1": 3, "x": None, "is": True, "a|b": 2.0, "deep": {"y": 1.0}, "loss": 0.5})
    assert found == [Score("test", "R@1", 3), Score("test", "loss", 0.5)]
    for split, metrics in (("a\nb", {"x": 1}), (None, {"x": 1}), ("test", [1]), ("test", None)):
        assert scores_of(split, metrics) == []
