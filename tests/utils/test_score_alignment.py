"""The command that measures which words trajectories and action queries find."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.utils.checkpoints import save_tiny
from tests.world import World
from utils.report.summary import read_alignment
from utils.score_alignment import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def scored(world: World, model: Path, output: Path, *more: str, data: Path | None = None) -> dict[str, Any]:
    """The figures of a run that ends well."""
    flags = ["--data", str(data or world.msrvtt), "--labelmap_path", str(world.label_map), "--device", "cpu"]
    assert main([str(model), *flags, "--output", str(output), *more]) == 0
    return json.loads(output.read_text())


def test_the_demo_world_has_all_figures_with_intervals_and_chance(world: World, model: Path, tmp_path: Path, capsys):
    found = scored(world, model, tmp_path / "a.json")
    figures = found["figures"]
    with open(world.msrvtt / "test.csv") as file:
        ids = [row["video_id"] for row in csv.DictReader(file)]
    truth = world.truth("msrvtt")
    assert (found["clips"], found["texts"], found["skipped"]) == (len(ids), len(ids), [])
    assert found["captions"] == str(world.msrvtt / "test.csv")
    assert {"nouns", "end", "in_caption", "named", "in_caption_end", "open_nouns", "precision", "recall", "f1"} <= {
        *figures
    }
    assert figures["nouns"]["of"] == sum(one["of"] for name, one in figures.items() if name.startswith("nouns_"))
    assert 0 < figures["nouns"]["of"] <= sum(len(truth[video]["objects"]) for video in ids)
    assert figures["recall"]["of"] == sum(len({thing["motion"] for thing in truth[video]["objects"]}) for video in ids)
    for name, one in figures.items():
        assert 0 <= one["low"] <= one["percent"] <= one["high"] <= 100, name
        assert (one["chance"] is None) == (name == "in_caption")
    summary = read_alignment(tmp_path / "a.json")
    assert summary["alignment"] == {"nouns": figures["nouns"]["percent"], "verbs": figures["f1"]["percent"]}
    assert summary["alignment_details"]["clips"] == len(ids)
    said = capsys.readouterr().out
    assert "things whose trajectory gets their noun" in said and "95 % interval" in said and "  F1" in said
    assert f"{len(ids)} clips" in said
    assert scored(world, model, tmp_path / "b.json", "--batch_size_val", "3")["figures"] == figures


def test_the_first_clips_and_all_captions_of_each(world: World, model: Path, tmp_path: Path, capsys):
    captions = tmp_path / "mine.jsonl"
    with open(world.msrvtt / "test.csv") as file:
        rows = [(row["video_id"], row["sentence"]) for row in csv.DictReader(file)]
    lines = [{"video": video, "caption": text} for video, text in [*rows[:3], rows[0], ("gone", "a dog")]]
    captions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = scored(world, model, tmp_path / "a.json", "--captions", str(captions), "--clips", "2")
    assert (found["clips"], found["texts"]) == (2, 3)
    assert "1 videos of" in capsys.readouterr().err
    few = scored(world, model, tmp_path / "a.json", "--captions", str(captions), "--clips", "9")
    assert few["clips"] == 3 and "3 clips are all that there are, not 9 (--clips)" in capsys.readouterr().err


def test_real_clips_have_no_truth_and_videos_anywhere_below(world: World, model: Path, tmp_path: Path, capsys):
    data = tmp_path / "mine"
    shutil.copytree(world.msrvtt / "videos", data / "clips/some")
    shutil.copytree(world.msrvtt / "objects", data / "objects", ignore=shutil.ignore_patterns("*.lmdb"))
    shutil.copy(world.msrvtt / "test.csv", data / "captions.csv")
    found = scored(world, model, tmp_path / "a.json", data=data)
    assert found["captions"] == str(data / "captions.csv")
    assert "nouns" in found["figures"] and not {"open_nouns", "f1"} & set(found["figures"])
    assert "has no truth.json: what is nearest among all words of a world is left out" in capsys.readouterr().err
    assert not list((data / "objects").glob("*.lmdb")), "nothing is written into the data"


def test_errors_name_the_file_and_the_remedy(world: World, model: Path, tmp_path: Path, capsys):
    data = tmp_path / "data"
    (data / "videos").mkdir(parents=True)
    (data / "objects").mkdir()
    without = save_tiny(tmp_path, need_object=False, use_action=False)
    labels = ["--labelmap_path", str(world.label_map), "--device", "cpu"]

    def fails(checkpoint: Path, folder: Path, *more: str) -> str:
        assert main([str(checkpoint), "--data", str(folder), *labels, *more]) == 1
        return capsys.readouterr().err

    assert "no such folder (--data)" in fails(model, tmp_path / "none")
    assert "has none of test.csv, MSRVTT_data.json" in fails(model, data)
    assert "name the file with --captions" in fails(model, data)
    shutil.copy(world.msrvtt / "test.csv", data)
    assert "none of the 8 videos of" in fails(model, data)
    for path in (world.msrvtt / "videos").iterdir():
        shutil.copy(path, data / "videos")
    assert "a model without trajectories has nothing to match" in fails(without, world.msrvtt)
    assert "objects has no object file of these 8 videos" in fails(model, data)
    (data / "truth.json").write_text("{}")
    assert "truth.json is not the truth of a demo world" in fails(model, data)
    (data / "objects").rmdir()
    (data / "truth.json").unlink()
    assert "no such folder of object files" in fails(model, data)
    assert main([str(model), "--data", str(world.msrvtt), "--labelmap_path", str(tmp_path / "no.json")]) == 1
    assert "no label map at" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(model), "--data", str(data), "--clips", "0"])
