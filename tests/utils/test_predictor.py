"""What users import stands at the top, and the lines that its documentation begins with run."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.tasks.captioning import CaptionModel
from tests.utils.checkpoints import save_tiny
from tests.videos import write_video
from utils import predictor as top
from utils.inference import predictor


def test_the_documented_lines_caption_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    checkpoint = save_tiny(tmp_path, CaptionModel, need_object=False, use_action=False, max_frames=3)
    video = write_video(tmp_path / "v.mp4", 30)
    lines = [line.strip() for line in (predictor.__doc__ or "").splitlines() if line.startswith("    ")]
    assert len(lines) == 3 and lines[0] == "from utils.predictor import Predictor"
    code = "\n".join(lines).replace("output/caption_msrvtt/best.bin", str(checkpoint)).replace("clip.mp4", str(video))
    exec(code, {})
    expected = top.Predictor(checkpoint).caption([str(video)])
    assert capsys.readouterr().out == f"{expected}\n" and list(expected) == [str(video)]


def test_every_name_of_the_top_is_the_rooms_own():
    assert {name: getattr(top, name) for name in top.__all__} == {
        name: getattr(predictor, name) for name in ("Answer", "Embeddings", "Match", "Predictor")
    }
