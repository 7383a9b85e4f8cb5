"""`python -m tests.clip_sources`: its table, its exit status, and what it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clip_sources import rows
from tests.clip_sources.__main__ import main
from tests.clip_sources.source import SHAPES

pytest.importorskip("transformers", reason="transformers (requirements-dev.txt) computes what is right")

from tests.clip_sources import hugging_face

ROOT = Path(__file__).resolve().parents[2]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_folder_of_a_user_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    hugging_face.write(tmp_path / "mine", SHAPES["tiny"], "gelu", "folder with preprocessor")
    assert main(["--hf", str(tmp_path / "mine")]) == 0
    shown = lines(capsys)
    assert shown[0] == rows.HEAD and shown[2].startswith("| mine | transformers | folder |")
    assert shown[2].endswith("| loads |") and "1 sources" in shown[-1]


def test_a_difference_above_the_bound_ends_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    hugging_face.write(tmp_path / "mine", SHAPES["tiny"], "gelu", "folder")
    monkeypatch.setattr(rows, "BOUND", 1e-12)
    assert main(["--hf", str(tmp_path / "mine")]) == 1
    assert "**above 1e-12**" in lines(capsys)[2]


def test_a_kind_that_is_taken_or_refused_against_what_is_right_ends_with_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    words = ["--only", "average pooling open_clip"]
    assert main(words) == 0 and "refused: " in lines(capsys)[2]
    monkeypatch.setattr(rows, "load_ours", lambda *_: None)
    assert main(words) == 1 and "**taken in silence**" in lines(capsys)[2]

    def refuse(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(rows, "load_ours", refuse)
    assert main(["--only", "OpenAI TorchScript tiny gelu 16"]) == 1 and "**refused**" in lines(capsys)[2]


def test_a_reader_that_fails_otherwise_is_a_fault(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "load_ours", lambda *_: {}["entry"])
    assert main(["--only", "no_ln_pre"]) == 1
    assert "**raised something else** refused: KeyError" in lines(capsys)[2]


def test_one_model_of_open_clips_table_and_one_that_it_does_not_have(capsys: pytest.CaptureFixture[str]):
    assert main(["--open_clip", "RN50-quickgelu"]) == 0 and "| RN50-quickgelu | open_clip |" in lines(capsys)[2]
    with pytest.raises(SystemExit):
        main(["--open_clip", "ViT-Z-99"])
    assert "open_clip has no model 'ViT-Z-99'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_library_is_imported_for_its_own_rows_alone():
    code = """
import sys
from tests.clip_sources.__main__ import main
status = main(["--only", sys.argv[1]])
print({name for name in ("open_clip", "transformers") if name in sys.modules}, status)
"""
    for words, expected in (("no such row", "set() 0"), ("tiny transformers bfloat16 quick", "{'transformers'} 0")):
        done = subprocess.run([sys.executable, "-c", code, words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.splitlines()[-1] == expected, done.stdout + done.stderr
