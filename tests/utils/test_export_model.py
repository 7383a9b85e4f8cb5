"""The command that writes a model as a folder, from a task's run to its evaluation and back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks import eval_mc
from tests.tasks.test_retrieval_tasks import QUICK, WITH_OBJECTS
from tests.utils.checkpoints import released_state, save_tiny
from tests.world import ROOT, Downstream
from utils import export_model


def choice_flags(world: Downstream, folder: Path, *more: str) -> list[str]:
    """tasks/eval_mc.py on the demo world."""
    paths = world.choices()
    names = {
        "clip_archive": "CLIP_ARCHIVE", "labelmap_path": "LABEL_MAP", "train_csv": "TRAIN_CSV", "val_csv": "VAL_CSV",
        "test_csv": "TEST_CSV", "data_path": "CAPTIONS", "features_path": "VIDEOS", "object_path": "OBJECT_PATH",
    }  # fmt: skip
    given = [part for flag, name in names.items() for part in (f"--{flag}", paths[name])]
    return ["--output_dir", str(folder), "--max_words", "24", *given, *QUICK, *WITH_OBJECTS, *more]


@pytest.mark.slow
def test_a_trained_model_is_evaluated_from_its_folder_elsewhere_with_the_run_gone(
    downstream: Downstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert eval_mc.main(choice_flags(downstream, tmp_path / "run", "--do_train", "--max_steps", "2")) == 0
    trained = json.loads((tmp_path / "run" / "metrics.json").read_bytes())
    capsys.readouterr()
    assert export_model.main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "best.bin is exported" in said.err and said.out.startswith(f"{tmp_path / 'out'}: ")
    assert f"| test | accuracy | {trained['metrics']['accuracy']:.4g} |" in (tmp_path / "out/README.md").read_text()
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    flags = choice_flags(downstream, tmp_path / "again", "--do_eval", "--init_model", "../out")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tasks/eval_mc.py"), *flags, "--clip_archive", str(tmp_path / "none")],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again" / "metrics.json").read_bytes())
    assert again["metrics"] == trained["metrics"] and again["correct"] == trained["correct"]
    flags = ["--do_train", "--max_steps", "1", "--init_model", str(tmp_path / "out"), "--clip_archive", "none"]
    assert eval_mc.main(choice_flags(downstream, tmp_path / "further", *flags)) == 0


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint = save_tiny(tmp_path)
    assert export_model.main([str(checkpoint), str(tmp_path / "half"), "--dtype", "bf16"]) == 0
    kinds = {value.dtype for value in load_file(tmp_path / "half/model.safetensors").values()}
    assert kinds == {torch.bfloat16} and "complete its README.md" in capsys.readouterr().out
    torch.save(released_state(), tmp_path / "stoa.bin")
    assert export_model.main([str(tmp_path / "stoa.bin"), str(tmp_path / "out"), "--need_object", "--use_action"]) == 0
    assert json.loads((tmp_path / "out/config.json").read_bytes())["model"]["use_action"] is True
    capsys.readouterr()
    for source, out, message in (
        (checkpoint, "half", "is there already and not an empty folder; name another, or delete it"),
        (tmp_path, "new", "no best.bin and no ckpt/pytorch_model.bin.N in it"),
        (tmp_path / "gone", "new", "no such checkpoint"),
        (checkpoint, "stoa.bin/new", "stoa.bin/new: cannot be written ("),
    ):
        assert export_model.main([str(source), str(tmp_path / out)]) == 1
        said = capsys.readouterr().err
        assert said.splitlines()[-1].startswith("error: ") and message in said
    with pytest.raises(SystemExit):
        export_model.main([str(checkpoint), str(tmp_path / "new"), "--dtype", "int8"])
