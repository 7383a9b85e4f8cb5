"""The command that writes the report page: what is missing and what is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.ablation import keep
from tests.utils.report.quickstart import Tags, section, text, write_json
from utils.make_report import main


def test_what_is_not_there_is_left_out_with_a_sentence(tmp_path: Path):
    assert main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    Tags(html)
    assert html.count("this part is left out.") == 7 and "<img" not in html
    assert "There is no retrieval/retrieved.json: this part is left out." in html
    write_json(tmp_path / "captioning/predictions.json", [{"video_id": "v", "prediction": "x", "references": ["y"]}])
    write_json(tmp_path / "summary.json", {"seconds": {"setup": 1}})
    assert main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    assert "There is no video file of v." in html and html.count("this part is left out.") == 6
    (tmp_path / "demo/msrvtt/videos").mkdir(parents=True)
    (tmp_path / "demo/msrvtt/videos/v.mp4").write_bytes(b"no video")
    assert main([str(tmp_path)]) == 0
    assert "The video of v cannot be read." in (tmp_path / "report.html").read_text()


def test_damaged_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "none")]) == 1
    assert "none is no folder" in capsys.readouterr().err
    (tmp_path / "summary.json").write_text("{")
    assert main([str(tmp_path)]) == 1
    assert "summary.json is not JSON" in capsys.readouterr().err
    (tmp_path / "summary.json").unlink()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/bad.png").write_bytes(b"text")
    assert main([str(tmp_path)]) == 1
    assert "bad.png is no picture" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("place", ["", "ablation"])
def test_an_ablation_has_a_section_where_there_is_one(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]):
    keep(tmp_path / place, "base", 0, [True, False])
    keep(tmp_path / place, "trajectories", 0, [True, True])
    assert main([str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text()
    Tags(html)
    shown = text(section(html, "ablation"))
    assert "Question answering, 2 items" in shown and "+ trajectories 100.0 +50.0 [" in shown
    assert "+ actions missing missing" in shown and "paired bootstrap" in shown
    keep(tmp_path / place, "base", 1, [True, False], "--lr", "0.5")
    assert main([str(tmp_path)]) == 1
    assert "do not belong together" in capsys.readouterr().err
