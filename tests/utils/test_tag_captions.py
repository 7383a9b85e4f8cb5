"""The command that tags captions beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataloaders.pretrain_index import prepare_pretrain_index
from utils import tag_captions


def test_what_the_command_prepares_is_what_training_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "path.index").write_text("v1\tpath-00000.tfrecord\t0\n")
    captions = tmp_path / "labels.json"
    captions.write_text(json.dumps([{"video_id": "v1", "caption": "a dog runs"}]))
    assert tag_captions.main(["--data_path", str(captions), "--shards", str(tmp_path)]) == 0
    folder = prepare_pretrain_index(captions, tmp_path)
    assert f"{folder}: 1 samples, tagged by hanta" in capsys.readouterr().out


def test_missing_files_are_an_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tag_captions.main(["--data_path", str(tmp_path / "no.json"), "--shards", str(tmp_path)]) == 1
    assert "no.json" in capsys.readouterr().err
