"""A folder of clips with one csv, as utils/README.md has it: every command from the check to the search."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.tasks.test_retrieval_tasks import QUICK
from tests.world import ROOT, Downstream

# Pre-training comes with a converter that reads such a csv.
PRE_TRAINING = ("utils/webvid_to_tfrecord.py", "tasks/pre_training.py")
THINGS = ("a red star", "a blue circle", "a green square")
COLUMNS = ("video", "caption", "question", "answer", "option_1", "option_2", "option_3", "split")
REAL = Path("realdata/webvid/videos")


def commands() -> list[list[str]]:
    """Words of the commands of the document, without `python`."""
    section = (ROOT / "utils/README.md").read_text().split("\n## Your own data\n")[1].split("\n## ")[0]
    [block] = re.findall(r"^```bash\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for line in block.replace("\\\n", " ").splitlines()]


def write_clips(downstream: Downstream, folder: Path) -> list[str]:
    """20 clips, of which five are real where they are there; their paths below CLIPS, without extension."""
    shared = ROOT.parent / "shared" / REAL
    real = sorted(shared.glob("*.mp4"))[:5]
    rendered = sorted(Path(downstream.paths("msrvtt")["VIDEOS"]).glob("*.mp4"))
    paths = []
    for number, source in enumerate([*real, *rendered][:20]):
        target = folder / "CLIPS" / ("real" if source in real else f"rendered/{number % 2}") / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        paths.append(target.relative_to(folder / "CLIPS").with_suffix("").as_posix())
    return paths


def write_table(path: Path, videos: list[str]) -> None:
    """12 clips for training, three for validation, six for test, of which one is a training clip; all kinds of rows."""
    splits = ["train", "val", "test", "train"] * 3 + ["train"] * 6 + ["test"] * 2
    rows = [
        {
            "video": f"{video}.mp4" if number % 2 else video,
            "caption": f"{thing} is moving",
            "question": "what is moving?",
            "answer": thing,
            **{f"option_{place}": option for place, option in enumerate(THINGS, 1)},
            "split": split,
        }
        for number, (video, thing, split) in enumerate(zip(videos, (THINGS * 7)[:20], splits, strict=True))
    ]
    rows += [{**rows[0], "split": "test"}, {"video": videos[2], "caption": "another caption", "split": "test"}]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)


@pytest.mark.slow
def test_a_folder_of_clips_and_one_csv_are_enough(
    downstream: Downstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java, whose scores take seconds each
    monkeypatch.chdir(tmp_path)
    videos = write_clips(downstream, tmp_path)
    write_table(tmp_path / "my.csv", videos)
    small = [*QUICK, "--clip_archive", str(downstream.clip), "--max_words", "16", "--max_steps", "2"]
    small += ["--max_frames", "3", "--frame_cache", "cache"]
    further = {"utils/check_data.py": ["--workers", "2"], "tasks/predict.py": ["--device", "cpu"]}
    run = []
    for script, *words in commands():
        if script in PRE_TRAINING:
            continue
        main = importlib.import_module(script.removesuffix(".py").replace("/", ".")).main
        capsys.readouterr()
        assert main([*words, *further.get(script, small)]) == 0, script
        run.append((script, "".join(capsys.readouterr())))
    assert [script for script, _ in run] == [
        "utils/check_data.py",
        *(f"tasks/eval_{task}.py" for task in ("retrieval", "captioning", "qa", "mc")),
        "tasks/predict.py",
    ]
    said = dict(run)
    assert "csv: videos listed: train 12, val 3, test 6; 20 video" in said["utils/check_data.py"]
    assert re.search(r"note +1 +in_two_splits", said["utils/check_data.py"])
    assert "20 videos, 20 encoded" in said["tasks/predict.py"] and " 5. " in said["tasks/predict.py"]
    results = {}
    for task in ("retrieval", "captions", "answers", "choices"):
        results[task] = json.loads((tmp_path / "output/my" / task / "metrics.json").read_bytes())
        assert results[task]["datatype"] == "csv"
        assert results[task]["model"].startswith("the best model on the val split, step 2")
        log = (tmp_path / "output/my" / task / "log.txt").read_text()
        assert "1 of the test videos are training videos too" in log
    assert results["retrieval"]["metrics"]["videos"] == 6 and results["retrieval"]["metrics"]["texts"] == 7
    assert results["answers"]["metrics"]["questions"] == results["choices"]["metrics"]["questions"] == 6
    predictions = json.loads((tmp_path / "output/my/captions/predictions.json").read_bytes())
    references = {entry["video_id"]: entry["references"] for entry in predictions}
    assert len(references) == 6 and len(references[videos[2]]) == 2
