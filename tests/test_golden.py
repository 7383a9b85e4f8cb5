"""The released code's own numbers, every file whole."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests import golden


@pytest.mark.parametrize(
    "stem",
    [
        "tiny-seed0",
        pytest.param("wide-seed5", marks=pytest.mark.slow),
        pytest.param("extra-seed0", marks=pytest.mark.slow),
    ],
)
def test_released_numbers(stem: str, capsys: pytest.CaptureFixture[str]):
    status = golden.main([stem])
    assert status == 0, capsys.readouterr().out


def test_a_wrong_number_fails(tmp_path: Path, capsys):
    arrays = dict(np.load(golden.DATA / "tiny-seed0.npz"))
    arrays["pretrain.loss.mlm"] = arrays["pretrain.loss.mlm"] * 1.001
    np.savez(tmp_path / "wrong.npz", **arrays)
    (tmp_path / "wrong.json").write_text((golden.DATA / "tiny-seed0.json").read_text())
    assert golden.main([str(tmp_path / "wrong"), "--only", "pretrain."]) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")] != []


def test_an_entry_nothing_covers_fails(tmp_path: Path, capsys):
    arrays = dict(np.load(golden.DATA / "tiny-seed0.npz"), **{"pretrain.something_new": np.zeros(3)})
    np.savez(tmp_path / "more.npz", **arrays)
    (tmp_path / "more.json").write_text(json.dumps(json.loads((golden.DATA / "tiny-seed0.json").read_text())))
    assert golden.main([str(tmp_path / "more"), "--only", "pretrain.something"]) == 1
    assert "not covered  pretrain.something_new" in capsys.readouterr().out
