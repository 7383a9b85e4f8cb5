"""Rows of an ablation as files: what they keep, and rows that do not belong together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.utils.ablation import keep, write_answers, write_captions, write_json, write_run, write_stage
from utils.evaluation.ablation_rows import KINDS, collect_row, read_rows, write_row

RIGHT = [True, False, True, True]


def refused(folder: Path) -> str:
    with pytest.raises(ValueError) as error:
        read_rows(folder / "rows")
    return str(error.value)


def test_a_row_is_kept_with_its_scores_and_without_paths(tmp_path: Path):
    path = keep(tmp_path, "nouns", 1, RIGHT)
    [row] = read_rows(tmp_path / "rows")
    assert (row.kind.name, row.seed, list(row.settings)) == ("nouns", 1, ["pretraining", "question_answering"])
    scores = row.tasks["question_answering"]
    assert scores.metrics == {"accuracy": 75.0} and scores.values["accuracy"].tolist() == [100, 0, 100, 100]
    assert row.settings["pretraining"]["steps"] == 10 and row.settings["pretraining"]["lr"] == 1e-4
    assert str(tmp_path) not in path.read_text() and '"accuracy":[100,0,100,100]' in path.read_text()


def test_every_row_goes_with_every_other(tmp_path: Path):
    for row in KINDS:
        for seed in (0, 1):
            keep(tmp_path, row, seed, RIGHT, "--object_count", "5")
    rows = read_rows(tmp_path / "rows")
    assert [(row.kind.name, row.seed) for row in rows] == [(name, seed) for name in KINDS for seed in (0, 1)]


def test_retrieval_and_captions_have_their_values(tmp_path: Path):
    for stage in ("pretraining", "captioning", "retrieval"):
        write_stage(tmp_path / stage, "all", 0)
    write_captions(tmp_path / "captioning", {"a": 1.5, "b": 0.51239}, {"a": "x", "b": "y"})
    recalls = {f"{way}_R{k}": 50.0 if k == 1 else 100.0 for way in ("t2v", "v2t") for k in (1, 5, 10)}
    queries = {"t2v": ["a#0", "b#0"], "v2t": ["a", "b"]}
    ranks = {"t2v": [0, 1], "v2t": [3, 0]}
    write_json(tmp_path / "retrieval/metrics.json", {"metrics": recalls, "ranks": ranks, "queries": queries})
    write_json(tmp_path / "retrieval/retrieved.json", [{"caption": "x", "video_id": "a", "rank": 1, "retrieved": []}])
    write_row(collect_row(tmp_path, "all", 0, {"a": 100.0, "b": 0.0}), tmp_path / "rows/one.json")
    [row] = read_rows(tmp_path / "rows")
    captions, found = row.tasks["captioning"], row.tasks["retrieval"]
    assert captions.metrics == {"CIDEr": pytest.approx(1.006195), "Bleu_4": 0.25, "exact": 50.0}
    assert captions.values["CIDEr"].tolist() == [1.5, 0.5124] and captions.values["exact"].tolist() == [100, 0]
    assert found.values["v2t_R1"].tolist() == [0, 100] and found.values["v2t_R5"].tolist() == [100, 100]
    with pytest.raises(ValueError, match="no truth of the captions of b"):
        collect_row(tmp_path, "all", 0, {"a": 100.0})


def test_machines_may_differ_but_not_settings(tmp_path: Path):
    keep(tmp_path, "base", 0, RIGHT)
    keep(tmp_path, "all", 0, RIGHT, "--batch_size", "4", "--num_thread_reader", "7", processes=2)
    assert len(read_rows(tmp_path / "rows")) == 2
    keep(tmp_path, "nouns", 0, RIGHT, "--lr", "0.5")
    message = refused(tmp_path)
    assert "base-seed0.json" in message and "nouns-seed0.json" in message
    assert "lr of pretraining is 0.0001 there and 0.5 here" in message
    keep(tmp_path, "nouns", 0, RIGHT, processes=2)
    assert "global batch size of pretraining is 8 there and 16 here" in refused(tmp_path)
    keep(tmp_path, "nouns", 0, RIGHT, "--schedule", "warmup_linear")
    assert "schedule of pretraining is 'warmup_cosine' there" in refused(tmp_path)


def test_weights_of_losses_are_compared_where_a_row_has_the_loss(tmp_path: Path):
    for row in ("base", "trajectories"):
        keep(tmp_path, row, 0, RIGHT)
    keep(tmp_path, "nouns", 0, RIGHT, "--loss_weights", "vtm=2,object_noun=3")
    assert len(read_rows(tmp_path / "rows")) == 3
    keep(tmp_path, "all", 0, RIGHT)
    assert "loss_weights object_noun of pretraining is 3.0 there and 1.0 here" in refused(tmp_path)
    keep(tmp_path, "all", 0, RIGHT, "--loss_weights", "vtm=1,object_noun=3")
    assert "loss_weights of pretraining is {'vtm': 2.0} there and {'vtm': 1.0} here" in refused(tmp_path)


def test_other_data_are_refused(tmp_path: Path):
    keep(tmp_path, "base", 0, RIGHT)
    keep(tmp_path, "base", 1, RIGHT, steps=11)
    assert "steps of pretraining is 10 there and 11 here" in refused(tmp_path)
    run = tmp_path / "runs/base-seed1"
    write_run(run, "base", 1, RIGHT)
    write_answers(run / "question_answering", RIGHT, "who is it?")
    write_row(collect_row(run, "base", 1), tmp_path / "rows/base-seed1.json")
    assert "data (what is asked) of question_answering" in refused(tmp_path)


def test_a_row_that_changes_nothing_is_refused(tmp_path: Path):
    for row in ("all", "other_trajectory"):
        keep(tmp_path, row, 0, RIGHT, "--trajectory", "track")
    assert "have the same trajectory, in which all and other_trajectory differ" in refused(tmp_path)


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        (("base", 0), ("nouns", 0), "need_object True, but its pretraining was run with False"),
        (("nouns", 0), ("nouns", 1), "seed 1, but its pretraining was run with 0"),
        (("nouns", 0), ("trajectories", 0), "losses of weight 0 ['object_noun'], but"),
        (("all", 0), ("no_frame_dropout", 0), "frame_dropout 0.0, but its pretraining was run with 0.5"),
    ],
)
def test_runs_of_another_row_are_not_taken(tmp_path: Path, made: tuple, asked: tuple, message: str):
    write_run(tmp_path, *made, RIGHT)
    with pytest.raises(ValueError) as error:
        collect_row(tmp_path, *asked)
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_what_is_not_there_or_damaged_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no metrics\.json of question_answering"):
        collect_row(tmp_path, "base", 0)
    with pytest.raises(FileNotFoundError, match="has no row"):
        read_rows(tmp_path / "rows")
    path = keep(tmp_path, "base", 0, RIGHT)
    content = json.loads(path.read_text())
    (tmp_path / "rows/copy.json").write_text(path.read_text())
    assert "are both row base with seed 0" in refused(tmp_path)
    (tmp_path / "rows/copy.json").unlink()
    values = {"accuracy": [100, 0, 0, 0]}
    bad_values = {"question_answering": {**content["tasks"]["question_answering"], "values": values}}
    for change in ({"version": 0}, {"row": "other"}, {"seed": True}, {"settings": {}}, {"tasks": bad_values}):
        path.write_text(json.dumps({**content, **change}))
        assert "base-seed0.json is no row" in refused(tmp_path)
    path.write_text("{")
    assert "base-seed0.json is not JSON" in refused(tmp_path)
    (tmp_path / "runs/base-seed0/pretraining/config.json").write_text('{"arguments": 3}')
    with pytest.raises(ValueError, match=r"pretraining/config\.json is not the config\.json of a run"):
        collect_row(tmp_path / "runs/base-seed0", "base", 0)


def test_values_are_rounded_to_what_a_table_shows(tmp_path: Path):
    path = keep(tmp_path, "base", 0, RIGHT)
    [row] = read_rows(tmp_path / "rows")
    row.tasks["question_answering"].values["accuracy"][:] = np.array([74.999951, 75.000049, 75.0, 75.0])
    write_row(row, path)
    assert '"accuracy":[75,75,75,75]' in path.read_text()
