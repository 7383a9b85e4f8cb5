"""The command that compares captions with the truth of the demo world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.utils.demo.test_scoring import TRUTH
from utils.demo_score import main


def test_command_writes_the_scores_beside_the_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "truth.json").write_text(json.dumps({"videos": TRUTH}))
    predictions = [{"video_id": "b", "prediction": "a blue ring is resting", "references": []}]
    (tmp_path / "predictions.json").write_text(json.dumps(predictions))
    assert main([str(tmp_path / "predictions.json"), str(tmp_path / "truth.json")]) == 0
    assert json.loads((tmp_path / "truth_scores.json").read_bytes())["exact"] == 100
    assert "exact" in capsys.readouterr().out
    (tmp_path / "truth.json").write_text(json.dumps({"videos": {}}))
    assert main([str(tmp_path / "predictions.json"), str(tmp_path / "truth.json")]) == 1
    assert "KeyError('b')" in capsys.readouterr().err
