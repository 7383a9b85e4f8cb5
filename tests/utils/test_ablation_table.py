"""The command that prints an ablation's table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.ablation import keep
from utils.ablation_table import main


def test_the_table_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    keep(tmp_path, "base", 0, [True, False])
    assert main([str(tmp_path), "--samples", "50"]) == 0
    out = capsys.readouterr().out
    assert "| base | 50.0 | \u2013 |" in out and "| + actions | missing | missing |" in out and "50 samples" in out
    file = tmp_path / "table.tex"
    assert main([str(tmp_path), "--format", "latex", "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n" and r"base & 50.0 & -- \\" in file.read_text()


def test_what_cannot_be_a_table_is_an_error_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path)]) == 1
    assert "rows has no row" in capsys.readouterr().err
    keep(tmp_path, "base", 0, [True, False])
    keep(tmp_path, "base", 1, [True, False, True])
    assert main([str(tmp_path), "--output", str(tmp_path / "table.md")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "base-seed0.json" in error and "base-seed1.json" in error
    assert not (tmp_path / "table.md").exists()
