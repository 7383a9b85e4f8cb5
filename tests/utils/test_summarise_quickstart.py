"""The table and summary.json that end the quickstart."""

import json
from pathlib import Path

import pytest

from utils.summarise_quickstart import main

METRICS = [f"{way}_{name}" for way in ("t2v", "v2t") for name in ("R1", "R5", "R10", "MedianR")]
ZERO_SHOT = {"pairs": 50, "skipped": [], **dict.fromkeys(METRICS, 10.0)}


def write_run(folder: Path, *lines: dict) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_summary_has_last_evaluation_and_both_ends_of_each_loss(tmp_path: Path, capsys):
    write_run(
        tmp_path / "pretrain",
        {"kind": "train", "step": 20, "vtm": 0.7, "mlm": 9.0, "contrastive": 3.0},
        {"kind": "evaluation", "step": 20, **ZERO_SHOT, "t2v_R1": 1.0},
        {"kind": "train", "step": 40, "vtm": 0.6, "mlm": 2.0, "contrastive": 0.5},
        {"kind": "evaluation", "step": 40, **ZERO_SHOT},
    )
    (tmp_path / "seconds.tsv").write_text("setup\t3\nrender\t40\n")
    assert main([str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["pretrain"]["zero_shot"]["t2v_R1"] == 10.0
    assert summary["pretrain"]["losses"]["mlm"] == [9.0, 2.0] and summary["pretrain"]["steps"] == 40
    assert summary["seconds"] == {"setup": 3, "render": 40, "total": 43}
    out = capsys.readouterr().out
    assert "50 held-out clips (chance R1 2.0 %)" in out and "mlm             9.000 ->    2.000" in out


def test_run_without_evaluation_is_an_error(tmp_path: Path):
    write_run(tmp_path / "pretrain", {"kind": "train", "step": 20, "vtm": 0.7})
    with pytest.raises(ValueError, match="no evaluation line"):
        main([str(tmp_path)])
