"""Frames of clips side by side, and files, as pictures inside the page."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np

from tests.utils.report.quickstart import section
from utils.make_report import main
from utils.report.strips import LARGEST_PNG


def test_strips_hold_the_frames_of_the_clip(html: str):
    """Clip 7014 brightens by 5 grey levels a frame; its four frames are 0, 2, 6 and 10 of its twelve."""
    image = re.search(r'src="data:image/jpeg;base64,([^"]*)" alt="4 frames of video7014"', html)
    assert image is not None
    strip = cv2.imdecode(np.frombuffer(base64.b64decode(image[1]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert strip.shape == (96, 4 * 128 + 3 * 3)
    levels = [strip[:, left + 10 : left + 110].mean() for left in range(0, 4 * 131, 131)]
    np.testing.assert_allclose(levels, [0, 10, 30, 50], atol=3)


def test_large_pictures_become_jpeg(quickstart: Path, tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "pictures/large.png"), noise)
    assert (tmp_path / "pictures/large.png").stat().st_size > LARGEST_PNG
    assert main([str(tmp_path)]) == 0
    shown = section((tmp_path / "report.html").read_text(), "pictures")
    assert "data:image/jpeg" in shown and "data:image/png" not in shown
