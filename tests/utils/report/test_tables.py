"""The results with their units and what chance would give."""

from __future__ import annotations

import pandas as pd

from tests.utils.report.quickstart import section, text
from utils.report.tables import ablation_section


def test_results_have_units_and_baselines(html: str):
    shown = text(section(html, "results"))
    assert "pretrain, zero-shot text to video 40.0 % 90.0 % 100.0 % 2.0" in shown
    assert "retrieval, fine-tuned text to video 70.0 % 90.0 % 100.0 % 2.0" in shown
    assert "chance either way 10.0 % 50.0 % 100.0 % 5.5" in shown
    assert "multiple choice: right answers 89.5 % 20.0 % (chance, 5 options) 10 questions" in shown
    assert "question answering: right answers 62.5 % 6.2 % (the most frequent answer) 20 questions" in shown
    assert "captioning: CIDEr (0 to 10) 4.250 \u2013 10 clips" in shown and "captions all true and complete" in shown
    assert "pretrain: things whose trajectory gets their noun 88.5 % 30.0 % (chance) 10 clips" in shown
    assert "pretrain: motions that action queries name, F1 77.2 % 23.5 % (chance) 10 clips" in shown
    assert "setup 3, total 3" in shown


def test_an_ablation_has_a_table_for_each_task():
    frame = pd.DataFrame([{"row": "base", "right": "50.0"}])
    made = ablation_section([("Questions", frame), ("Captions", frame)], "how to read it")
    assert (made.anchor, made.kind, made.data["note"]) == ("ablation", "results", "how to read it")
    assert [table.title for table in made.data["tables"]] == ["Questions", "Captions"]
