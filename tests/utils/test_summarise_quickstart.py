"""The table and summary.json that end the quickstart."""

import json
from pathlib import Path

import pytest

from utils.summarise_quickstart import main

METRICS = [f"{way}_{name}" for way in ("t2v", "v2t") for name in ("R1", "R5", "R10", "MedianR")]
ZERO_SHOT = {"videos": 50, "skipped": 0, **dict.fromkeys(METRICS, 10.0)}


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
    for name, metrics in (
        ("retrieval", {**ZERO_SHOT, "t2v_R1": 70.0}),
        ("multiple_choice", {"accuracy": 95.0, "questions": 50}),
        ("multiple_choice_more_clips", {"accuracy": 96.5, "questions": 200}),
        ("captioning", {"CIDEr": 1.75, "Bleu_4": 0.5, "videos": 50}),
        ("question_answering", {"accuracy": 91.0, "majority": 12.5, "questions": 300}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"metrics": metrics}))
    truth = {
        "color": 99.0,
        "shape": 98.0,
        "motion": 91.5,
        "exact": 80.0,
        "exact_1": 90.0,
        "exact_3": 70.0,
        "invented": 0.0,
    }
    (tmp_path / "captioning" / "truth_scores.json").write_text(json.dumps(truth))
    figures = {name: {"percent": percent, "chance": 20.5} for name, percent in (("nouns", 90.5), ("f1", 85.25))}
    (tmp_path / "alignment.json").write_text(json.dumps({"figures": figures, "clips": 500}))
    assert main([str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["pretrain"]["zero_shot"]["t2v_R1"] == 10.0
    assert summary["pretrain"]["losses"]["mlm"] == [9.0, 2.0] and summary["pretrain"]["steps"] == 40
    assert summary["seconds"] == {"setup": 3, "render": 40, "total": 43}
    assert summary["retrieval"]["t2v_R1"] == 70.0 and "retrieval_without_objects" not in summary
    assert summary["alignment"] == {"nouns": 90.5, "verbs": 85.25}
    out = capsys.readouterr().out
    assert "500 clips: nouns 90.5 % (chance 20.5 %), verbs F1 85.2 % (chance 20.5 %)\n" in out
    assert "retrieval (fine-tuned)" in out and "50 questions of 5 options: 95.0 % right\n" in out
    assert "200 questions of 5 options: 96.5 % right\n" in out
    assert "captioning, 50 clips: CIDEr 1.750 Bleu_4 0.500\n" in out and summary["captioning"]["truth"] == truth
    assert "color 99.0 %, shape 98.0 %, motion 91.5 %; things invented per caption: 0.00" in out
    assert "all true and complete: 80.0 % (1 things 90 %, 3 things 70 %)" in out
    assert "300 questions: 91.0 % right (always the most frequent answer: 12.5 %)" in out
    assert "50 held-out clips (chance R1 2.0 %)" in out and "mlm             9.000 ->    2.000" in out


def test_what_was_scored_on_more_clips_is_in_the_summary_and_in_a_line(tmp_path: Path, capsys):
    write_run(
        tmp_path / "pretrain", {"kind": "train", "step": 1, "vtm": 1.0}, {"kind": "evaluation", "step": 1, **ZERO_SHOT}
    )
    (tmp_path / "seconds.tsv").write_text("setup\t3\n")
    many = {**ZERO_SHOT, "videos": 500}
    contents = {
        "pretrain": {"losses": {}, "zero_shot": {**many, "t2v_R1": 91.5}},
        "retrieval": {"metrics": {**many, "v2t_R1": 97.25}},
        "captioning": {"metrics": {"CIDEr": 1.0, "videos": 500}},
        "question_answering": {"metrics": {"accuracy": 98.5, "questions": 3000}},
    }
    for name, content in contents.items():
        (tmp_path / "queries" / name).mkdir(parents=True)
        (tmp_path / "queries" / name / "metrics.json").write_text(json.dumps(content))
    (tmp_path / "queries/captioning/truth_scores.json").write_text(json.dumps({"exact": 93.5}))
    assert main([str(tmp_path)]) == 0
    found = json.loads((tmp_path / "summary.json").read_text())["more_clips"]
    assert found["pretrain"]["t2v_R1"] == 91.5 and found["captioning"]["truth"] == {"exact": 93.5}
    assert (
        "On 500 clips: zero-shot R1 91.5 and 10.0 %, retrieval R1 10.0 and 97.2 %, captions all true and complete "
        "93.5 %, answers 98.5 % right\n"
    ) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("seconds.tsv", "setup\tx\n", "seconds.tsv: lines are a stage, a tab and seconds"),
        ("seconds.tsv", "setup\n", "seconds.tsv: lines are a stage, a tab and seconds"),
        ("retrieval/metrics.json", '{"metrics": ', "metrics.json is not JSON"),
        ("retrieval/metrics.json", "[1]", "metrics.json has no metrics; run the task again"),
        ("alignment.json", "[1]", "alignment.json lacks figures"),
        ("alignment.json", '{"clips": 3, "figures": {"nouns": {"percent": 1, "chance": 2}}}', "lacks figures"),
        ("pretrain/metrics.jsonl", "{\n", "metrics.jsonl, line 1 is not JSON"),
    ],
)
def test_damaged_results_are_one_message(tmp_path: Path, capsys, name: str, content: str, message: str):
    (tmp_path / "seconds.tsv").write_text("setup\t3\n")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    assert main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
